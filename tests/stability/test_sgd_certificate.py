"""Whether SGD is certified to be stable, and how that is told."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.linalg import top_eigenpairs
from lossgeom.stability.sgd import (
    _residual,
    example_curvatures,
    mean_square_threshold,
    noise_share,
    stationary_state,
)
from lossgeom.stability.sgd._bounded import largest_curvature
from lossgeom.stability.sgd._outputs import example_outputs
from lossgeom.stability.sgd._residual import residual_along, residual_noise
from lossgeom.stability.sgd._setting import Setting

POINTS = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [1.0, -1.0]], dtype=torch.float64)


def linear(targets=None):
    """Four points, fitted by weights of zero unless their targets are others."""
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    y = torch.zeros(4, 1).double() if targets is None else targets
    return lg.Problem(model, "squared_error", [(POINTS[:3], y[:3]), (POINTS[3:], y[3:])])


def fitted(n=12, outputs=1, residual=0.0, width=6):
    """A net whose targets are its outputs, but for a residual of changing sign."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, outputs)).double()
    x = torch.randn(n, 8, dtype=torch.float64)
    signs = (-1.0) ** torch.arange(n)[:, None]
    y = model(x).detach() + residual * signs
    return lg.Problem(model, "squared_error", [(x, y)])


@pytest.mark.quick
@pytest.mark.parametrize(
    ("lr", "batch_size", "sampling", "state", "threshold", "smallest"),
    [
        (0.64, 1, "without replacement", "stable", 0.644010, 1),
        (0.65, 1, "without replacement", "unstable", 0.644010, 2),
        (1.19, 3, "without replacement", "stable", 1.197790, 3),
        (1.34, 4, "without replacement", "unstable", 1.333333, None),
        (0.9, 2, "with replacement", "unstable", 0.873636, 3),
        (0.9, 2, "reshuffling", "stable", 1.158968, None),
        (1.2, 2, "reshuffling", "unstable", 1.158968, None),
    ],
)
def test_four_points(lr, batch_size, sampling, state, threshold, smallest):
    found = lg.certify_sgd(linear(), lr, batch_size, sampling=sampling)
    assert (found.state, found.minimum, found.smallest_batch) == (state, "interpolating", smallest)
    assert found.threshold == pytest.approx(threshold, abs=6e-7)
    assert found.ratio == pytest.approx(lr / threshold, rel=2e-6)
    assert found.residual == 0


def test_momentum():
    for lr, batch_size, state in ((0.46, 1, "stable"), (0.48, 1, "unstable"), (0.96, 2, "stable")):
        found = lg.certify_sgd(linear(), lr, batch_size, momentum=0.5)
        assert found.state == state
        assert found.smallest_batch == (1 if lr < 0.468199 else 2)
        assert found.moments == {}
        assert min(found.bounds.values()) > found.threshold


def test_printed():
    told = str(lg.certify_sgd(linear(), 0.7, 1))
    assert told.splitlines()[0] == (
        "SGD at this interpolating minimum is unstable in mean square (learning rate 0.7, batches "
        "of 1 of 4 examples without replacement)"
    )
    for line in [
        "  threshold of the learning rate: 0.64401, of which this is 1.087 times",
        "  with this learning rate, the linearised steps are stable from batches of 2 on",
    ]:
        assert line in told.splitlines()
    assert not re.search("noise kernel|moment|condition on|at random", told)
    assert "note: DataLoader(shuffle=True) draws reshuffled epochs" in told
    epochs = str(lg.certify_sgd(linear(), 0.7, 3, 0.5, "reshuffling"))
    assert "(learning rate 0.7, momentum 0.5, batches of 3 of 4 examples in reshuffled" in epochs
    assert "note: the last batch of an epoch has 1 of its 3 examples" in epochs
    shown = repr(lg.certify_sgd(linear(), 0.7, 1))
    assert shown.startswith("SGDCertificate(state='unstable', lr=0.7, batch_size=1, momentum=0, ")
    assert len(shown) < 420


def test_a_regular_minimum():
    """Of a linear model, which has no curvature beside its Gauss-Newton matrix."""
    y = torch.tensor([[1.0], [2.0], [0.5], [-1.0]]).double()
    w = torch.linalg.lstsq(POINTS, y).solution
    problem = linear(y)
    at = problem.at(w[:, 0])
    found = lg.certify_sgd(at, 0.6, 1)
    assert (found.state, found.minimum) == ("stable", "regular")
    assert found.gradient_norm < 1e-12 < found.example_gradient_norm
    assert found.threshold == pytest.approx(0.644010, abs=6e-7)
    state = stationary_state(example_curvatures(at), 0.6, 1)
    assert found.excess_loss == pytest.approx(state.excess_loss, rel=1e-6)
    assert f"  the loss settles {state.excess_loss:.3g} above its minimum, in the mean" in str(
        found
    )
    assert lg.certify_sgd(at, 0.1, 1, 0.5).excess_loss is None
    away = lg.certify_sgd(problem, 0.6, 1)
    assert (away.state, away.minimum) == ("between", "no minimum")
    assert "so this is no minimum, which the theory is about" in away.reasons[0]
    assert away.threshold == pytest.approx(0.644010, abs=6e-7)
    assert "SGD at this point is neither certified to be stable nor to be unstable" in str(away)


def test_a_small_learning_rate_makes_no_minimum():
    """Its steps are small anywhere."""
    y = torch.tensor([[1.0], [2.0], [0.5], [-1.0]]).double()
    problem = linear(y)
    at = problem.at(torch.ones(2).double())
    for largest in (2000, 1):
        found = lg.certify_sgd(at, 1e-6, 1, largest=largest)
        assert (found.state, found.minimum) == ("between", "no minimum")


def test_what_the_gauss_newton_matrix_leaves_out():
    problem = fitted(n=5, residual=0.3)
    curvatures = example_curvatures(problem)
    v = curvatures.top
    rest = residual_along(problem, v)
    (x, y), model = problem.batches[0], problem.model
    names = [name for name, _ in model.named_parameters()]

    def loss(t, i):
        pieces = dict(zip(names, problem.network.split(problem.theta + t * v), strict=True))
        output = torch.func.functional_call(model, pieces, (x[i : i + 1],))
        return 0.5 * (output - y[i]).square().sum()

    zero = torch.zeros(()).double()
    whole = [torch.func.hessian(loss)(zero, i).item() for i in range(len(x))]
    assert (rest + curvatures.along_top).tolist() == pytest.approx(whole, rel=1e-9)
    share = (rest.norm() / curvatures.along_top.norm()).item()
    lr = mean_square_threshold(curvatures, 2)
    found = lg.certify_sgd(problem, 0.999 * lr, 2)
    assert found.residual == pytest.approx(share, rel=1e-9)
    assert found.state == "between"


class Two(nn.Module):
    """Two parameters that do not fit all of their examples, with a curved model."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=torch.float64))

    def forward(self, x):
        return self.w[0] * torch.tanh(self.w[1] * x)


def test_a_verdict_needs_a_margin_for_what_is_left_out():
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)[:, None]
    y = torch.tanh(x) + 0.03 * torch.tensor([1, -1, -1, 0, 1, 1, -1]).double()[:, None]
    problem = lg.Problem(Two([1.0, 1.0]), "squared_error", [(x, y)])
    for _ in range(10):
        step = torch.linalg.solve(lg.Hessian(problem).dense(), problem.gradient())
        problem = problem.at(problem.theta - step)
    assert problem.gradient().norm() < 1e-12
    found = lg.certify_sgd(problem, 0.1, 2)
    assert (found.state, found.minimum) == ("stable", "regular")
    assert 1e-3 < found.residual < 0.05
    assert found.lowest == pytest.approx(torch.linalg.eigvalsh(lg.Hessian(problem).dense())[0])
    for far, state in ((1, "between"), (60, "stable"), (-1, "between"), (-4, "unstable")):
        lr = found.threshold * (1 - far * found.residual)
        near = lg.certify_sgd(problem, lr, 2)
        if state == "between" and lr > found.threshold:
            assert near.state in ("between", "unstable")  # along the top eigenvector
        else:
            assert near.state == state
        assert near.state != "between" or "that is within a margin of" in near.reasons[1]


class Beside(nn.Module):
    """a x1 + b c x2 + (b^2 + c^2) x3, whose Gauss-Newton matrix at zero sees a alone."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3).double())

    def forward(self, x):
        a, b, c = self.w
        return x @ torch.stack([a, b * c, b * b + c * c])[:, None]


SIGNS = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]).double()
MIXED = torch.tensor([[1.0], [-1.0], [0.5], [-0.5]]).double()


@pytest.mark.parametrize("many", [1, 4])
@pytest.mark.parametrize("largest", [2000, 1])
def test_curvature_of_single_examples_that_has_no_mean_is_noise(many, largest):
    x = torch.cat([torch.ones(4, 1), MIXED, torch.zeros(4, 1)], 1).double().repeat(many, 1)
    y = SIGNS.repeat(many, 1)
    problem = lg.Problem(Beside(), "squared_error", [(x[:3], y[:3]), (x[3:], y[3:])])
    exact = 2 * (1 + 1 + 0.25 + 0.25) / 8  # of b and c: the mean of r^2 x2^2
    assert exact <= residual_noise(problem) < 8 * exact
    for lr in (1e-3, 0.1, 1.0):
        found = lg.certify_sgd(problem, lr, 1, largest=largest)
        assert (found.state, found.minimum) == ("between", "regular")
        assert "nothing damps it in directions where the loss has next to no" in str(found)
    assert lg.certify_sgd(problem, 0.1, 4 * many, largest=largest).state == "stable"  # no noise


def test_curvature_of_single_examples_that_is_damped():
    """The second moment of b and c grows where (1 - lr h)^2 + .625 lr^2 > 1, with h = .8."""
    x = torch.cat([torch.ones(4, 1), MIXED, -0.4 * SIGNS], 1)
    problem = lg.Problem(Beside(), "squared_error", [(x, SIGNS)])
    growing = 1.6 / (0.8**2 + 0.625)
    for lr, state in ((0.1, "stable"), (0.6, "between"), (1.01 * growing, "between")):
        found = lg.certify_sgd(problem, lr, 1)
        assert (found.state, found.lowest) == (state, pytest.approx(0.8))
        assert found.threshold == pytest.approx(2)  # of the linearised steps, on a alone
    assert "of what damps it where the loss is flattest" in found.reasons[1]


class Saddle(nn.Module):
    """w1 w2 x + b, whose Gauss-Newton matrix at zero sees b alone."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3).double())

    def forward(self, x):
        return self.w[0] * self.w[1] * x + self.w[2]


def test_a_saddle_is_not_certified():
    x = torch.tensor([[1.0], [-1.0]]).double()
    for lr in (0.1, 3.0):
        found = lg.certify_sgd(lg.Problem(Saddle(), "squared_error", [(x, x)]), lr, 1)
        assert (found.state, found.minimum, found.residual) == ("between", "no minimum", 0)
        assert found.reasons[0].startswith(
            "the smallest eigenvalue of the Hessian is -1, below -0.001 of the sharpness 1, so this"
        )
        assert found.lowest == pytest.approx(-1)
        assert "; smallest eigenvalue of the Hessian -1" in str(found)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (1 - x.tanh() ** 2)


class Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 1).double()

    def forward(self, x):
        return Once.apply(self.body(x))


def test_a_model_without_second_derivatives():
    torch.manual_seed(0)
    x, model = torch.randn(5, 8, dtype=torch.float64), Rows()
    problem = lg.Problem(model, "squared_error", [(x, model(x).detach())])
    found = lg.certify_sgd(problem, 0.01, 2)
    assert (found.state, found.residual, found.lowest) == ("between", None, None)
    assert "because the model has no second derivative" in found.reasons[0]
    assert found.threshold > 0.01
    assert "what Gauss-Newton leaves out is not known" in str(found)


@pytest.mark.parametrize(
    ("outputs", "batch_size", "sampling"),
    [(1, 1, "without replacement"), (3, 4, "without replacement"), (1, 5, "with replacement")],
)
def test_bounds_hold_the_threshold(outputs, batch_size, sampling):
    problem = fitted(outputs=outputs)
    whole = lg.certify_sgd(problem, 0.1, batch_size, sampling=sampling)
    assert min(whole.bounds.values()) >= whole.threshold * (1 - 1e-6)
    rough = lg.certify_sgd(problem, 0.1, batch_size, sampling=sampling, largest=5)
    assert rough.lower <= whole.threshold <= rough.upper
    assert rough.threshold is rough.ratio is rough.smallest_batch is None
    for lr, state in (
        (0.9 * rough.lower, "stable"),
        (math.sqrt(rough.lower * rough.upper), "between"),
        (1.1 * rough.upper, "unstable"),
    ):
        found = lg.certify_sgd(problem, lr, batch_size, sampling=sampling, largest=5)
        assert found.state == state
    assert "note: bounds instead of a threshold: 12 examples with" in str(rough)


@pytest.mark.parametrize("loss", ["squared_error", "cross_entropy", nn.MSELoss(), "bce", "own"])
def test_the_largest_curvature_of_an_example_is_bounded(loss):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)), torch.randn(9, 8)
    y = torch.arange(9) % 3 if loss == "cross_entropy" else torch.rand(9, 3).round()
    losses = {"bce": nn.BCEWithLogitsLoss(), "own": lambda f, batch: (f.square().sum(), len(f))}
    problem = lg.Problem(model, losses.get(loss, loss), [(x[:5], y[:5]), (x[5:], y[5:])])
    setting = Setting(problem, 0.1, 2, 0.0, "without replacement", example_outputs(problem))
    exact = example_curvatures(problem).norms.max().item()
    found = largest_curvature(setting)
    assert found >= exact
    assert found == math.inf if loss == "own" else found < 8 * exact


def test_what_is_measured_beside_the_bounds():
    problem = fitted(n=15, outputs=2)
    whole, rough = (lg.certify_sgd(problem, 0.1, 2, largest=k) for k in (2000, 5))
    assert rough.single_batch <= whole.single_batch
    assert rough.noise_kernel == pytest.approx(whole.noise_kernel, rel=0.1)
    assert rough.sharpness == pytest.approx(whole.sharpness, rel=1e-3)
    assert "a single batch" not in str(rough)
    beyond = lg.certify_sgd(problem, 1.1 * rough.single_batch, 2, largest=5)
    assert f"beyond a learning rate of {beyond.single_batch:.4g} a single batch" in str(beyond)
    assert "the threshold is at most" in str(rough)
    assert lg.certify_sgd(problem, 50.0, 2, largest=5).noise_kernel == math.inf


def test_bounds_with_momentum_and_of_epochs():
    problem = fitted()
    heavy = lg.certify_sgd(problem, 0.1, 2, momentum=0.9, largest=5)
    whole = lg.certify_sgd(problem, 0.1, 2, momentum=0.9)
    assert 0 < heavy.lower <= whole.threshold <= heavy.upper < 1.9 * 2 / heavy.sharpness
    heavy = lg.certify_sgd(problem, 0.9 * heavy.lower, 2, momentum=0.9, largest=5)
    assert heavy.state == "stable"
    heavy = lg.certify_sgd(problem, 0.1, 2, 0.9, "reshuffling", largest=5)
    assert (heavy.state, heavy.lower, heavy.upper) == ("between", 0, math.inf)
    epochs = lg.certify_sgd(problem, 0.05, 2, sampling="reshuffling")
    assert (epochs.state, epochs.upper) == ("stable", math.inf)
    assert epochs.lower < mean_square_threshold(example_curvatures(problem), 2)
    assert any("too many orders of an epoch" in note for note in epochs.notes)
    assert f"the learning rate is below {epochs.lower:.4g}" in str(epochs)
    beyond = lg.certify_sgd(problem, 5.0, 2, sampling="reshuffling")
    assert beyond.state == "between"
    rough = lg.certify_sgd(problem, 0.05, 2, sampling="reshuffling", largest=5)
    assert rough.lower <= epochs.lower


def test_the_gradients_of_examples_are_about_right_where_they_are_sampled():
    problem = fitted(n=20, residual=0.1)
    whole, rough = (lg.certify_sgd(problem, 0.1, 2, largest=k) for k in (2000, 5))
    assert rough.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-9)
    assert rough.example_gradient_norm == pytest.approx(whole.example_gradient_norm, rel=0.25)
    assert rough.residual == pytest.approx(whole.residual, rel=0.1)


def test_no_curvature():
    model = nn.Linear(2, 1).double()
    problem = lg.Problem(model, nn.L1Loss(), [(POINTS, torch.ones(4, 1).double())])
    found = lg.certify_sgd(problem, 0.1, 2)
    assert found.state == "between"
    assert found.reasons[0].startswith("no example has any curvature here")
    assert found.minimum == "no minimum"
    assert not any("at random" in note for note in found.notes)  # it is no minimum to leave


def test_what_nothing_holds_at_a_regular_minimum():
    """Gradients of examples beside the directions with curvature, and none where all are fitted."""
    for residual, walks in ((0.0, False), (1.0, True)):
        model = nn.Linear(1, 2, bias=False).double()
        nn.init.zeros_(model.weight)
        x = torch.ones(4, 1).double()
        y = residual * torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
        loss = lambda f, batch: (  # noqa: E731
            0.5 * f[:, 0].square().sum() + f[:, 1] @ batch[1],
            len(f),
        )
        found = lg.certify_sgd(lg.Problem(model, loss, [(x, y)]), 0.1, 2)
        assert found.minimum == ("regular" if walks else "interpolating")
        assert any("drifts at random" in note for note in found.notes) == walks


def test_leaves_no_trace():
    problem = fitted()
    before = {name: value.clone() for name, value in problem.model.state_dict().items()}
    state = torch.get_rng_state()
    lg.certify_sgd(problem, 0.1, 2)
    lg.certify_sgd(problem, 0.1, 2, largest=5)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[n], v) for n, v in problem.model.state_dict().items())
    assert all(p.grad is None for p in problem.model.parameters())


def test_notes_of_the_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    data = [(POINTS, model.eval()(POINTS).detach())]
    found = lg.certify_sgd(lg.Problem(model.train(), "squared_error", data, seed=1), 0.1, 3)
    assert any("mode" in note for note in found.notes)
    assert any("fixed by seed 1" in note for note in found.notes)
    assert any("here of 1, weigh more" in note for note in found.notes)


def test_errors():
    problem = linear()
    with pytest.raises(ValueError, match="expected lr > 0, got 0"):
        lg.certify_sgd(problem, 0.0, 1)
    with pytest.raises(ValueError, match="expected lr > 0, got nan"):
        lg.certify_sgd(problem, math.nan, 1)
    with pytest.raises(ValueError, match=r"expected momentum >= 0 and < 1, got -0\.1"):
        lg.certify_sgd(problem, 0.1, 1, -0.1)
    with pytest.raises(ValueError, match="expected a batch_size from 1 to 4, the number of examp"):
        lg.certify_sgd(problem, 0.1, 5)
    with pytest.raises(ValueError, match="expected sampling to be reshuffling, with"):
        lg.certify_sgd(problem, 0.1, 1, sampling="epochs")
    assert noise_share(4, 4) == 0


def test_bad_types(unchecked):
    with pytest.raises(TypeError, match=r"expected a Problem\(model, loss, batches\), got Linear"):
        lg.certify_sgd(nn.Linear(1, 1), 0.1, 1)


def test_a_smallest_eigenvalue_of_zero_is_known_beside_the_sharpness(monkeypatch):
    """Where a search for it ends with a small positive number that it cannot tell from zero."""

    def hardly_above(A, **given):
        found = top_eigenpairs(A, **given)
        if given["tol"] != _residual.TOL:
            return found
        return replace(found, values=found.values.abs() + 1e-17, converged=found.converged & False)

    monkeypatch.setattr(_residual, "top_eigenpairs", hardly_above)
    x = torch.eye(5, 8, dtype=torch.float64)
    model = nn.Linear(8, 1, bias=False).double()
    problem = lg.Problem(model, "squared_error", [(x, model(x).detach())])
    found = lg.certify_sgd(problem, 0.1, 2)
    assert found.state == "stable"
    assert -1e-6 < found.lowest <= 1e-12
