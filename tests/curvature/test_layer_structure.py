"""The structure of layers against dense blocks, with centred inputs as the control."""

import math

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.curvature import outliers


def trained(centred, hidden=()):
    """A net on four classes of points with a large mean, or without it."""
    torch.manual_seed(0)
    y = torch.arange(120) % 4
    x = (torch.eye(4, 12)[y] + 0.3 * torch.randn(120, 12)).double() + 2
    x = x - x.mean(0) if centred else x
    model = nn.Sequential(nn.Linear(12, 8), *hidden, nn.ReLU(), nn.Linear(8, 4)).double()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return lg.Problem(model, "cross_entropy", [(x, y)])


@pytest.fixture(scope="module")
def problem():
    return trained(centred=False)


def test_overlap_energies_and_maps_are_those_of_dense_matrices(problem):
    (first, last) = lg.layer_structure(problem, 5, tol=1e-6, errors=False)
    for layer in (first, last):
        H = lg.Hessian(problem.with_parameters(f"{layer.name}.weight")).dense()
        K = torch.kron(layer.factors.outputs, layer.factors.inputs)
        (values, V), (_, U) = (torch.linalg.eigh(A) for A in (H, K))
        V, U = V.flip(1)[:, :5], U.flip(1)[:, :5]
        overlap = [float((V[:, :j].T @ U[:, :j]).square().sum() / j) for j in range(1, 6)]
        torch.testing.assert_close(layer.overlap, torch.tensor(overlap).double(), atol=1e-4, rtol=0)
        m, n = layer.shape
        torch.testing.assert_close(layer.baseline, torch.arange(1, 6).double() / (m * n))
        matrices = V.T.reshape(5, m, n)
        singular = torch.linalg.svdvals(matrices)
        torch.testing.assert_close(layer.rank_one_energy, singular[:, 0] ** 2, atol=1e-4, rtol=0)
        mean = layer.factors.mean_input / layer.factors.mean_input.norm()
        along = (matrices @ mean).square().sum(1)
        torch.testing.assert_close(layer.mean_input_energy, along, atol=1e-4, rtol=0)
        outputs, inputs = layer.maps
        factors = layer.factors.outputs, layer.factors.inputs
        left, right = (torch.linalg.eigh(factor)[1].flip(1) for factor in factors)
        expected = (left.T @ matrices).square().sum(2)
        torch.testing.assert_close(outputs, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(inputs, (matrices @ right).square().sum(1), atol=1e-4, rtol=0)
        torch.testing.assert_close(layer.eigenpairs.values, values.flip(0)[:5], rtol=1e-6, atol=0)
        assert layer.outliers == outliers(layer.eigenpairs.values)


def test_a_mean_input_makes_the_structure_and_centring_destroys_it(problem):
    with_mean, centred = (
        lg.layer_structure(p, 3, errors=False)[0] for p in (problem, trained(True))
    )
    assert with_mean.input_ratio > 20 > 4 > centred.input_ratio
    assert with_mean.mean_alignment > 0.999
    assert with_mean.overlap[0] > 0.95
    assert with_mean.mean_input_energy[0] > 0.9 > 0.5 > centred.mean_input_energy[0]
    assert with_mean.rank_one_energy[0] > 0.95


def test_batch_norm_is_measured_through_and_left_out():
    problem = trained(centred=False, hidden=(nn.BatchNorm1d(8),))
    assert [layer.name for layer in lg.layer_structure(problem, 2, errors=False)] == ["0", "3"]
    assert any("BatchNorm1d is neither linear nor a convolution" in n for n in problem.notes)


def test_errors_are_those_of_all_kronecker_products(problem):
    first, _ = lg.layer_structure(problem, 2)
    table = lg.kronecker_errors(problem).layers[0]
    assert first.errors.errors["best"].value == table.errors["best"].value
    assert first.errors.errors["decoupling"].value >= first.errors.errors["best"].value


def test_it_prints_as_a_table(problem):
    layers = lg.layer_structure(problem, 3, errors=False)
    headings, first, last = str(layers).splitlines()
    assert repr(layers) == str(layers)
    assert headings.split("  ")[0] == "layer"
    assert "overlap of 1  of 3" in headings
    assert first.startswith(f"0      8 x 12  {layers[0].outliers.count} of 3")
    assert last.split()[-1] == f"{layers[1].input_ratio:.3g}"


@pytest.mark.usefixtures("unchecked")
def test_k_is_a_whole_number():
    problem = lg.Problem(nn.Linear(2, 1), "squared_error", [(torch.eye(2), torch.ones(2, 1))])
    with pytest.raises(TypeError, match=r"expected k to be a whole number, got 2\.5"):
        lg.layer_structure(problem, 2.5)


class Attending(nn.Module):
    """A parameter of its own, attention and a head."""

    def __init__(self):
        super().__init__()
        self.pos = nn.Parameter(torch.zeros(3, 4))
        self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = x + self.pos
        return self.head(self.attend(x, x, x, need_weights=False)[0].mean(1))


def test_attention_and_parameters_outside_of_layers_are_left_out_with_a_reason():
    data = [(torch.randn(4, 3, 4), torch.arange(4) % 2)]
    problem = lg.Problem(Attending(), "cross_entropy", data)
    assert [layer.name for layer in lg.layer_structure(problem, 1, errors=False)] == ["head"]
    said = [note for note in problem.notes if note.startswith("no part of what is measured")]
    assert said == [
        "no part of what is measured layer by layer: parameters of Attending itself, outside of "
        "its layers (model); MultiheadAttention uses its weights without calling layers; write its "
        "projections as nn.Linear (attend, attend.out_proj)"
    ]


@pytest.mark.parametrize(
    ("values", "count", "gap"),
    [
        ([8.0, 4.0, 1.0, 0.9], 2, 4.0),
        ([8.0, 4.0, 0.0, 0.0], 2, math.inf),
        ([8.0, 4.0, -1.0], 2, math.inf),
        ([0.0, 0.0], 1, 0.0),
    ],
)
def test_outliers_lie_before_the_largest_gap(values, count, gap):
    found = outliers(torch.tensor(values))
    assert (found.count, found.gap) == (count, gap)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_there_is_no_gap_where_an_eigenvalue_is_not_finite(value):
    found = outliers(torch.tensor([value, 2.0, 1.0]))
    assert found.count == 0
    assert math.isnan(found.gap)


def test_whole_numbers_have_a_gap():
    assert outliers(torch.tensor([8, 4, 1])).gap == 4


def test_a_single_eigenvalue_has_no_gap():
    with pytest.raises(ValueError, match="expected two eigenvalues or more, got 1"):
        outliers(torch.ones(1))
