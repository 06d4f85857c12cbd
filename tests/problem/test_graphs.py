"""Counting what graphs save decides what is kept, and never what can be measured."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.losses.graphs import with_bytes

pytestmark = pytest.mark.usefixtures("unchecked")


class Words(nn.Module):
    """A bag of words, whose counts are a dense or a sparse matrix."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight, self.out = nn.Parameter(0.5 * torch.randn(4, 5)), nn.Linear(5, 3)

    def forward(self, counts):
        dense = counts.layout == torch.strided
        hidden = counts @ self.weight if dense else torch.sparse.mm(counts, self.weight)
        return self.out(torch.tanh(hidden))


def counts():
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    return x * (x > 0), torch.arange(12) % 3


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
@pytest.mark.parametrize("sizes", [[12], [7, 5]])
def test_sparse_inputs(layout, sizes):
    x, y = counts()
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))
    sparse = [(part.to_sparse(layout=layout), labels) for part, labels in parts]
    theirs, ours = (lg.Problem(Words(), "cross_entropy", b) for b in (parts, sparse))
    assert ours.loss() == pytest.approx(theirs.loss(), rel=1e-6)
    for matrix in (lg.Hessian, lg.GaussNewton):
        torch.testing.assert_close(matrix(ours).dense(), matrix(theirs).dense())
    assert lg.sharpness(ours).value == pytest.approx(lg.sharpness(theirs).value, rel=1e-4)
    assert ours.take(5).loss() == pytest.approx(theirs.take(5).loss(), rel=1e-6)


@pytest.mark.quick
def test_bytes_of_sparse_tensors_are_those_of_their_parts():
    x = counts()[0].to_sparse()
    weight = torch.ones(4, 5, requires_grad=True)
    _, storages = with_bytes(lambda: torch.sparse.mm(x, weight))
    assert sum(storages.values()) >= x.indices().nbytes + x.values().nbytes


def test_bytes_under_transforms_are_no_fewer():
    """Where hooks cannot count, all that is computed counts."""
    weight, x = torch.randn(5, 5, requires_grad=True), torch.randn(64, 5)

    def plain():
        return torch.tanh(x @ weight).sin().sum()

    def transformed():
        return torch.func.vmap(lambda row: torch.func.grad(lambda z: z.sin().sum())(row))(
            plain()[None]
        )

    (_, saved), (result, all_results) = with_bytes(plain), with_bytes(transformed)
    assert result.requires_grad
    assert sum(all_results.values()) >= sum(saved.values()) - x.nbytes - weight.nbytes


def test_other_errors_come_through():
    def failing():
        raise RuntimeError("of the model")

    with pytest.raises(RuntimeError, match="of the model"):
        with_bytes(failing)
