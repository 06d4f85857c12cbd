import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.smoothness import jacobian_norm
from tests import reference
from tests.problems import CASES

VECTOR_INPUTS = [
    case
    for case in CASES
    if isinstance(case.inputs, torch.Tensor)
    and case.inputs.is_floating_point()
    and case.name not in ("tokens", "classes_last")
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
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


def test_agrees_with_jacrev():
    case = CASES[1]
    J = torch.vmap(torch.func.jacrev(case.model))(case.inputs)
    expected = torch.linalg.matrix_norm(J, ord=2)
    torch.testing.assert_close(lg.jacobian_norms(case.problem()), expected.detach())


def test_linear_model_in_closed_form():
    model = nn.Linear(5, 3).double()
    problem = lg.Problem(model, "cross_entropy", [(torch.randn(4, 5), torch.zeros(4).long())])
    expected = torch.linalg.matrix_norm(model.weight, ord=2).detach()
    torch.testing.assert_close(lg.jacobian_norms(problem), expected.expand(4))


def test_chunks_change_nothing(monkeypatch):
    case = next(case for case in CASES if case.name == "conv")
    whole = lg.jacobian_norms(case.problem())
    monkeypatch.setattr(jacobian_norm, "CHUNK_NUMBERS", 1)
    torch.testing.assert_close(lg.jacobian_norms(case.problem()), whole)


def test_saturated_softmax():
    """Where a probability is 1 to float32, the norm is still right."""
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[20.0], [-20.0]])
    problem = lg.Problem(model, "cross_entropy", [(torch.ones(1, 1), torch.zeros(1).long())])
    p = torch.sigmoid(torch.tensor(-40.0, dtype=torch.float64))
    expected = 40 * p * (1 - p) * 2**0.5
    torch.testing.assert_close(
        lg.jacobian_norms(problem, "softmax").double(), expected[None], rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_scale_does_not_matter(scale):
    model = nn.Linear(5, 3)
    problem = lg.Problem(model, "cross_entropy", [(torch.zeros(4, 5), torch.zeros(4).long())])
    scaled = problem.at(problem.theta * scale)
    torch.testing.assert_close(lg.jacobian_norms(scaled) / scale, lg.jacobian_norms(problem))


def test_train_mode_problem_is_measured_in_eval_mode():
    case = next(case for case in CASES if case.name == "batchnorm_train")
    assert case.problem().mode == "train"
    expected = lg.jacobian_norms(case.problem().in_mode("eval"))
    assert torch.equal(lg.jacobian_norms(case.problem()), expected)


def test_leaves_no_trace(unchecked):
    for case in VECTOR_INPUTS:
        before = reference.fingerprint(case.model)
        with torch.no_grad():
            lg.jacobian_norms(case.problem())
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
    torch.testing.assert_close(norms, expected.detach()[None])
    problem.gradient()
    assert torch.equal(data[0][0], x)


def test_dependence_on_other_examples_is_seen(monkeypatch):
    class Causal(nn.Linear):
        def forward(self, x):
            return super().forward(x).cumsum(0)

    data = [(torch.randn(4, 3), torch.zeros(4).long())]
    monkeypatch.setattr(jacobian_norm, "CHUNK_NUMBERS", 1)
    for model in (Causal(3, 2), Mixing()):
        with pytest.raises(ValueError, match="depend on other examples"):
            lg.jacobian_norms(lg.Problem(model, "cross_entropy", data))


def test_errors(unchecked):
    data = [(torch.randn(4, 3), torch.zeros(4).long())]
    with pytest.raises(ValueError, match="depend on other examples"):
        lg.jacobian_norms(lg.Problem(Mixing(), "cross_entropy", data))
    with pytest.raises(ValueError, match="expected outputs to be one of"):
        lg.jacobian_norms(lg.Problem(nn.Linear(3, 2), "cross_entropy", data), "probabilities")
    embedding = lg.Problem(
        nn.Embedding(5, 2), "cross_entropy", [(torch.arange(4), torch.zeros(4).long())]
    )
    with pytest.raises(ValueError, match="expected floating-point inputs"):
        lg.jacobian_norms(embedding)
    model = nn.Linear(3, 2)
    model.weight.data.fill_(float("nan"))
    with pytest.raises(lg.NonFiniteError, match="NaN or infinite"):
        lg.jacobian_norms(lg.Problem(model, "cross_entropy", data))
