"""The loss Hessian inside of the Gauss-Newton matrix, in closed form where there is one."""

import pytest
import torch
from torch import nn

import lossgeom as lg

EXAMPLES, INPUTS = 20, 4


def saturated(kind, margin, dtype):
    """A linear model whose first output is ahead by about a margin, on all examples."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, INPUTS, generator=generator)
    outputs = {"binary": 1, "two classes": 2}.get(kind, 5)
    model = nn.Linear(INPUTS, outputs)
    with torch.no_grad():
        model.weight.copy_(torch.randn(outputs, INPUTS, generator=generator) / 4)
        model.bias.zero_()[0] = margin
    y, loss = torch.zeros(EXAMPLES, dtype=torch.long), "cross_entropy"
    if kind == "binary":
        y, loss = torch.ones(EXAMPLES, 1, dtype=dtype), nn.BCEWithLogitsLoss()
    if kind == "log-probabilities":
        model, loss = nn.Sequential(model, nn.LogSoftmax(1)), nn.NLLLoss()
    # in float32 finite differences of such a loss say nothing
    return lg.Problem(model.to(dtype), loss, [(x.to(dtype), y)], check=False)


@pytest.mark.parametrize("margin", [12, 16, 18, 30])
@pytest.mark.parametrize("kind", ["binary", "two classes", "five classes", "log-probabilities"])
def test_saturated_probabilities_in_single_precision(kind, margin):
    exact = lg.GaussNewton(saturated(kind, margin, torch.float64)).dense()
    single = lg.GaussNewton(saturated(kind, margin, torch.float32)).dense()
    assert exact.norm() > 0
    assert (single - exact).norm() <= 3e-6 * exact.norm()


def test_second_derivatives_of_the_loss_would_fail_that():
    problem = saturated("two classes", 18, torch.float32)
    exact = lg.GaussNewton(saturated("two classes", 18, torch.float64)).dense()
    hessian = lg.Hessian(problem).dense()  # the same for a linear model
    assert (hessian - exact).norm() > 0.1 * exact.norm()


def test_outputs_of_half_precision():
    """Under autocast the closed form is taken in single precision, of rounded outputs."""
    torch.manual_seed(0)
    model, data = nn.Linear(3, 4), [(torch.randn(9, 3), torch.randint(4, (9,)))]
    exact = lg.GaussNewton(lg.Problem(model, "cross_entropy", data)).dense()
    rounded = lg.Problem(model, "cross_entropy", data, autocast=torch.bfloat16)
    assert (lg.GaussNewton(rounded).dense() - exact).norm() < 0.02 * exact.norm()


def test_a_loss_that_is_no_likelihood_of_these_targets():
    """Targets of SoftMarginLoss other than -1 and 1 have the curvature y^2 s (1 - s)."""
    model, y = nn.Linear(1, 1, bias=False), torch.tensor([[2.0], [-1.0]])
    nn.init.constant_(model.weight, 0.5)
    x = torch.tensor([[1.0], [3.0]])
    problem = lg.Problem(model, nn.SoftMarginLoss(reduction="sum"), [(x, y)])
    s = torch.sigmoid(y * x / 2)
    expected = (x**2 * y**2 * s * (1 - s)).sum()
    torch.testing.assert_close(lg.GaussNewton(problem).dense().sum(), expected)


def test_nll_of_outputs_that_are_no_log_probabilities_has_no_curvature():
    torch.manual_seed(0)
    data = [(torch.randn(9, 3), torch.randint(4, (9,)))]
    problem = lg.Problem(nn.Linear(3, 4), nn.NLLLoss(), data)
    assert not lg.GaussNewton(problem).dense().any()
    assert any("has no curvature in the outputs here" in note for note in problem.notes)


def test_negative_weights_of_classes():
    """The matrix has no root, and is indefinite like the Hessian of the same linear model."""
    torch.manual_seed(0)
    data = [(torch.randn(9, 3).double(), torch.randint(2, (9,)))]
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([1.0, -0.5]).double(), reduction="sum")
    problem = lg.Problem(nn.Linear(3, 2).double(), criterion, data)
    torch.testing.assert_close(lg.GaussNewton(problem).dense(), lg.Hessian(problem).dense())


@pytest.mark.parametrize("matrix", [lg.GaussNewton, lg.Hessian])
def test_products_leave_the_vector_be(matrix):
    """Also where a product is the vector itself, but for a number."""
    model = nn.Linear(1, 3, bias=False)
    A = matrix(lg.Problem(model, "squared_error", [(torch.ones(2, 1), torch.zeros(2, 3))]))
    v = torch.tensor([1.0, 2.0, 3.0])
    for _ in range(2):
        torch.testing.assert_close(A @ v, torch.tensor([1.0, 2.0, 3.0]))
        assert v.tolist() == [1.0, 2.0, 3.0]
