"""Problems on single batches, and on random ones."""

from itertools import islice

import pytest
import torch
from torch import nn

from lossgeom.problem import Problem, minibatches
from lossgeom.problem.minibatches import each_batch, in_larger_batches, sampled_batches
from tests import reference
from tests.problems import CASES

NAMES = ("ragged", "mapping", "flat_tuple", "classes_last", "own_form", "lstm", "weighted")
KNOWN = [case for case in CASES if case.name in NAMES]


@pytest.mark.parametrize("case", KNOWN, ids=repr)
def test_each_batch_has_its_own_loss(case):
    problem = case.problem()
    problem = problem.at(1.1 * problem.theta)
    parts = list(each_batch(problem))
    alone = [case.problem([batch]).at(problem.theta).loss() for batch in case.data]
    assert [part.loss() for part in parts] == pytest.approx(alone)


@pytest.mark.parametrize("case", KNOWN, ids=repr)
def test_all_examples_in_another_order_have_the_whole_loss(case):
    problem, before = case.problem(), reference.fingerprint(case.model)
    n = len(case.targets)
    first, second = islice(sampled_batches(problem, n), 2)
    assert first.loss() == pytest.approx(problem.loss())
    assert second.loss() == pytest.approx(problem.loss())
    assert reference.fingerprint(case.model) == before


def test_batches_are_drawn_without_replacement_and_independently():
    case = CASES[0]
    rows = {tuple(row.tolist()) for row in case.inputs}
    batches = [p.batches[0][0] for p in islice(sampled_batches(case.problem(), 4), 30)]
    drawn = [{tuple(row.tolist()) for row in batch} for batch in batches]
    assert all(len(batch) == 4 and batch <= rows for batch in drawn)
    assert set.union(*drawn) == rows
    assert len({frozenset(batch) for batch in drawn}) > 20


def test_inputs_stay_with_their_targets():
    case = CASES[0]
    pairs = {tuple(x.tolist()): int(y) for x, y in zip(case.inputs, case.targets, strict=True)}
    part = next(sampled_batches(case.problem(), 5, seed=3))
    ((x, y),) = part.batches
    assert [pairs[tuple(row.tolist())] for row in x] == y.tolist()
    assert torch.equal(part.theta, case.problem().theta)


@pytest.mark.parametrize("case", KNOWN, ids=repr)
def test_small_batches_are_put_together_where_they_fit(case):
    problem = case.problem()
    large = in_larger_batches(problem)
    assert large.loss() == pytest.approx(problem.loss())
    assert len(large.batches) == 1 < len(case.data)


def test_batches_stay_where_they_cannot_be_put_together(monkeypatch):
    problem = CASES[0].problem(seed=0)
    assert in_larger_batches(problem) is problem  # a seed fixes what is drawn for each
    lengths = [(torch.ones(2, length, 3), torch.zeros(2, 1)) for length in (4, 5)]
    averaged = Problem(
        nn.Linear(3, 1),
        "squared_error",
        lengths,
        forward=lambda model, batch: model(batch[0].mean(1)),
    )
    assert in_larger_batches(averaged) is averaged
    monkeypatch.setattr(minibatches, "TOGETHER", 1)
    ragged = CASES[0].problem()
    assert len(in_larger_batches(ragged).batches) == len(CASES[0].data)


class OfTwo(nn.Module):
    """A sum of one of two layers, which a batch chooses by name, and of what it shifts by."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})

    def forward(self, x, task, shift):
        return self.layers[task](x) + shift


@pytest.mark.parametrize(("tasks", "shifts"), [("ab", (1.0, 1.0)), ("aa", (1.0, 2.0))])
def test_batches_that_differ_beside_their_examples_stay(tasks, shifts):
    """In a word that the model reads, or in a tensor that all examples of a batch share."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, 3), torch.randn(2, 4, 1)
    both = zip(x, y, tasks, map(torch.tensor, shifts), strict=True)
    data = [{"x": x, "labels": y, "task": task, "shift": shift} for x, y, task, shift in both]
    problem = Problem(OfTwo(), "squared_error", data)
    assert in_larger_batches(problem) is problem
    with pytest.raises(ValueError, match="they differ in what belongs to no example"):
        next(sampled_batches(problem, 4))
    alike = Problem(OfTwo(), "squared_error", data[:1] * 2)
    assert next(sampled_batches(alike, 8)).loss() == pytest.approx(alike.loss())
