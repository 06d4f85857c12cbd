"""Both forms of batch sharpness, beside plain loops."""

import itertools
import math

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.problems import CASES, mlp


def linear(n=8, seed=0):
    """A linear model with a hand-written gradient and Hessian for every set of examples."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n, d, generator=generator).double() for d in (3, 1))
    model = nn.Linear(3, 1, bias=False).double()
    w = torch.tensor([0.5, -1.0, 2.0]).double()
    model.weight.data = w[None].clone()
    return model, x, y, w


def by_hand(x, y, w, pushed=0.0):
    """The ratio of one batch."""
    g = x.T @ (x @ w - y[:, 0]) / len(x)
    s = g + pushed
    return float((x @ s).square().mean() / (s @ g))


@pytest.mark.quick
@pytest.mark.parametrize("pushed", [None, torch.tensor([0.3, 0.1, -0.2]).double()])
def test_over_the_own_batches(pushed):
    model, x, y, w = linear()
    data = [(x[:3], y[:3]), (x[3:5], y[3:5]), (x[5:], y[5:])]
    found = lg.batch_sharpness(lg.Problem(model, "squared_error", data), pushed=pushed)
    shift = 0.0 if pushed is None else pushed
    each = torch.tensor([by_hand(*batch, w, shift) for batch in data])
    assert found.value == pytest.approx(float(each.mean()))
    assert found.stderr == pytest.approx(float(each.std()) / math.sqrt(3))
    assert (found.matvecs, found.converged) == (3, True)


@pytest.mark.quick
def test_it_is_the_mean_of_ratios_and_not_the_ratio_of_means():
    data = [
        (torch.ones(1, 1), torch.zeros(1, 1)),
        (torch.full((1, 1), 3.0), torch.zeros(1, 1)),
    ]
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    found = lg.batch_sharpness(lg.Problem(model, "squared_error", data))
    assert found.value == pytest.approx((1 + 9) / 2)
    assert found.value != pytest.approx((1 * 1 + 9 * 81) / (1 + 81), rel=0.1)


def test_drawn_batches_have_the_mean_over_all_subsets():
    """All 56 subsets of three, beside 120 that are drawn; a wrong size is far away."""
    model, x, y, w = linear()
    problem = lg.Problem(model, "squared_error", [(x[:5], y[:5]), (x[5:], y[5:])])
    found = lg.batch_sharpness(problem, batch_size=3, batches=120)
    for size, agrees in ((3, True), (2, False)):
        subsets = itertools.combinations(range(8), size)
        exact = [by_hand(x[list(s)], y[list(s)], w) for s in subsets]
        off = abs(found.value - sum(exact) / len(exact))
        assert (off < 4 * found.stderr) == agrees


def test_of_all_examples_it_is_the_directional_sharpness():
    problem = CASES[0].problem()
    found = lg.batch_sharpness(problem, batch_size=9)
    assert found.value == pytest.approx(lg.directional_sharpness(problem).value)
    assert (found.stderr, found.matvecs) == (0, 1)
    whole = CASES[0].problem([(CASES[0].inputs, CASES[0].targets)])
    assert lg.batch_sharpness(whole).stderr == 0


def test_a_target_ends_it_early():
    model, x, y, _ = linear(64)
    problem = lg.Problem(model, "squared_error", [(x, y)])
    loose = lg.batch_sharpness(problem, batch_size=8, target=1.0)
    assert loose.converged
    assert 8 <= loose.matvecs < 64
    assert loose.stderr <= 1.0
    tight = lg.batch_sharpness(problem, batch_size=8, target=1e-6)
    assert not tight.converged
    assert tight.matvecs == 64


def test_the_seed_decides_and_one_batch_tells_no_error():
    model, x, y, _ = linear()
    problem = lg.Problem(model, "squared_error", [(x, y)])
    draw = [lg.batch_sharpness(problem, batch_size=2, batches=8, seed=seed) for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    assert lg.batch_sharpness(problem, batch_size=2, batches=1).stderr is None


def test_batch_norm_in_train_mode_sees_each_batch_alone():
    torch.manual_seed(0)
    model = mlp(4, 5, 3, norm=True).double()
    x, y = torch.randn(12, 4).double(), torch.randint(3, (12,))
    problem = lg.Problem(model, "cross_entropy", [(x[:6], y[:6]), (x[6:], y[6:])], mode="train")
    parts = [
        lg.directional_sharpness(
            lg.Problem(model, "cross_entropy", [(x[i : i + 6], y[i : i + 6])], mode="train")
        ).value
        for i in (0, 6)
    ]
    assert lg.batch_sharpness(problem).value == pytest.approx(sum(parts) / 2)


def test_errors():
    model, x, y, w = linear()
    problem = lg.Problem(model, "squared_error", [(x, y)])
    for size in (0, 9):
        with pytest.raises(ValueError, match="expected"):
            lg.batch_sharpness(problem, batch_size=size)
    for settings in ({"batches": 0}, {"target": 0.0}, {"seed": -1}):
        with pytest.raises(ValueError, match="expected"):
            lg.batch_sharpness(problem, **settings)
    with pytest.raises(ValueError, match="expected an update of shape"):
        lg.batch_sharpness(problem, pushed=w[:2])
    solved = lg.Problem(model, "squared_error", [(x, (x @ w)[:, None])])
    with pytest.raises(lg.UndefinedError, match="the gradient of a batch along its step is zero"):
        lg.batch_sharpness(solved.at(w), batch_size=1)
    ragged = [(torch.ones(2, 3), torch.zeros(2)), (torch.ones(2, 4), torch.zeros(2))]
    means = lg.Problem(
        nn.Linear(1, 1),
        lambda f, b: ((f - b[1][:, None]).square().sum(), len(f)),
        ragged,
        forward=lambda m, b: m(b[0].mean(1, keepdim=True)),
    )
    with pytest.raises(ValueError, match="expected batches whose examples can be put into one"):
        lg.batch_sharpness(means, batch_size=2)
