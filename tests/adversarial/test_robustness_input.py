"""What robustness asks of models, data, settings and attacks, and what it leaves behind."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from tests import reference
from tests.adversarial.test_robustness import classifier, linear
from tests.smoothness.networks import NETWORKS, mlp

pytestmark = pytest.mark.usefixtures("unchecked")
FAST = {"steps": 3, "restarts": 2}


def of(model, x, y, eps=0.1, loss="cross_entropy", **options):
    return lg.robustness(lg.Problem(model, loss, [(x, y)]), eps, **FAST, **options)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x).tanh() if x.sum() > -1e9 else x


def test_without_a_certificate_all_else_is_measured():
    x, y = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    found = of(Branching(), x, y)
    assert found.certified_radii is None
    assert found.certified_accuracy is None
    assert found.logit_change.upper is None
    assert found.logit_change.first_order.shape == found.attacked_margins.shape == (1, 4)
    (note,) = found.notes
    assert note.startswith("nothing is certified: the model cannot be traced by torch.fx")
    with pytest.raises(TypeError, match=r"cannot be traced by torch\.fx"):
        lg.certified_radius(lg.Problem(Branching(), "cross_entropy", [(x, y)]))
    assert of(Branching(), x, y, certify=False).notes == ()


def test_probabilities_and_batches_and_precision():
    model, x = mlp(4, 6, 3), torch.randn(7, 4)
    y = torch.randint(3, (7,))
    plain = of(model, x, y)
    for targets, loss in (
        (nn.functional.one_hot(y, 3).float(), "squared_error"),
        (y, "cross_entropy"),
    ):
        batches = [(x[:2], targets[:2]), (x[2:], targets[2:])]
        found = lg.robustness(lg.Problem(model, loss, batches), 0.1, **FAST)
        assert torch.equal(found.attacked_margins, plain.attacked_margins)
        assert torch.equal(found.certified_radii, plain.certified_radii)
    assert plain.attacked_margins.dtype == torch.float64


def test_pieces_find_as_much(monkeypatch):
    from lossgeom.adversarial import _worst_case

    model, x = linear(D=3, N=6)
    whole = lg.robustness(classifier(model, x), 0.1, restarts=4)
    monkeypatch.setattr(_worst_case, "PIECE_BYTES", 1)
    parts = lg.robustness(classifier(model, x), 0.1, restarts=4)
    torch.testing.assert_close(parts.attacked_margins, whole.attacked_margins, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        parts.logit_change.lower, whole.logit_change.lower, rtol=1e-6, atol=0
    )


def test_same_seed_same_bits_and_no_trace():
    model, x = NETWORKS["pooled"]
    p = classifier(model, x)
    before = reference.fingerprint(model)

    def noisy(attacked, inputs, targets, eps):
        attacked.train()
        return inputs + eps / 100 * torch.randn_like(inputs)

    first, second, other = (
        lg.robustness(p, [0.1, 3.0], **FAST, norm="linf", seed=seed, attack=noisy)
        for seed in (1, 1, 2)
    )
    lg.certified_radius(p)
    assert reference.fingerprint(model) == before
    assert torch.equal(first.attacked_margins, second.attacked_margins)
    assert torch.equal(first.logit_change.lower, second.logit_change.lower)
    assert not torch.equal(first.attacked_margins, other.attacked_margins)


def test_bounds_may_differ_between_inputs():
    model, x = linear(D=2, N=4)
    low, high = x.amin(0), x.amax(0)
    p = classifier(model, x)
    inside = lg.robustness(p, 1.0, bounds=(low, high), **FAST)
    free = lg.robustness(p, 1.0, **FAST)
    assert (inside.logit_change.lower < free.logit_change.lower).all()
    corners = torch.cartesian_prod(*torch.stack([low, high]).T.unbind())
    reach = (model(corners)[None] - model(x)[:, None]).norm(dim=2).amax(1)
    wide = lg.robustness(p, 100.0, bounds=(low, high), steps=20, restarts=8)
    torch.testing.assert_close(wide.logit_change.lower[0], reach.detach())


@pytest.mark.quick
def test_an_attack_of_the_users_own_counts():
    model, x = linear(D=2, C=2)
    W, y = model.weight.detach(), model(x).argmax(1)

    def best(attacked, inputs, targets, eps):
        assert torch.equal(attacked(inputs), model(inputs))
        assert torch.equal(targets, y)
        down = W[1 - targets] - W[targets]
        return (inputs + eps * down / down.norm(dim=1, keepdim=True)).float()

    p = classifier(model, x)
    alone = lg.robustness(p, 0.5, steps=0, restarts=1)
    helped = lg.robustness(p, 0.5, steps=0, restarts=1, attack=best)
    assert (helped.attacked_margins < alone.attacked_margins).all()
    expected = helped.margins - 0.5 * (W[0] - W[1]).norm()
    torch.testing.assert_close(helped.attacked_margins[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("attack", "error", "message"),
    [
        (lambda m, x, y, e: x + 2 * e, ValueError, "inputs within eps=0.1 of the examples in linf"),
        (lambda m, x, y, e: x - 0.09, ValueError, "inputs within bounds=, got one that is outside"),
        (lambda m, x, y, e: x[:1], ValueError, r"return inputs of shape \(2, 2\), got \(1, 2\)"),
        (lambda m, x, y, e: x * torch.nan, ValueError, "finite inputs, got NaN"),
        (lambda m, x, y, e: None, TypeError, "a tensor of attacked inputs, got a NoneType"),
    ],
)
def test_attacks_that_break_the_rules(attack, error, message):
    x, y = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1])
    with pytest.raises(error, match=message):
        of(nn.Linear(2, 2), x, y, norm="linf", bounds=(0.0, 1.0), attack=attack)


@pytest.mark.parametrize(
    ("eps", "options", "message"),
    [
        (-0.1, {}, r"attack sizes 0 <= eps < infinity, got \[-0\.1\]"),
        ([0.1, float("inf")], {}, r"attack sizes 0 <= eps < infinity, got \[0\.1, inf\]"),
        (float("nan"), {}, "attack sizes 0 <= eps < infinity"),
        ([], {}, r"attack sizes 0 <= eps < infinity, got \[\]"),
        (0.1, {"norm": "l1"}, "expected norm to be one of l2 or linf, got 'l1'"),
        (0.1, {"steps": -1}, "expected steps of at least 0, got -1"),
        (0.1, {"restarts": 0}, "expected restarts of at least 1, got 0"),
        (0.1, {"seed": -1}, "expected seed of at least 0, got -1"),
        (
            0.1,
            {"bounds": (2.0, 3.0)},
            r"bounds=\(low, high\) that all inputs are within, got inputs",
        ),
    ],
)
def test_settings(eps, options, message):
    model, x = linear(D=2)
    for measure in (lg.robustness, lg.logit_change):
        with pytest.raises(ValueError, match=message):
            measure(classifier(model, x), eps, **options)


def test_settings_of_the_radius():
    model, x = linear(D=2)
    with pytest.raises(ValueError, match="expected a tolerance 0 < tol < 1, got 0"):
        lg.certified_radius(classifier(model, x), tol=0)
    with pytest.raises(ValueError, match="expected norm to be one of"):
        lg.certified_radius(classifier(model, x), norm="l1")
    with pytest.raises(TypeError, match="expected a Problem"):
        lg.robustness(model, 0.1)


@pytest.mark.parametrize(
    ("model", "y", "loss", "message"),
    [
        (nn.Linear(2, 1), torch.zeros(3, 1), "squared_error", r"\(N, C\) with C > 1, got \(3, 1\)"),
        (nn.Unflatten(1, (2, 1)), torch.zeros(3, 1).long(), "cross_entropy", r"got \(3, 2, 1\)"),
        (nn.Identity(), torch.zeros(3, 2), "squared_error", "negative or do not sum to 1"),
        (nn.Identity(), torch.zeros(3, 1), "squared_error", r"got \(3, 1\) in torch.float32"),
        (
            nn.Identity(),
            torch.tensor([0, -100, 1]),
            "cross_entropy",
            "from 0 to 1, got some from -100",
        ),
    ],
)
def test_outputs_and_targets_that_are_not_of_a_classifier(model, y, loss, message):
    p = lg.Problem(nn.Sequential(nn.Linear(2, 2), model), loss, [(torch.ones(3, 2), y)])
    for measure in (lambda: lg.robustness(p, 0.1), lambda: lg.certified_radius(p)):
        with pytest.raises(ValueError, match=message):
            measure()
    assert lg.logit_change(p, 0.1, **FAST).lower.shape == (1, 3)


def test_inputs_that_cannot_be_moved_in():
    tokens = nn.Sequential(nn.Embedding(5, 2), nn.Flatten())
    with pytest.raises(ValueError, match=r"floating-point inputs to move in, got torch\.int64"):
        of(tokens, torch.tensor([[1], [2]]), torch.tensor([0, 1]))


class Cliff(nn.Module):
    """Infinite beyond a line near the examples."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 2)

    def forward(self, x):
        return self.linear(x) + torch.where(x > 1, torch.inf, 0.0)


def test_outputs_that_are_not_finite():
    y = torch.tensor([0])
    with pytest.raises(lg.NonFiniteError, match="within eps=2 of an example"):
        of(Cliff(), torch.zeros(1, 1), y, eps=2.0)
    with pytest.raises(lg.NonFiniteError, match="NaN or infinite at these parameters"):
        of(Cliff(), torch.full((1, 1), 2.0), y)
