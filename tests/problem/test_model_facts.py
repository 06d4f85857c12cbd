"""What is known of a model and of a point, and what is not carried over."""

from dataclasses import FrozenInstanceError, replace

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.problem.model_facts import Key


def problem_of(model=None, **settings):
    data = [(torch.ones(3, 2), torch.ones(3, 1))]
    return lg.Problem(model or nn.Linear(2, 1), "squared_error", data, **settings)


def finding():
    calls = []

    def find(*of):
        calls.append(of)
        return len(calls)

    return find, calls


def test_a_problem_stays_as_it_is():
    problem = problem_of()
    with pytest.raises(FrozenInstanceError):
        problem.theta = torch.zeros(3)
    assert problem.at(torch.zeros(3)).theta.tolist() == [0, 0, 0] != problem.theta.tolist()


def test_facts_hold_at_every_point_and_values_at_one():
    problem, (find, calls) = problem_of(), finding()
    for other in (problem, problem, problem.at(torch.zeros(3)), problem.refreshed()):
        assert other.evaluation.facts.known(Key(find), find) == 1
    assert problem.evaluation.facts.known(Key(find, "other"), find) == 2
    assert problem.cached(find, "x") == problem.cached(find, "x") == 3
    assert problem.cached(find, "y") == 4
    assert problem.at(problem.theta).cached(find, "x") == 5
    assert [len(call) for call in calls] == [0, 0, 2, 2, 2]


def test_what_is_known_in_a_mode_is_known_when_one_comes_back_to_it():
    problem, (find, calls) = problem_of(mode="eval"), finding()
    train = problem.in_mode("train")
    assert problem.evaluation.facts.known(Key(find), find) == 1
    assert train.evaluation.facts.known(Key(find), find) == 2
    assert train.in_mode("eval").evaluation.facts.known(Key(find), find) == 1
    assert train.in_mode("eval").in_mode("train").evaluation.facts.known(Key(find), find) == 2
    assert len(calls) == 2


class Counted(nn.Linear):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return super().forward(x)


def test_a_mode_is_looked_at_once():
    problem = problem_of(Counted(2, 1), mode="train")
    problem.loss()
    there_and_back = problem.in_mode("eval").in_mode("train")
    before = Counted.calls
    assert there_and_back.loss() == problem.loss()
    assert Counted.calls == before + 1


def test_all_that_is_made_of_batches_is_summed_and_divided_in_one_place():
    problem = problem_of()
    total, divisor = problem.reduced(lambda _: [(1.5, 2), (2.5, 3)])
    assert (total, divisor) == (4.0, 5.0)
    parts = [torch.ones(2), torch.full((2,), 2.0), torch.zeros(2)]
    total, divisor = problem.reduced(lambda _: ((part, 1) for part in parts))
    assert total.tolist() == [3, 3]
    assert divisor == 3
    assert [part.tolist() for part in parts] == [[1, 1], [2, 2], [0, 0]]  # nothing was added to
    summed = problem.with_loss(replace(problem.criterion, average=False))
    assert summed.reduced(lambda _: [(1.5, 2), (2.5, 3)]) == (4.0, 1.0)
    with pytest.raises(ValueError, match="are all targets ignored"):
        problem.reduced(lambda _: [(0.0, 0)])
