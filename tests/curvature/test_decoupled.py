"""What the decoupled matrix of all layers does beyond the contract of matrices."""

import pytest
import torch
from torch import nn

import lossgeom as lg

pytestmark = pytest.mark.quick


def problem_of(*layers):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), *layers, nn.Linear(4, 2)).double()
    x, y = torch.randn(20, 3).double(), torch.arange(20) % 2
    return lg.Problem(model, "cross_entropy", [(x, y)])


@pytest.mark.parametrize("corrected", [False, True])
def test_inverse_and_determinant(corrected):
    decoupled = lg.Decoupled(problem_of(), corrected=corrected)
    damped = decoupled.dense() + 0.1 * torch.eye(26, dtype=torch.float64)
    inverse = decoupled.inverse(damping=0.1)
    torch.testing.assert_close(inverse.dense(), torch.linalg.inv(damped))
    assert inverse.T is inverse
    assert decoupled.logdet(damping=0.1) == pytest.approx(torch.logdet(damped).item())


@pytest.mark.parametrize("corrected", [False, True])
def test_the_root_is_symmetric_and_its_square_is_the_matrix(corrected):
    decoupled = lg.Decoupled(problem_of(), corrected=corrected)
    root = decoupled.sqrt().dense()
    torch.testing.assert_close(root, root.T)
    torch.testing.assert_close(root @ root, decoupled.dense())
    assert torch.linalg.eigvalsh(root)[0] > -1e-9


def test_an_inverse_needs_damping_and_an_error_names_one_that_is_enough():
    decoupled = lg.Decoupled(problem_of())
    with pytest.raises(ValueError, match=r"expected damping >= 0, got -1\.0"):
        decoupled.inverse(-1.0)
    with pytest.raises(ValueError, match=r"a larger damping than 0\.0, such as ") as raised:
        decoupled.inverse()
    enough = float(str(raised.value).rpartition(" ")[2])
    largest = torch.linalg.eigvalsh(decoupled.dense())[-1]
    assert enough == pytest.approx(1e-3 * largest.item(), rel=0.05)
    assert decoupled.inverse(enough).dense().isfinite().all()


def test_preconditions():
    """Conjugate gradients on the damped Gauss-Newton matrix of one layer, which it inverts."""
    problem = problem_of().take(1).with_parameters("0.weight")
    decoupled = lg.Decoupled(problem)
    step = decoupled.inverse(damping=0.1) @ problem.gradient()
    A = lg.GaussNewton(problem)
    torch.testing.assert_close(A @ step + 0.1 * step, problem.gradient())


@pytest.mark.parametrize("corrected", [False, True])
def test_blocks_are_those_of_parameters(corrected):
    problem = problem_of()
    first, _ = lg.kronecker_factors(problem, corrected=corrected)
    blocks = lg.Decoupled(problem, corrected=corrected).blocks
    assert tuple(blocks) == problem.network.names
    torch.testing.assert_close(blocks["0.weight"].dense(), first.matrix.dense())
    torch.testing.assert_close(blocks["0.bias"].dense(), first.bias_matrix.dense())


def test_refuses_parameters_of_other_modules():
    problem = problem_of(nn.LayerNorm(4))
    with pytest.raises(ValueError, match=r"not so 2.weight, 2.bias: 2 \(LayerNorm is neither"):
        lg.Decoupled(problem)
    assert lg.Decoupled(problem.with_parameters(["0.*", "3.*"])).shape == (26, 26)
