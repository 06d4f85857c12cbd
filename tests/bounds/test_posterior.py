"""Posteriors, their bases and their training."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.bounds import Posterior, _training
from lossgeom.bounds._bases import BASES
from lossgeom.bounds._complexity import Complexity
from lossgeom.bounds._training import Training, trained
from lossgeom.bounds.posterior import Basis, Block
from lossgeom.curvature.kronecker import kronecker_factors
from tests.bounds import plain


def dense(basis, P):
    """U, from its columns."""
    return basis.unrotate(torch.eye(P).double()).T


@pytest.mark.parametrize("name", BASES)
def test_bases_are_orthogonal(name, several):
    basis = BASES[name](several.problem)
    v = torch.randn(2, 5, several.problem.theta.numel())
    torch.testing.assert_close(basis.unrotate(basis.rotate(v)), v)
    torch.testing.assert_close(basis.rotate(v).norm(dim=-1), v.norm(dim=-1))
    torch.testing.assert_close(basis.rotate(v[1, 2]), basis.rotate(v)[1, 2])


def test_the_decoupled_basis_diagonalises_every_product(binary):
    problem = binary.problem
    U = dense(BASES["decoupled"](problem), problem.theta.numel())
    place = 0
    for own in kronecker_factors(problem):
        for block in (torch.kron(own.outputs, own.inputs), own.outputs):
            inside = slice(place, place + len(block))
            rotated = U[inside, inside].T @ block @ U[inside, inside]
            torch.testing.assert_close(rotated, torch.diag(rotated.diagonal()))
            place += len(block)
    assert place == len(U)


def test_a_layer_norm_keeps_the_unit_vectors(several):
    problem = several.problem
    basis = BASES["decoupled"](problem)
    rotated = problem.unflatten(basis.rotate(torch.ones_like(problem.theta)))
    assert (rotated["3.weight"] == 1).all()
    assert not torch.allclose(rotated["4.weight"], torch.ones(3, 9))


def test_the_exact_basis_diagonalises_every_block(binary):
    problem = binary.problem
    U = dense(BASES["exact"](problem), problem.theta.numel())
    H = lg.Hessian(problem).dense()
    place = 0
    for shape in problem.network.shapes:
        inside = slice(place, place + shape.numel())
        rotated = U[inside, inside].T @ H[inside, inside] @ U[inside, inside]
        torch.testing.assert_close(rotated, torch.diag(rotated.diagonal()), atol=1e-9, rtol=0)
        place += shape.numel()


def test_the_exact_basis_is_for_small_parameters():
    problem = lg.Problem(
        nn.Linear(4097, 1), "squared_error", [(torch.ones(2, 4097), torch.ones(2, 1))]
    )
    with pytest.raises(
        ValueError, match=r"at most 4096 numbers.* weight has 4097; basis='decoupled'"
    ):
        BASES["exact"](problem)


@pytest.mark.quick
def test_samples_have_the_covariance_that_is_said():
    left, _ = torch.linalg.qr(torch.randn(2, 2))
    right, _ = torch.linalg.qr(torch.randn(3, 3))
    basis = Basis((Block(1), Block(6, left, right), Block(1)))
    posterior = Posterior(torch.arange(8.0), torch.linspace(-1, 1, 8), basis)
    drawn = posterior.sample(100_000, seed=3)
    U = torch.block_diag(torch.ones(1, 1), torch.kron(left, right), torch.ones(1, 1))
    covariance = U @ torch.diag((2 * posterior.log_std).exp()) @ U.T
    assert (drawn.mean(0) - posterior.mean).abs().max() < 0.04
    assert (drawn.T.cov() - covariance).abs().max() < 0.15
    assert torch.equal(posterior.sample(4, seed=3)[0], drawn[0])


@pytest.mark.parametrize("name", ["standard", "decoupled"])
def test_training_is_that_of_autograd_and_torch(name, binary, monkeypatch):
    monkeypatch.setattr(_training, "LEAST_STD", 0.0)
    problem = binary.problem
    prior = nn.utils.parameters_to_vector(binary.initial.parameters()).detach()
    settings = {"delta": 0.025, "b": 0.1, "p": 100.0}
    basis = BASES[name](problem)
    epochs = []
    complexity, training = Complexity(300, **settings), Training(4, 0.05, 0, 0, epochs.append)
    found, log_variance, history = trained(problem, prior, lambda _: basis, complexity, training)
    mean, log_std, log_prior_std = plain.posterior(
        binary.model, prior, binary.batches, binary.loss, dense(basis, len(prior)),
        epochs=4, lr=0.05, **settings,
    )  # fmt: skip
    torch.testing.assert_close(found.mean, mean, atol=1e-7, rtol=1e-7)
    torch.testing.assert_close(found.log_std, log_std, atol=1e-7, rtol=1e-7)
    assert log_variance / 2 == pytest.approx(log_prior_std, abs=1e-7)
    assert tuple(epochs) == history
    assert [epoch.epoch for epoch in epochs] == [1, 2, 3, 4]


def test_the_variance_of_the_prior_stays_on_the_grid(binary):
    prior = binary.problem.theta + 30
    complexity = Complexity(300, delta=0.025, b=0.1, p=100.0)
    training = Training(3, 2.0, 0, 0, lambda _: None)
    _, log_variance, history = trained(
        binary.problem, prior, BASES["standard"], complexity, training
    )
    assert log_variance == pytest.approx(complexity.largest)
    assert all(epoch.kl > 0 for epoch in history)


@pytest.mark.parametrize(("every", "computed"), [(0, 1), (1, 5), (2, 3)])
def test_how_often_the_basis_is_computed(every, computed, binary):
    thetas = []

    def basis_at(theta):
        thetas.append(theta.clone())
        return Basis()

    complexity = Complexity(300, delta=0.025, b=0.1, p=100.0)
    trained(binary.problem, 0 * binary.problem.theta, basis_at, complexity,
            Training(5, 0.01, every, 0, lambda _: None))  # fmt: skip
    assert len(thetas) == computed
    assert torch.equal(thetas[0], binary.problem.theta)
    assert len({theta[0].item() for theta in thetas}) == computed


def test_training_begins_on_the_grid(binary):
    """Also where the grid ends below the usual start."""
    complexity = Complexity(300, delta=0.025, b=1e-4, p=10.0)
    training = Training(1, 1e-9, 0, 0, lambda _: None)
    _, log_variance, _ = trained(binary.problem, 0 * binary.problem.theta, BASES["standard"],
                                 complexity, training)  # fmt: skip
    assert log_variance == pytest.approx(complexity.largest, abs=1e-6)
