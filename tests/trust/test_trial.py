"""Short cuts tried on a few examples."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.problem.agreement import ALONE, EXACT, agree
from lossgeom.trust.trial import EXAMPLES, Trial, on_few, tried
from tests.trust.test_doctor import problem

pytestmark = pytest.mark.usefixtures("unchecked")


def test_a_trial_is_made_once_for_a_model_and_the_shapes_in_a_batch():
    p, looks = problem(nn.Tanh()), []

    def look(trial: Trial, setting: str) -> int:
        looks.append(setting)
        assert not torch.equal(trial.problem.theta, p.theta)
        return len(trial.batch)

    batch = p.first_batch()
    assert tried(p, batch, look, "a") == EXAMPLES
    assert tried(p.at(p.theta * 2), batch.examples(2, 8), look, "a") == EXAMPLES
    assert looks == ["a"]
    assert tried(p, batch.examples(0, 2), look, "a") == 2
    tried(p, batch, look, "b")
    tried(p.in_mode("train"), batch, look, "a")
    assert looks == ["a", "a", "b", "a"]


class Positive(nn.Module):
    """Is not defined where a parameter is below its present value, or above it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x[:, :2] * (1 - (self.scale - 1).square()).where(self.scale == 1, torch.nan)


def test_a_trial_falls_back_on_the_point_itself():
    p = lg.Problem(Positive(), "squared_error", [(torch.ones(5, 3), torch.zeros(5, 2))])

    def look(trial: Trial) -> bool:
        if not trial.problem.outputs(trial.problem.theta, trial.batch).isfinite().all():
            raise lg.NonFiniteError("there is nothing here")
        return torch.equal(trial.problem.theta, p.theta)

    assert tried(p, p.first_batch(), look)


def test_what_a_trial_says_by_an_error_is_said():
    p, looks = problem(nn.Tanh()), []

    def look(trial: Trial) -> None:
        looks.append(trial)
        raise ValueError("cannot be measured")

    with pytest.raises(ValueError, match="cannot be measured"):
        tried(p, p.first_batch(), look)
    assert len(looks) == 1


class Whole(nn.Module):
    """Runs on eight examples and no fewer."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(x.view(8, 3))


def test_a_look_at_few_examples_or_at_all_of_them():
    def look(small: lg.Problem) -> tuple[int, torch.dtype]:
        small.loss()
        return len(small.first_batch()), small.theta.dtype

    p = problem(nn.Tanh())
    assert on_few(p, p.first_batch(), look) == (EXAMPLES, torch.float32)
    assert on_few(p, p.first_batch(), look, double=True) == (EXAMPLES, torch.float64)
    whole = lg.Problem(Whole(), "cross_entropy", [(torch.ones(8, 3), torch.zeros(8).long())])
    assert on_few(whole, whole.first_batch(), look) == (8, torch.float32)


def test_agreement_is_relative_and_of_one_shape():
    x = torch.arange(1.0, 4.0).double()
    assert agree(x * (1 + EXACT / 2), x, EXACT)
    assert not agree(x * (1 + 2 * EXACT), x, EXACT)
    assert not agree(x[:2], x, 1.0)
    assert not agree(x * torch.nan, x, 1.0)
    near = problem(nn.Tanh())
    rounded = problem(nn.Tanh(), autocast=torch.bfloat16)
    off = x * (1 + 2 * ALONE)
    assert not Trial(near, near.first_batch()).agree(off, x)
    assert Trial(rounded, rounded.first_batch()).agree(off, x)
