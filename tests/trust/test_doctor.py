"""Derivatives beside finite differences."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lossgeom as lg
from lossgeom.trust import trial
from tests.problems import CASES


def problem(*layers: nn.Module, **options):
    torch.manual_seed(0)
    x, y = torch.randn(8, 3), torch.randint(2, (8,))
    model = nn.Sequential(nn.Linear(3, 16), *layers, nn.Linear(16, 2))
    return lg.Problem(model, "cross_entropy", [(x, y)], **options)


class Sine(torch.autograd.Function):
    """Its backward hides the input from autograd, so the second derivative is wrong."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach()
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.x.cos()


class Hidden(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Sine.apply(x)


class StraightThrough(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + (x.round() - x).detach()


class OwnNorm(nn.Module):
    """Calls the wrong function itself."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)  # a draw whose errors are far from the tolerance
            self.inner = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(self.inner(x), (16,))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_first_and_second_derivatives_of_every_case_are_right(case, unchecked):
    diagnosis = lg.doctor(case.problem())
    assert diagnosis.healthy, str(diagnosis)
    assert all(finding.error < 1e-5 for finding in diagnosis.model.values())
    lg.check_derivatives(case.problem())


@pytest.mark.quick
def test_a_clean_model():
    diagnosis = lg.doctor(problem(nn.Tanh(), nn.GroupNorm(4, 16), nn.ReLU()), third=True)
    assert diagnosis.healthy
    assert diagnosis.trusted == ("first", "second", "third", "nested forward")
    assert {module.kind for module in diagnosis.modules} == {"Linear", "Tanh", "GroupNorm", "ReLU"}
    assert "not to be trusted" not in str(diagnosis)


@pytest.mark.parametrize(
    ("layer", "kind", "mode"),
    [
        (nn.LayerNorm(16), "LayerNorm", "eval"),
        (nn.BatchNorm1d(16), "BatchNorm1d", "train"),
        (OwnNorm(), "OwnNorm", "eval"),
    ],
)
def test_layers_whose_third_derivative_is_wrong(layer, kind, mode, unchecked):
    wrong = problem(layer, nn.Tanh(), mode=mode)
    diagnosis = lg.doctor(wrong, third=True)
    assert diagnosis.trusted == ("first", "second")
    for order in ("third", "nested forward"):
        assert [module.kind for module in diagnosis.blamed(order)] == [kind]
        assert diagnosis.model[order].status == "wrong"
    # of nested forward mode one number is compared, which may be near by accident
    assert diagnosis.blamed("third")[0].findings["third"].error > 0.05
    text = str(diagnosis)
    assert f"{kind} (1), third:\n    WRONG, relative error" in text
    assert "not to be trusted:\n  third: gradients of curvature" in text
    assert lg.doctor(wrong).healthy
    lg.check_derivatives(wrong, order=2)
    with pytest.raises(
        lg.DerivativeError, match=rf"the third derivative in {kind} \(1\) disagrees"
    ):
        lg.check_derivatives(wrong, order=3)


def test_batchnorm_in_eval_mode_is_right():
    assert lg.doctor(problem(nn.BatchNorm1d(16), nn.Tanh()), third=True).healthy


@pytest.mark.parametrize("matrix", ["Hessian", "GaussNewton", "NTK", "EmpiricalFisher"])
def test_every_matrix_refuses_a_wrong_second_derivative(matrix, unchecked):
    hidden = problem(nn.Tanh(), Hidden())
    with pytest.raises(
        lg.DerivativeError, match=r"the second derivative in Hidden \(2\) disagrees"
    ):
        getattr(lg, matrix)(hidden).dense()
    unguarded = problem(nn.Tanh(), Hidden(), check=False)
    assert getattr(lg, matrix)(unguarded).dense().isfinite().all()


@pytest.mark.quick
def test_a_gradient_that_is_not_one():
    with pytest.raises(lg.DerivativeError, match=r"the first derivative in StraightThrough \(1\)"):
        lg.sharpness(problem(StraightThrough(), nn.Tanh()))


ACTIVATIONS = [
    nn.CELU(), nn.ELU(), nn.GELU(), nn.GELU("tanh"), nn.Hardshrink(), nn.Hardswish(),
    nn.Hardtanh(), nn.LeakyReLU(), nn.LogSigmoid(), nn.LogSoftmax(-1), nn.Mish(), nn.PReLU(),
    nn.RReLU(), nn.ReLU(), nn.ReLU6(), nn.SELU(), nn.SiLU(), nn.Sigmoid(), nn.Softmax(-1),
    nn.Softmin(-1), nn.Softplus(), nn.Softshrink(), nn.Softsign(), nn.Tanh(), nn.Tanhshrink(),
    nn.Threshold(0.1, 0.0),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_no_activation_is_blamed_for_derivatives_that_torch_has(activation, unchecked):
    diagnosis = lg.doctor(problem(activation), third=True)
    assert diagnosis.trusted == ("first", "second", "third", "nested forward"), str(diagnosis)


@pytest.mark.parametrize(
    ("layer", "trusted"),
    [
        (nn.Sequential(nn.Linear(16, 32), nn.GLU()), ("first", "second", "third")),
        (nn.Hardsigmoid(), ("first",)),
    ],
)
def test_what_torch_has_no_derivative_of(layer, trusted, unchecked):
    diagnosis = lg.doctor(problem(layer), third=True)
    assert diagnosis.trusted == trusted
    kind = type(layer[-1] if isinstance(layer, nn.Sequential) else layer).__name__
    assert [module.kind for module in diagnosis.blamed("nested forward")] == [kind]
    assert "autograd raises NotImplementedError" in str(diagnosis)


def test_kinks_do_not_alarm():
    """Zero biases and zero inputs put every unit exactly at the kink of its ReLU."""
    model = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))
    for layer in (model[0], model[2]):
        nn.init.zeros_(layer.bias)
    data = [(torch.zeros(4, 3), torch.zeros(4).long())]
    assert lg.doctor(lg.Problem(model, "cross_entropy", data)).healthy


def test_float32_inside_a_model_does_not_alarm():
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x.float()).to(x.dtype)

    assert lg.doctor(problem(Single())).healthy


class RootMeanSquare(nn.Module):
    """In float32 whatever comes in, as in models of Hugging Face."""

    def forward(self, x: Tensor) -> Tensor:
        h = x.float()
        return (h * torch.rsqrt(h.square().mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def test_deep_networks_with_kinks_that_go_through_float32():
    layers = [m for _ in range(12) for m in (RootMeanSquare(), nn.Linear(16, 16), nn.ReLU())]
    assert lg.doctor(problem(*layers), third=True).trusted[:2] == ("first", "second")
    lg.check_derivatives(problem(*layers))


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1)


class Kernel(nn.Module):
    """With a float32 tensor that is no buffer, so that it does not run in float64."""

    def __init__(self):
        super().__init__()
        self.mix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x @ self.mix)


class Odd(nn.Module):
    """Has a module that puts out integers."""

    def __init__(self):
        super().__init__()
        self.largest, self.embedding = Largest(), nn.Embedding(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.embedding(self.largest(x)) + x


def test_odd_modules_are_passed_by(unchecked):
    diagnosis = lg.doctor(problem(Odd()), third=True)
    assert diagnosis.trusted == ("first", "second", "third", "nested forward")


def test_a_model_that_runs_in_float32_only_is_never_called_wrong(unchecked):
    single = problem(Kernel(), nn.Tanh())
    assert lg.Hessian(single).dense().isfinite().all()
    statuses = {finding.status for finding in lg.doctor(single).model.values()}
    assert statuses <= {"right", "unchecked"}


def test_the_guard_looks_once_for_a_model(monkeypatch, unchecked):
    calls, examine = [], trial.examine
    monkeypatch.setattr(trial, "examine", lambda *args: calls.append(args) or examine(*args))
    p = problem(nn.Tanh())
    lg.Hessian(p) @ torch.ones(p.theta.numel())
    first = len(calls)
    lg.GaussNewton(p.refreshed()) @ torch.ones(p.theta.numel())
    lg.sharpness(p.at(p.theta * 2))
    assert len(calls) == first == 1
    lg.sharpness(p.in_mode("train"))
    assert len(calls) == 2


def test_leaves_no_trace(unchecked):
    from tests import reference

    p = problem(nn.LayerNorm(16), nn.Dropout(0.5), mode="train", seed=0)
    before = reference.fingerprint(p.model)
    lg.doctor(p, third=True)
    assert reference.fingerprint(p.model) == before


def test_errors(unchecked):
    with pytest.raises(ValueError, match="expected order 1, 2 or 3, got 4"):
        lg.check_derivatives(problem(nn.Tanh()), order=4)
    with pytest.raises(TypeError, match="expected a Problem"):
        lg.doctor(nn.Linear(3, 2))
