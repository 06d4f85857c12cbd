"""Fisher matrices and the gradient covariance beyond their contracts."""

import curvlinops
import pytest
import torch
from torch import nn

import lossgeom as lg
from tests.problems import CASES

BY_NAME = {case.name: case for case in CASES}


@pytest.mark.parametrize("name", ["ragged", "weighted", "tokens", "mse", "coins", "language_model"])
def test_the_mean_over_seeds_is_gauss_newton(name, unchecked):
    """Along three directions, within 4 standard errors; twice Gauss-Newton is not."""
    problem = BY_NAME[name].problem()
    P = problem.theta.numel()
    V = torch.randn(P, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = (V * (lg.GaussNewton(problem) @ V)).sum(0)
    found = []
    for seed in range(40):
        fisher = lg.MonteCarloFisher(problem, seed=seed, samples=3)
        found.append((V * (fisher @ V)).sum(0))
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / 40**0.5
    assert ((mean - expected).abs() < 4 * error).all()
    assert ((mean - 2 * expected).abs() > 4 * error).all()


def test_more_samples_are_nearer():
    problem = BY_NAME["ragged"].problem()
    G = lg.GaussNewton(problem).dense()
    few, many = (
        (lg.MonteCarloFisher(problem, samples=samples).dense() - G).norm() for samples in (1, 100)
    )
    assert many < 0.3 * few


def test_a_seed_is_a_matrix():
    problem = BY_NAME["ragged"].problem()
    first, same, other = (lg.MonteCarloFisher(problem, seed=s).dense() for s in (1, 1, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_agrees_with_curvlinops():
    for name, loss in (("ragged", nn.CrossEntropyLoss()), ("mse", nn.MSELoss())):
        case = BY_NAME[name]
        theirs = curvlinops.EFLinearOperator(
            case.model, loss, list(case.model.parameters()), case.data
        )
        ours = lg.EmpiricalFisher(case.problem())
        V = torch.randn(ours.shape[0], 3, dtype=torch.float64)
        torch.testing.assert_close(ours @ V, theirs @ V)


def test_the_covariance_is_that_of_mini_batch_gradients():
    """Gradients of mini-batches of 3 drawn with replacement."""
    problem = BY_NAME["ragged"].problem()
    x, y = BY_NAME["ragged"].inputs, BY_NAME["ragged"].targets
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.theta.numel(), generator=generator, dtype=torch.float64)
    model = BY_NAME["ragged"].model
    slopes = []
    for i in range(9):
        one = lg.Problem(model, "cross_entropy", [(x[i : i + 1], y[i : i + 1])], check=False)
        slopes.append(one.gradient() @ v)
    drawn = torch.stack(slopes)[torch.randint(9, (20000, 3), generator=generator)].mean(1)
    expected = (v @ (lg.GradientCovariance(problem) @ v) / 3).item()
    assert drawn.var().item() == pytest.approx(expected, rel=0.05)


def contrastive(outputs, batch):
    return (outputs @ outputs.T).square().sum(), len(outputs)


def test_errors(unchecked):
    data = [(torch.randn(4, 3), torch.zeros(4, 2))]
    coupled = lg.Problem(nn.Linear(3, 2), contrastive, data)
    for matrix in (lg.EmpiricalFisher, lg.GradientCovariance, lg.OutputRoot):
        with pytest.raises(ValueError, match="'contrastive' to be a sum over examples"):
            matrix(coupled) @ torch.ones(8)
    with pytest.raises(
        ValueError, match=r"negative logarithm of a known likelihood .* 'contrastive'"
    ):
        lg.MonteCarloFisher(coupled)
    with pytest.raises(ValueError, match="expected samples of at least 1, got 0"):
        lg.MonteCarloFisher(BY_NAME["ragged"].problem(), samples=0)
