"""Functions of parameters that are recorded, and not replayed where that gives something else."""

import pytest
import torch

import lossgeom as lg
from lossgeom.bounds import _replayed
from lossgeom.bounds._replayed import AGAIN, PAYS, Replayed
from lossgeom.bounds._training import _BatchGradients
from lossgeom.losses import NonFiniteError


def hidden(theta):
    """What a recording takes for a constant."""
    return torch.from_numpy(theta.detach().numpy().copy())


FUNCTIONS = {
    "plain": lambda theta: theta.exp() * theta,
    "of a hidden copy": lambda theta: theta * hidden(theta),
    "of a number": lambda theta: theta * theta.sum().item(),
    "constant": lambda theta: torch.ones_like(theta),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_returned_is_the_function(name, binary):
    problem, calls = binary.problem, []

    def function(theta, batch):
        calls.append(batch.index)
        return FUNCTIONS[name](theta) + batch.index

    replayed = Replayed(problem.inside_transforms(), function, function, PAYS)
    for number in range(5):
        for batch in problem.over_batches(lambda batch: batch):
            theta = problem.theta + number + 1
            torch.testing.assert_close(replayed(theta, batch), FUNCTIONS[name](theta) + batch.index)
    assert len(calls) == 3 * (3 if name == "plain" else 6)  # one of them is recorded


def test_replays_are_compared_again(binary):
    problem, shift = binary.problem, [0.0]

    def function(theta, batch):
        return theta + shift[0]

    replayed = Replayed(problem.inside_transforms(), function, function, PAYS)
    batch = problem.first_batch()
    found = []
    for number in range(2 * AGAIN):
        shift[0] = float(number > 3)
        found.append(replayed(problem.theta, batch) - problem.theta)
    assert [bool(difference.any()) for difference in found[AGAIN:]] == [False] + [True] * (
        AGAIN - 1
    )


@pytest.mark.parametrize("limit", ["SMALL", "ROOM"])
def test_what_is_large_is_not_recorded(limit, binary, monkeypatch):
    monkeypatch.setattr(_replayed, limit, 0)
    calls = []

    def function(theta, batch):
        calls.append(batch)
        return theta

    replayed = Replayed(binary.problem.inside_transforms(), function, function, PAYS)
    for _ in range(4):
        replayed(binary.problem.theta, binary.problem.first_batch())
    assert len(calls) == 4


@pytest.mark.parametrize("kind", ["binary", "several"])
def test_a_bound_is_the_same_without_replays(kind, request, monkeypatch):
    case = request.getfixturevalue(kind)
    settings = {"prior": case.initial, "epochs": PAYS + 4, "lr": 0.04, "samples": 40}
    found = lg.pac_bayes(case.problem, **settings)
    monkeypatch.setattr(_replayed, "SMALL", 0)
    expected = lg.pac_bayes(case.problem, **settings)
    torch.testing.assert_close(found.posterior.mean, expected.posterior.mean)
    torch.testing.assert_close(found.posterior.log_std, expected.posterior.log_std)
    assert found.value == pytest.approx(expected.value, abs=1e-3)


def test_a_loss_that_is_not_finite_raises_also_in_a_replay(binary):
    problem = binary.problem
    gradient_at = _BatchGradients(problem.inside_transforms(), PAYS)
    batch = problem.first_batch()
    found = [gradient_at(problem.theta, batch) for _ in range(3)]
    for gradient, total, count in found:
        torch.testing.assert_close(gradient, found[0][0])
        assert (total, count) == (pytest.approx(found[0][1]), 110)
    with pytest.raises(NonFiniteError, match="output of the model is NaN"):
        gradient_at(problem.theta * torch.inf, batch)
