import itertools

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.smoothness import _pieces
from tests import reference
from tests.problems import CASES

VECTOR_INPUTS = [
    case
    for case in CASES
    if isinstance(case.inputs, torch.Tensor)
    and case.inputs.is_floating_point()
    and case.name not in ("tokens", "classes_last")
]


SETTINGS = [
    {},
    {"norm": "frobenius"},
    {"method": "lanczos", "tol": 1e-6},
    {"norm": "frobenius", "method": "hutchinson"},
]


@pytest.mark.parametrize("outputs", ["logits", "softmax"])
@pytest.mark.parametrize("case", VECTOR_INPUTS, ids=lambda case: case.name)
def test_agrees_with_differences_and_svd(case, outputs):
    if (case.name, outputs) == ("own_loss", "softmax"):
        with pytest.raises(ValueError, match="two or more outputs for a softmax"):
            lg.jacobian_norms(case.problem(), outputs)
        return
    J = reference.jacobian(case, case.inputs, outputs == "softmax")
    expected = torch.linalg.matrix_norm(J, ord=2)
    actual = lg.jacobian_norms(case.problem(), outputs)
    assert actual.method == "exact"
    assert actual.converged.all()
    torch.testing.assert_close(actual.values, expected, rtol=1e-6, atol=1e-9)
    frobenius = lg.jacobian_norms(case.problem(), outputs, norm="frobenius")
    assert frobenius.stderr is None
    torch.testing.assert_close(frobenius.values, J.flatten(1).norm(dim=1), rtol=1e-6, atol=1e-9)


def test_agrees_with_jacrev():
    case = CASES[1]
    J = torch.vmap(torch.func.jacrev(case.model))(case.inputs)
    expected = torch.linalg.matrix_norm(J, ord=2)
    torch.testing.assert_close(lg.jacobian_norms(case.problem()).values, expected.detach())


@pytest.mark.quick
def test_linear_model_in_closed_form():
    model = nn.Linear(5, 3).double()
    problem = lg.Problem(model, "cross_entropy", [(torch.randn(4, 5), torch.zeros(4).long())])
    expected = torch.linalg.matrix_norm(model.weight, ord=2).detach()
    torch.testing.assert_close(lg.jacobian_norms(problem).values, expected.expand(4))


def test_chunks_change_nothing(monkeypatch):
    case = next(case for case in CASES if case.name == "conv")
    whole = [lg.jacobian_norms(case.problem(), **setting) for setting in SETTINGS]
    monkeypatch.setattr(_pieces, "PIECE_BYTES", 1)
    for setting, expected in zip(SETTINGS, whole, strict=True):
        actual = lg.jacobian_norms(case.problem(), **setting)
        torch.testing.assert_close(actual.values, expected.values)
        if expected.stderr is not None:
            torch.testing.assert_close(actual.stderr, expected.stderr)


def test_saturated_softmax():
    """Where a probability is 1 to float32, the norm is still right."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[20.0], [-20.0]])
    problem = lg.Problem(model, "cross_entropy", [(torch.ones(1, 1), torch.zeros(1).long())])
    p = torch.sigmoid(torch.tensor(-40.0, dtype=torch.float64))
    expected = 40 * p * (1 - p) * 2**0.5
    for method in ("exact", "lanczos"):
        norms = lg.jacobian_norms(problem, "softmax", method=method)
        torch.testing.assert_close(norms.values, expected[None], rtol=1e-4, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_scale_does_not_matter(scale):
    model = nn.Linear(5, 3)
    problem = lg.Problem(model, "cross_entropy", [(torch.zeros(4, 5), torch.zeros(4).long())])
    scaled = problem.at(problem.theta * scale)
    for setting in SETTINGS:
        expected = lg.jacobian_norms(problem, **setting).values
        actual = lg.jacobian_norms(scaled, **setting).values
        torch.testing.assert_close(actual / scale, expected, rtol=1e-5, atol=0)


def test_train_mode_problem_is_measured_in_eval_mode():
    case = next(case for case in CASES if case.name == "batchnorm_train")
    assert case.problem().mode == "train"
    expected = lg.jacobian_norms(case.problem().in_mode("eval"))
    assert torch.equal(lg.jacobian_norms(case.problem()).values, expected.values)


def test_leaves_no_trace(unchecked):
    for case, setting in zip(VECTOR_INPUTS, itertools.cycle(SETTINGS), strict=False):
        before = reference.fingerprint(case.model)
        with torch.no_grad():
            lg.jacobian_norms(case.problem(), **setting)
        assert reference.fingerprint(case.model) in (before, [*before[:-3], True, *before[-2:]])


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x - x.mean(0)).softmax(1)


def test_a_model_that_works_in_place_on_its_input():
    inner = nn.Linear(3, 2)
    x = torch.tensor([[1.0, -1.0, 2.0]])
    data = [(x.clone(), torch.zeros(1).long())]
    problem = lg.Problem(nn.Sequential(nn.ReLU(inplace=True), inner), "cross_entropy", data)
    norms = lg.jacobian_norms(problem)
    expected = torch.linalg.matrix_norm(inner.weight * (x > 0), ord=2)
    torch.testing.assert_close(norms.values.float(), expected.detach()[None])
    problem.gradient()
    assert torch.equal(data[0][0], x)


class Halves(nn.Linear):
    """Compares the first half of a batch with the second, which is further than a neighbour."""

    def forward(self, x):
        first, second = super().forward(x).chunk(2)
        return torch.cat([first - second, second])


def test_dependence_on_other_examples_is_seen(monkeypatch):
    class Causal(nn.Linear):
        def forward(self, x):
            return super().forward(x).cumsum(0)

    data = [(torch.randn(4, 3), torch.zeros(4).long())]
    monkeypatch.setattr(_pieces, "PIECE_BYTES", 1)
    for model in (Causal(3, 2), Mixing(), Halves(3, 2)):
        with pytest.raises(ValueError, match="depend on other examples"):
            lg.jacobian_norms(lg.Problem(model, "cross_entropy", data))
    two = [(torch.randn(2, 3), torch.zeros(2).long())]
    for measure in (lg.jacobian_norms, lg.largest_jacobian_norm):
        with pytest.raises(ValueError, match="depend on other examples"):
            measure(lg.Problem(Causal(3, 2), "cross_entropy", two))


def test_errors(unchecked):
    data = [(torch.randn(4, 3), torch.zeros(4).long())]
    with pytest.raises(ValueError, match="depend on other examples"):
        lg.jacobian_norms(lg.Problem(Mixing(), "cross_entropy", data))
    with pytest.raises(ValueError, match="expected outputs to be one of"):
        lg.jacobian_norms(lg.Problem(nn.Linear(3, 2), "cross_entropy", data), "probabilities")
    embedding = lg.Problem(
        nn.Embedding(5, 2), "cross_entropy", [(torch.arange(4), torch.zeros(4).long())]
    )
    with pytest.raises(ValueError, match=r"expected a floating-point input .* with embedding="):
        lg.jacobian_norms(embedding)
    model = nn.Linear(3, 2)
    model.weight.data.fill_(float("nan"))
    with pytest.raises(lg.NonFiniteError, match="NaN or infinite"):
        lg.jacobian_norms(lg.Problem(model, "cross_entropy", data))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"norm": "nuclear"}, "expected norm to be one of"),
        ({"method": "hutchinson"}, "expected the method of a spectral norm to be one of"),
        ({"norm": "frobenius", "method": "lanczos"}, "expected the method of a frobenius norm"),
        ({"tol": 0.0}, "expected a tolerance 0 < tol < 1"),
        ({"max_steps": 0}, "expected max_steps of at least 1"),
        ({"probes": 1}, "expected probes of at least 2"),
        ({"seed": -1}, "expected seed of at least 0"),
    ],
)
def test_settings_out_of_range(setting, message, unchecked):
    data = [(torch.randn(4, 3), torch.zeros(4).long())]
    with pytest.raises(ValueError, match=message):
        lg.jacobian_norms(lg.Problem(nn.Linear(3, 2), "cross_entropy", data), **setting)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_no_norm_is_made_of_nan(setting):
    """Also where the outputs are finite, and only the derivative is not."""

    class Root(nn.Linear):
        def forward(self, x):
            return super().forward(x).clamp(min=0).sqrt()

    model = Root(3, 2)
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    problem = lg.Problem(model, "squared_error", [(torch.ones(2, 3), torch.ones(2, 2))])
    with pytest.raises(lg.NonFiniteError, match="the Jacobian of the model is NaN or infinite"):
        lg.jacobian_norms(problem, **setting)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_constant_model_has_norm_zero(setting):
    class Constant(nn.Linear):
        def forward(self, x):
            return super().forward(torch.ones_like(x))

    data = [(torch.randn(4, 3), torch.zeros(4).long())]
    norms = lg.jacobian_norms(lg.Problem(Constant(3, 2), "cross_entropy", data), **setting)
    assert norms.values.tolist() == [0.0] * 4
    assert norms.converged.all()


@pytest.mark.quick
def test_one_hidden_layer_of_relu_in_closed_form():
    first, second = nn.Linear(5, 7).double(), nn.Linear(7, 4).double()
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()
    model = nn.Sequential(first, nn.ReLU(), second)
    problem = lg.Problem(model, "cross_entropy", [(x, torch.zeros(6).long())])
    active = (first(x) > 0).double()
    J = (second.weight * active[:, None]) @ first.weight
    actual = lg.jacobian_norms(problem)
    torch.testing.assert_close(actual.values, torch.linalg.matrix_norm(J, ord=2).detach())


def test_quadratic_with_one_output_in_closed_form():
    """f(x) = |A x|^2 / 2 has the gradient A^T A x, and with one output all norms are its length."""

    class Quadratic(nn.Linear):
        def forward(self, x):
            return super().forward(x).square().sum(1) / 2

    model = Quadratic(4, 3, bias=False).double()
    x = torch.randn(5, 4).double()
    problem = lg.Problem(model, "squared_error", [(x, torch.zeros(5).double())])
    expected = (x @ model.weight.T @ model.weight).norm(dim=1).detach()
    for setting in SETTINGS:
        norms = lg.jacobian_norms(problem, **setting)
        torch.testing.assert_close(norms.values, expected)


def test_what_is_made_of_the_norms():
    values = torch.tensor([2.0, 5.0, 1.0, 5.0], dtype=torch.float64)
    norms = lg.JacobianNorms(values, None, torch.ones(4, dtype=torch.bool), "exact")
    assert (norms.max, norms.argmax, norms.mean, len(norms)) == (5.0, 1, 3.25, 4)
    for q in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert norms.quantile(q) == pytest.approx(values.quantile(q).item())
    with pytest.raises(ValueError, match=r"expected a quantile 0 <= q <= 1, got 2\.0"):
        norms.quantile(2.0)
