"""Overlaps and energies against closed forms and plain loops."""

import pytest
import torch

import lossgeom as lg

pytestmark = pytest.mark.quick


def orthonormal(n, k, seed=0):
    normal = torch.randn(n, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.linalg.qr(normal)[0]


def test_overlap_is_that_of_projections():
    U, V = orthonormal(12, 5), orthonormal(12, 5, seed=1)
    overlap = lg.eigenspace_overlap(U, V)
    for j in range(1, 6):
        P, Q = U[:, :j] @ U[:, :j].T, V[:, :j] @ V[:, :j].T
        assert overlap[j - 1].item() == pytest.approx((P @ Q).trace().item() / j)


def test_overlap_of_the_same_space():
    U = orthonormal(12, 4)
    turned = U @ orthonormal(4, 4, seed=1)
    assert lg.eigenspace_overlap(U, turned)[-1].item() == pytest.approx(1)


def test_known_overlap():
    """Two examples whose Hessian and Kronecker product are known to all digits."""
    xs = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    Ms = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]]], dtype=torch.float64)
    H = sum(torch.kron(M, torch.outer(x, x)) for M, x in zip(Ms, xs, strict=True)) / 2
    K = lg.KroneckerProduct(Ms.mean(0), xs.T @ xs / 2)
    values, vectors = torch.linalg.eigh(H)
    torch.testing.assert_close(
        values, torch.tensor([0.0, 0.263583, 0.768701, 2.467716]).double(), rtol=0, atol=1e-6
    )
    found = K.top_eigenpairs(4)
    expected = torch.tensor([2.368034, 0.904508, 0.345492, 0.131966]).double()
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-6)
    overlap = lg.eigenspace_overlap(vectors.flip(1), found.vectors)
    expected = torch.tensor([0.977461, 0.828046]).double()
    torch.testing.assert_close(overlap[:2], expected, rtol=0, atol=1e-6)
    assert ((H - K.dense()).norm() / H.norm()).item() == pytest.approx(0.288675, abs=1e-6)


def test_random_spaces_have_the_random_overlap():
    overlaps = torch.stack(
        [
            lg.eigenspace_overlap(orthonormal(20, 6, s), orthonormal(20, 6, s + 500))
            for s in range(200)
        ]
    )
    error = overlaps.std(0) / 200**0.5
    assert ((overlaps.mean(0) - lg.random_overlap(6, 20)).abs() < 4 * error).all()


def test_rank_one_energy():
    u, x = orthonormal(3, 1)[:, 0], orthonormal(5, 1)[:, 0]
    other = torch.eye(3, 5, dtype=torch.float64).flatten()
    V = torch.stack([torch.outer(u, x).flatten(), other], 1)
    torch.testing.assert_close(lg.rank_one_energy(V, (3, 5)), torch.tensor([1, 1 / 3]).double())
    assert lg.rank_one_energy(other, (3, 5)).item() == pytest.approx(1 / 3)


def test_energy_along_a_direction():
    V, x = orthonormal(15, 4), torch.arange(5.0)
    expected = [((v.reshape(3, 5) @ x.double()).norm() / x.norm()) ** 2 for v in V.T]
    torch.testing.assert_close(lg.energy_along(V, x), torch.stack(expected))


def test_correspondence_maps():
    V, left, right = orthonormal(15, 4), orthonormal(3, 3), orthonormal(5, 5)
    outputs, inputs = lg.correspondence_maps(V, left, right)
    assert outputs.shape == (4, 3)
    assert inputs.shape == (4, 5)
    for i, v in enumerate(V.T):
        matrix = v.reshape(3, 5)
        torch.testing.assert_close(outputs[i], (left.T @ matrix).norm(dim=1) ** 2)
        torch.testing.assert_close(inputs[i], (matrix @ right).norm(dim=0) ** 2)
    torch.testing.assert_close(outputs.sum(1), torch.ones(4).double())
    torch.testing.assert_close(inputs.sum(1), torch.ones(4).double())


@pytest.mark.usefixtures("unchecked")
def test_refuses_sets_of_two_shapes():
    with pytest.raises(ValueError, match="expected as many vectors of one size"):
        lg.eigenspace_overlap(torch.eye(3), torch.eye(4)[:, :3])


@pytest.mark.usefixtures("unchecked")
def test_refuses_other_shapes():
    with pytest.raises(ValueError, match="as columns of matrices"):
        lg.eigenspace_overlap(torch.ones(3), torch.ones(3))
    with pytest.raises(ValueError, match=r"expected spaces of 1 <= k <= n = 3 dimensions, got k=5"):
        lg.random_overlap(5, 3)
    with pytest.raises(ValueError, match="expected vectors of m x n = 2 x 3 numbers, got 5"):
        lg.rank_one_energy(torch.ones(5), (2, 3))
    with pytest.raises(ValueError, match="expected vectors of m x n = 2 x 2 numbers, got 5"):
        lg.energy_along(torch.ones(5), torch.ones(2))
    with pytest.raises(ValueError, match=r"expected a direction of shape \(n,\), got \(2, 2\)"):
        lg.energy_along(torch.ones(4), torch.ones(2, 2))
    with pytest.raises(ValueError, match="expected vectors as columns of a matrix"):
        lg.correspondence_maps(torch.ones(4), torch.eye(2), torch.eye(2))
