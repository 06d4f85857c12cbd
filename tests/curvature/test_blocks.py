"""Blocks by parameter name."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.curvature import parameter_blocks


def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    return lg.Problem(model, "cross_entropy", [(torch.randn(6, 3), torch.tensor([0, 1] * 3))])


@pytest.mark.quick
def test_blocks_are_by_layer_unless_patterns_say_otherwise():
    blocks = parameter_blocks(problem())
    assert {name: len(inside) for name, inside in blocks.items()} == {"0": 16, "2": 10}
    blocks = parameter_blocks(problem(), ["*.weight", "*.bias"])
    assert {name: len(inside) for name, inside in blocks.items()} == {"*.weight": 20, "*.bias": 6}


def test_a_block_is_a_part_of_the_matrix():
    H = lg.Hessian(problem())
    dense = H.dense()
    torch.testing.assert_close(lg.block(H, "2.*").dense(), dense[16:, 16:])
    corner = lg.block(H, "0.weight", "2.bias")
    assert corner.shape == (12, 2)
    torch.testing.assert_close(corner.dense(), dense[:12, 24:])
    torch.testing.assert_close(corner.T.dense(), dense[:12, 24:].T)
    own = lg.Hessian(problem().with_parameters("2.*"))
    torch.testing.assert_close(own.dense(), dense[16:, 16:])


def test_off_block_mass():
    H = lg.Hessian(problem())
    dense = H.dense()
    off = dense.clone()
    off[:16, :16] = off[16:, 16:] = 0
    expected = (off.square().sum() / dense.square().sum()).item()
    exact = lg.off_block_mass(H, probes=30)
    assert exact.value == pytest.approx(expected)
    assert exact.stderr == 0
    assert exact.matvecs == 26
    assert lg.off_block_mass(H, ["*"]).value == 0


def test_off_block_mass_of_random_probes_is_honest():
    """200 seeds of 10 probes: their mean within 4 standard errors, their errors as stated."""
    H = lg.Hessian(problem())
    dense = H.dense()
    off = dense.clone()
    off[:16, :16] = off[16:, 16:] = 0
    expected = (off.square().sum() / dense.square().sum()).item()
    found = [lg.off_block_mass(H, probes=10, seed=seed) for seed in range(60)]
    values = torch.tensor([estimate.value for estimate in found])
    stated = torch.tensor([estimate.stderr for estimate in found]).square().mean().sqrt()
    assert abs(values.mean() - expected) < 4 * values.std() / 60**0.5 + 0.02 * expected
    assert 0.5 < stated / values.std() < 2
    assert abs(values.mean() - 2 * expected) > 4 * values.std() / 60**0.5  # negative control


def test_errors(unchecked):
    H = lg.Hessian(problem())
    with pytest.raises(ValueError, match=r"exactly one of \['0\.\*'\], but 2\.weight matches 0"):
        lg.BlockDiagonal(H, ["0.*"])
    with pytest.raises(ValueError, match=r"but 0\.weight matches 2"):
        lg.BlockDiagonal(H, ["*", "0.weight"])
    with pytest.raises(ValueError, match=r"it matches none; there are 0\.weight, 0\.bias"):
        lg.block(H, "3.*")
    with pytest.raises(ValueError, match="expected probes of at least 2, got 1"):
        lg.off_block_mass(H, probes=1)
    with pytest.raises(TypeError, match=r"such as Hessian\(problem\), got NTK"):
        lg.off_block_mass(lg.NTK(problem()))
    assert lg.off_block_mass(H, "*").value == 0


def test_probes_that_agree_do_not_make_a_share_exact():
    """Two probes see no more than the signs of this matrix's only entry off the blocks."""

    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = (nn.Parameter(torch.zeros(20, dtype=torch.float64)) for _ in "ab")

        def forward(self, x):
            return (self.a[0] * self.b[0] + self.a[0] ** 2 + self.b[1] * self.b[2]) * x

    data = [(torch.ones(1, 1).double(), torch.zeros(1))]
    H = lg.Hessian(lg.Problem(Product(), lambda out, batch: (out.sum(), 1), data))
    dense = H.dense()
    off = dense.clone()
    off[:20, :20] = off[20:, 20:] = 0
    truth = (off.square().sum() / dense.square().sum()).item()
    for seed in range(20):
        found = lg.off_block_mass(H, ["a", "b"], probes=2, seed=seed)
        assert abs(found.value - truth) <= 64 * found.stderr  # t, one degree of freedom, 99 %
        assert found.stderr <= 1
    assert lg.off_block_mass(H, ["*"], probes=2).stderr == 0  # one block: nothing is off it
