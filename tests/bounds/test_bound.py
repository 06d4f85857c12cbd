"""A bound, and what a posterior costs."""

import math

import pytest
import torch

from lossgeom.bounds import Assumption, Bound, Epoch, kl_inverse
from lossgeom.bounds._complexity import Complexity, Divergence
from lossgeom.bounds._telling import told
from tests.bounds import plain

pytestmark = pytest.mark.quick
SETTINGS = {"delta": 0.025, "b": 0.1, "p": 100.0}


@pytest.mark.parametrize(("value", "vacuous"), [(0.99, False), (1.0, True), (math.nan, True)])
def test_a_bound_that_says_nothing_is_vacuous(value, vacuous):
    bound = Bound(value, "the error", 0.9, {"N": 3}, (), "somebody")
    assert bound.vacuous == vacuous
    if math.isnan(value):
        assert str(bound) == "no bound on the error"
    else:
        assert ("vacuous, it is at most 1 in any case" in str(bound)) == vacuous
        assert float(bound) == value


def test_assumptions_are_told_by_how_they_are_known():
    assumptions = [Assumption(f"number {i}", s) for i, s in enumerate(["unverifiable", "checked"])]
    told = str(Bound(0.5, "the error", 0.9, {"N": 3}, tuple(assumptions), "somebody"))
    assert told.splitlines()[2:4] == ["  checked: number 1", "  unverifiable: number 0"]
    assert repr(Bound(0.5, "it", 0.9, {}, (), "")) == "Bound(value=0.5, confidence=0.9, trivial=1)"


def test_what_is_told_first_and_what_numbers_are():
    said = {"headline": "training 3%; bound 50%", "meanings": {"N": "examples"}, "notes": ("few",)}
    told = str(Bound(0.5, "the error", 0.9, {"N": 3}, (), "somebody", **said))
    assert told.splitlines() == [
        "training 3%; bound 50%", "the error is at most 0.5, with probability 0.9",
        "  note: few", "  N = 3: examples", "  source: somebody",
    ]  # fmt: skip
    assert str(Bound(math.nan, "it", 0.9, {"N": 3}, (), "", headline="no bound")) == "no bound"


@pytest.mark.parametrize(("value", "vacuous"), [(0.5, False), (0.0, True), (math.nan, True)])
def test_a_lower_bound_says_something_above_what_is_trivial(value, vacuous):
    bound = Bound(value, "the norm", 0.9, {}, (), "somebody", trivial=0.0, side="lower")
    assert bound.vacuous == vacuous
    if not vacuous:
        assert str(bound).startswith("the norm is at least 0.5, with probability 0.9\n")


def test_what_a_bound_is_made_of_and_how_far_it_can_move():
    terms = {"fit": 0.1, "variation": 0.4}
    bound = Bound(0.5, "it", 0.9, {"N": 3}, (), "somebody", certified=False, least=0.2, terms=terms)
    assert str(bound).splitlines()[1:-2] == [
        "  an estimate, because not every number in it is certified",
        "  of which fit: 0.1",
        "  of which variation: 0.4",
        "  sharper certificates of the same numbers may move it to 0.2",
    ]
    assert "sharper" not in str(Bound(0.5, "it", 0.9, {}, (), "somebody", least=0.49999999))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ((0.5, [0.9, 0.02], [], None), "the prior gets 2% of the examples wrong, and the trained"),
        ((0.5, [0.1, 0.9], [], 0.1), "lambda is the largest that b = 0.1 allows"),
        ((0.5, [], [], None), "the weights of the model have no part in this"),
        ((1.0, [0.1, 0.9], [], None), "to lower it, try more epochs"),
        ((0.5, [0.1, 0.9], [Epoch(1, *4 * [math.nan])], None), "the search diverged in epoch 1"),
        ((0.5, [0.1, 0.9], [Epoch(1, *4 * [1.0])], None), ""),
        ((math.nan, [0.9, 0.1], [], 0.1), ""),
    ],
)
def test_notes(facts, expected):
    value, *others = facts
    said = told(value, 0.0, *others)["notes"]
    assert len(said) == bool(expected)
    assert "".join(said).startswith(expected)


def test_known_values():
    apart = Divergence.of(torch.tensor([0.1, 0, 0, 0]), torch.full((4,), -2.0))
    complexity = Complexity(1000, **SETTINGS)
    kl = apart.kl(-3.0)
    assert kl == pytest.approx(0.836187, abs=5e-7)
    assert complexity.root(kl, -3.0) == pytest.approx(0.101095, abs=5e-7)
    upper = kl_inverse(0.05, math.log(2 / 0.01) / 2000)
    assert kl_inverse(upper, complexity(kl, -3.0)) == pytest.approx(0.129936, abs=5e-7)


def test_the_divergence_is_that_of_torch():
    torch.manual_seed(0)
    offset, log_std = torch.randn(2, 7)
    U, _ = torch.linalg.qr(torch.randn(7, 7))
    covariance = U @ torch.diag((2 * log_std).exp()) @ U.T
    expected = plain.divergence(offset, covariance, torch.zeros(7), 0.03)
    assert Divergence.of(offset, log_std).kl(math.log(0.03)) == pytest.approx(expected, rel=1e-6)
    expected = plain.complexity(expected, 0.03, 50, **SETTINGS)
    assert Complexity(50, **SETTINGS)(
        Divergence.of(offset, log_std).kl(math.log(0.03)), math.log(0.03)
    ) == pytest.approx(expected, rel=1e-6)


def test_gradients_are_those_of_autograd():
    torch.manual_seed(0)
    offset, log_std = torch.randn(2, 7, dtype=torch.float64).requires_grad_()
    log_prior_std = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    variance = (2 * log_prior_std).exp()
    squares = (2 * log_std).exp().sum() + offset.square().sum()
    kl = (squares / variance - 7 + 7 * variance.log()) / 2 - log_std.sum()
    union = 2 * (100 * (math.log(0.1) - variance.log())).log()
    root = ((kl + union + math.log(math.pi**2 * 50 / 0.15)) / 98).sqrt()
    expected = torch.autograd.grad(root, [offset, log_std, log_prior_std])
    apart = Divergence.of(offset.detach(), log_std.detach())
    precision, less, in_prior = Complexity(50, **SETTINGS).gradients(apart, -4.0)
    torch.testing.assert_close(precision * offset, expected[0])
    torch.testing.assert_close(precision * (2 * log_std).exp() - less, expected[1])
    assert in_prior == pytest.approx(expected[2].item(), rel=1e-9)


def test_variances_of_the_grid():
    complexity = Complexity(50, delta=0.025, b=0.1, p=10.0)
    ln = math.log(0.1)
    assert complexity.neighbours(ln - 0.234) == pytest.approx([ln - 0.2, ln - 0.3])
    assert complexity.neighbours(ln - 0.01) == pytest.approx([ln - 0.1, ln - 0.1])
    assert complexity.largest == pytest.approx(ln - 0.1)
    assert complexity(0.0, complexity.largest) == pytest.approx(
        math.log(math.pi**2 * 50 / 0.15) / 49
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": 1}, "expected examples of at least 2, got 1"),
        ({"delta": 1.0}, "expected delta > 0 and < 1, got 1.0"),
        ({"b": 0.0}, "expected b > 0, got 0.0"),
        ({"p": -1.0}, "expected p > 0, got -1.0"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        Complexity(**{"examples": 9, **SETTINGS, **changes})
