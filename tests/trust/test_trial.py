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


@pytest.mark.parametrize("dtype", [None, torch.float64])
@pytest.mark.parametrize("check", [True, False])
def test_what_hooks_store_on_a_few_examples_is_not_seen_by_the_pass_that_goes_on(dtype, check):
    torch.manual_seed(0)
    model, stored = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), []
    model[1].register_forward_hook(lambda module, args, output: stored.append(output))

    def penalised(outputs, batch):
        penalty = torch.stack([part.square().mean() for part in stored]).mean()
        total = nn.functional.cross_entropy(outputs, batch[1], reduction="sum")
        return total + 5 * len(outputs) * penalty**2, len(outputs)

    batches = [(torch.randn(n, 3), torch.randint(2, (n,))) for n in (40, 3)]
    p = lg.Problem(model, penalised, batches, dtype=dtype, check=check)
    slopes = [p.at(p.theta + shift * 1e-3).gradient() for shift in (1, -1)]
    difference = (slopes[0] - slopes[1]) / 2e-3
    v = torch.ones(p.theta.numel(), dtype=p.theta.dtype)
    torch.testing.assert_close(lg.Hessian(p) @ v, difference, rtol=1e-2, atol=1e-3)


def test_derivatives_that_are_asked_for_are_compared_in_float64_at_any_size(monkeypatch):
    monkeypatch.setattr("lossgeom.trust.trial.LARGEST", 4)
    p = problem(nn.Tanh())
    assert on_few(p, p.first_batch(), lambda few: few.theta.dtype, double=True) == torch.float64
