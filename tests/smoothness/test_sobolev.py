import pytest
import torch
from torch import Tensor, nn

import lossgeom as lg
from lossgeom.smoothness._parameter_function import ParameterFunction
from tests import reference
from tests.problems import CASES, mlp

ORDERS = (1, 2, 3)
VECTOR_INPUTS = [
    case
    for case in CASES
    if isinstance(case.inputs, torch.Tensor) and case.inputs.is_floating_point()
]
EVAL = [case for case in CASES if case.options.get("mode") != "train"]


def named(name):
    return next(case for case in CASES if case.name == name)


def names(case):
    return case.name


def expected(J: Tensor, euclidean: bool = False) -> dict[int, float]:
    """By the definition, from gradients (N, C, p)."""
    if euclidean:
        J = torch.linalg.vector_norm(J, dim=2)
    return {k: (J.abs().pow(2 * k).sum() / len(J)).item() ** (0.5 / k) for k in ORDERS}


def check(found: lg.SobolevSeminorms, J: Tensor, rel: float = 1e-6) -> None:
    J, tolerance = J.detach().double(), {"rel": rel, "abs": 1e-3 * rel}
    assert found.elementwise == pytest.approx(expected(J), **tolerance)
    assert found.euclidean == pytest.approx(expected(J, euclidean=True), **tolerance)


def values(found: lg.SobolevSeminorms) -> list[float]:
    return [*found.elementwise.values(), *found.euclidean.values()]


def regression(model: nn.Module, x: Tensor) -> lg.Problem:
    with torch.no_grad():
        return lg.Problem(model, "squared_error", [(x, model(x))])


@pytest.mark.parametrize("case", VECTOR_INPUTS, ids=names)
def test_input_agrees_with_differences(case):
    J = reference.jacobian(case, case.inputs, softmax=False)
    check(lg.sobolev_seminorms(case.problem()), J)


@pytest.mark.parametrize("case", EVAL, ids=names)
def test_parameters_agree_with_differences(case):
    J = reference.parameter_jacobian(case).unflatten(0, (len(case.targets), -1))
    check(lg.sobolev_seminorms(case.problem(), "parameters"), J)


def test_agrees_with_dense_jacobians_of_autograd():
    case = named("smoothing")
    in_input = torch.stack([torch.autograd.functional.jacobian(case.model, x) for x in case.inputs])
    check(lg.sobolev_seminorms(case.problem()), in_input, rel=1e-12)
    parameters = dict(case.model.named_parameters())

    def outputs(*values):
        return torch.func.functional_call(
            case.model, dict(zip(parameters, values, strict=True)), case.inputs
        )

    pieces = torch.autograd.functional.jacobian(outputs, tuple(parameters.values()))
    in_parameters = torch.cat([piece.flatten(2) for piece in pieces], 2)
    check(lg.sobolev_seminorms(case.problem(), "parameters"), in_parameters, rel=1e-12)


@pytest.mark.quick
def test_linear_model_in_closed_form():
    torch.manual_seed(0)
    model, x = nn.Linear(5, 3).double(), torch.randn(4, 5).double()
    problem, W = regression(model, x), model.weight.detach()
    check(lg.sobolev_seminorms(problem), W.expand(4, 3, 5), rel=1e-12)
    found = lg.sobolev_seminorms(problem, "parameters")
    for k in ORDERS:
        elementwise = (3 * (x.pow(2 * k).sum(1).mean() + 1)) ** (0.5 / k)
        euclidean = (3 * (x.square().sum(1) + 1).pow(k).mean()) ** (0.5 / k)
        assert found.elementwise[k] == pytest.approx(elementwise.item())
        assert found.euclidean[k] == pytest.approx(euclidean.item())


def test_one_hidden_layer_in_closed_form():
    torch.manual_seed(0)
    model, x = mlp(4, 6, 1, activation=nn.ReLU).double(), torch.randn(5, 4).double()
    W, b, v = (model[0].weight, model[0].bias, model[2].weight[0])
    z = x @ W.T + b
    u = v * (z > 0)
    in_W = u[:, :, None] * x[:, None, :]
    in_parameters = torch.cat([in_W.flatten(1), u, z.relu(), torch.ones(5, 1)], 1)
    check(lg.sobolev_seminorms(regression(model, x)), (u @ W)[:, None], rel=1e-12)
    found = lg.sobolev_seminorms(regression(model, x), "parameters")
    check(found, in_parameters[:, None], rel=1e-12)


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.A = nn.Parameter(torch.randn(3, 3).double())

    def forward(self, x):
        return 0.5 * ((x @ self.A) * x).sum(1, keepdim=True)


def test_quadratic_in_closed_form():
    torch.manual_seed(0)
    model, x = Quadratic(), torch.randn(7, 3).double()
    S = (model.A + model.A.T) / 2
    check(lg.sobolev_seminorms(regression(model, x)), (x @ S)[:, None], rel=1e-12)
    outer = 0.5 * (x[:, :, None] * x[:, None, :]).flatten(1)
    check(lg.sobolev_seminorms(regression(model, x), "parameters"), outer[:, None], rel=1e-12)


def test_square_is_the_trace_of_the_gauss_newton_matrix():
    problem = named("squared_error").problem()
    found = lg.sobolev_seminorms(problem, "parameters", [1]).elementwise[1]
    assert found**2 == pytest.approx(lg.GaussNewton(problem).dense().trace().item())


@pytest.mark.parametrize("of", ["input", "parameters"])
def test_split_into_batches_changes_nothing(of):
    for case in (named("ragged"), named("conv")):
        whole = lg.sobolev_seminorms(case.problem([(case.inputs, case.targets)]), of)
        pieces = [(x[None], y[None]) for x, y in zip(case.inputs, case.targets, strict=True)]
        for data in (case.data, pieces, pieces[::-1]):
            assert values(lg.sobolev_seminorms(case.problem(data), of)) == pytest.approx(
                values(whole), rel=1e-12
            )


def test_one_by_one_gives_the_same(monkeypatch):
    cases = [named(name) for name in ("conv", "batchnorm_eval", "attention", "in_place")]
    together = [values(lg.sobolev_seminorms(case.problem(), "parameters")) for case in cases]

    def refuse(*args):
        raise RuntimeError("no batched form")

    monkeypatch.setattr(ParameterFunction, "together", refuse)
    for case, whole in zip(cases, together, strict=True):
        found = lg.sobolev_seminorms(case.problem(), "parameters")
        assert values(found) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("of", ["input", "parameters"])
def test_float32_agrees_with_float64(of):
    case = named("conv")
    narrow = lg.sobolev_seminorms(
        lg.Problem(case.model, case.loss, case.data, dtype=torch.float32), of
    )
    assert values(narrow) == pytest.approx(
        values(lg.sobolev_seminorms(case.problem(), of)), rel=1e-5
    )


@pytest.mark.parametrize("scale", [1e-70, 1e70])
def test_scale_does_not_matter(scale):
    problem = regression(nn.Linear(5, 3).double(), torch.ones(2, 5).double())
    scaled = lg.sobolev_seminorms(problem.at(problem.theta * scale))
    expected = [scale * value for value in values(lg.sobolev_seminorms(problem))]
    assert values(scaled) == pytest.approx(expected, rel=1e-12)


def test_constant_outputs():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    model[0].bias.data.fill_(-100.0)
    assert set(values(lg.sobolev_seminorms(regression(model, torch.ones(2, 2))))) == {0.0}


def test_parameters_by_pattern():
    case = named("squared_error")
    J = reference.parameter_jacobian(case).unflatten(0, (len(case.targets), -1))
    first = case.problem().with_parameters("0.*")
    check(lg.sobolev_seminorms(first, "parameters"), J[..., : first.theta.numel()])


def test_train_mode_problem_is_measured_in_eval_mode():
    case = named("batchnorm_train")
    expected = lg.sobolev_seminorms(case.problem().in_mode("eval"))
    assert lg.sobolev_seminorms(case.problem()) == expected


def test_leaves_no_trace(unchecked):
    for case in (named("conv"), named("lstm"), named("batchnorm_train")):
        for of in ("input", "parameters"):
            before = reference.fingerprint(case.model)
            with torch.no_grad():
                lg.sobolev_seminorms(case.problem(), of)
            assert reference.fingerprint(case.model)[:3] == before[:3]
            assert reference.fingerprint(case.model)[3:6] == before[3:6]


class Mixing(nn.Linear):
    def forward(self, x):
        return super().forward(x - 0.1 * x.mean(0))


class CountsExamples(nn.Linear):
    def forward(self, x):
        return super().forward(x) * len(x)


@pytest.mark.parametrize("of", ["input", "parameters"])
@pytest.mark.parametrize("kind", [Mixing, CountsExamples])
def test_dependence_on_other_examples_is_seen(of, kind):
    with pytest.raises(ValueError, match="depend on other examples"):
        lg.sobolev_seminorms(regression(kind(3, 2), torch.randn(6, 3)), of)


@pytest.mark.parametrize("of", ["input", "parameters"])
def test_dependence_is_seen_after_a_batch_of_one(of):
    x = torch.randn(6, 3)
    data = [(x[:1], torch.zeros(1, 2)), (x[1:], torch.zeros(5, 2))]
    with pytest.raises(ValueError, match="depend on other examples"):
        lg.sobolev_seminorms(lg.Problem(Mixing(3, 2), "squared_error", data), of)


@pytest.mark.parametrize("of", ["input", "parameters"])
def test_sequences_before_examples_are_no_rows_of_examples(of):
    class Last(nn.LSTM):
        def forward(self, x):
            return super().forward(x)[0][-1]

    problem = regression(Last(3, 2), torch.randn(4, 4, 3))
    with pytest.raises(ValueError, match="lie along the second dimension"):
        lg.sobolev_seminorms(problem, of)


class Root(nn.Linear):
    def forward(self, x):
        return (super().forward(x) * x).abs().sqrt()


def test_numbers_that_are_not_finite():
    model = nn.Linear(3, 2)
    problem = regression(model, torch.ones(6, 3))
    nan = problem.at(problem.theta * torch.nan)
    x = torch.ones(6, 2)
    x[5] = 0  # where only the derivative is infinite, and not in the first examples
    for of in ("input", "parameters"):
        with pytest.raises(lg.NonFiniteError, match="the output of the model is NaN"):
            lg.sobolev_seminorms(nan, of)
        with pytest.raises(lg.NonFiniteError, match="a gradient of an output is NaN"):
            lg.sobolev_seminorms(regression(Root(2, 2, bias=False), x), of)


def test_errors(unchecked):
    problem = regression(nn.Linear(3, 2), torch.ones(4, 3))
    with pytest.raises(ValueError, match="expected of to be one of"):
        lg.sobolev_seminorms(problem, "data")
    for orders in ([], [0], [1.5]):
        with pytest.raises(ValueError, match="expected orders to be integers of at least 1"):
            lg.sobolev_seminorms(problem, orders=orders)
    with pytest.raises(ValueError, match="expected memory_budget of at least 1, got 0"):
        lg.sobolev_seminorms(problem, memory_budget=0)
    with pytest.raises(ValueError, match="expected floating-point inputs"):
        lg.sobolev_seminorms(named("language_model").problem())
    with pytest.raises(TypeError, match="a model with a single tensor as its input"):
        lg.sobolev_seminorms(named("two_inputs").problem())
    with pytest.raises(TypeError, match="expected a Problem"):
        lg.sobolev_seminorms(nn.Linear(3, 2))
    summed = lg.Problem(
        nn.Linear(3, 2),
        lambda outputs, batch: (outputs.sum(), 1),
        [(torch.ones(4, 3), torch.ones(4))],
        forward=lambda model, batch: model(batch[0]).sum(0),
    )
    with pytest.raises(ValueError, match="expected one row of outputs per example"):
        lg.sobolev_seminorms(summed)
