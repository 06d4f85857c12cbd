"""Rows of layers beside dense blocks, and models that have none."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.curvature import layer_rows
from tests.problems import CASES, mlp
from tests.reference import fingerprint

BY_NAME = {case.name: case for case in CASES}


def blocks_of(problem, **settings):
    """The dense block of each layer, on the weight and then on a bias that is joined."""
    sums = {}

    def take(rows):
        G = torch.einsum("kbsm,bsn->kbmn", rows.gradients, rows.inputs).flatten(0, 1)
        if rows.joined:
            G = torch.cat([G[..., :-1].flatten(1), G[..., -1]], 1)
        G = G.flatten(1)
        sums[rows.layer] = sums.get(rows.layer, 0) + G.T @ G

    terms = layer_rows(problem, take, **settings)
    return {
        layer: total / problem.reduced(lambda _: [(0.0, terms)])[1] for layer, total in sums.items()
    }


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name not in ("tied", "language_model")], ids=repr
)
def test_rows_make_the_gauss_newton_blocks(case, unchecked):
    problem = case.problem()
    for layer, found in blocks_of(problem, bias=True).items():
        expected = lg.GaussNewton(problem.with_parameters(list(layer.parameters))).dense()
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9 * scale + 1e-15)


def test_rows_make_the_hessian_of_a_piecewise_linear_net():
    """E[M (x) x x^T] is torch's Hessian of torch's loss, to 1e-10."""
    model = mlp(6, 5, 4, 3, activation=nn.ReLU).double()
    x, y = torch.randn(11, 6).double(), torch.randint(3, (11,))
    problem = lg.Problem(model, "cross_entropy", [(x[:7], y[:7]), (x[7:], y[7:])])
    for layer, found in blocks_of(problem).items():
        (name,) = layer.parameters[:1]
        weight = model.get_parameter(name)

        def loss(flat, name=name, weight=weight):
            own = {name: flat.view_as(weight)}
            return nn.functional.cross_entropy(torch.func.functional_call(model, own, x), y)

        expected = torch.autograd.functional.hessian(loss, weight.detach().flatten())
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["ragged", "tokens", "mse", "attention", "own_loss", "conv"])
def test_rows_make_the_empirical_fisher(name, unchecked):
    problem = BY_NAME[name].problem()
    for layer, found in blocks_of(problem, curvature="empirical").items():
        own = problem.with_parameters(layer.parameters[0])
        torch.testing.assert_close(found, lg.EmpiricalFisher(own).dense())


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(2, 3, 2, padding="same", dilation=2), (5, 5)),
        (nn.Conv2d(2, 3, (2, 1), padding=(1, 0), stride=(1, 2)), (4, 4)),
        (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (4, 3)),
        (nn.Conv2d(2, 3, 3, padding=2, padding_mode="circular", bias=False), (3, 3)),
        (nn.Conv1d(2, 3, 2, padding=1, padding_mode="replicate"), (4,)),
        (nn.Conv3d(2, 3, 2, padding=1, dilation=2), (2, 3, 2)),
    ],
    ids=lambda part: str(part),
)
def test_convolutions(layer, shape):
    model = nn.Sequential(layer, nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    x = torch.randn(4, 2, *shape).double()
    model(x)
    problem = lg.Problem(model, "squared_error", [(x, torch.zeros(4, 2).double())])
    for own, found in blocks_of(problem, bias=True).items():
        expected = lg.GaussNewton(problem.with_parameters(list(own.parameters))).dense()
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["tied", "language_model"])
def test_a_model_without_such_layers(name, unchecked):
    with pytest.raises(ValueError, match="expected a model with linear layers or convolutions"):
        lg.kronecker_factors(BY_NAME[name].problem())


# Losses


def test_more_outputs_than_columns():
    model = nn.Linear(1, 2049)
    problem = lg.Problem(model, "squared_error", [(torch.ones(1, 1), torch.ones(1, 2049))])
    with pytest.raises(ValueError, match=r"each of the 2049 outputs .* curvature='sampled'"):
        lg.kronecker_factors(problem)
    assert lg.kronecker_factors(problem, curvature="sampled")[0].outputs.shape == (2049, 2049)


def test_a_loss_that_is_linear_in_the_outputs_is_noted(unchecked):
    data = [(torch.ones(2, 1), torch.full((2, 1), 9.0))]
    problem = lg.Problem(nn.Linear(1, 1), nn.L1Loss(), data)
    assert not lg.kronecker_factors(problem)[0].outputs.any()
    assert any("no curvature in the outputs" in note for note in problem.notes)


def test_one_output_without_a_dimension_of_its_own():
    model = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    data = [(torch.randn(5, 3), torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0]))]
    for settings, tolerance in (({}, 1e-5), ({"autocast": torch.bfloat16}, 0.02)):
        problem = lg.Problem(model, nn.BCEWithLogitsLoss(), data, **settings)
        (own,) = lg.kronecker_factors(problem)
        p = model(data[0][0]).sigmoid().detach()
        torch.testing.assert_close(
            own.outputs, (p * (1 - p)).mean()[None, None], rtol=tolerance, atol=0
        )


def test_losses_without_a_root_or_a_likelihood(unchecked):
    def bent(outputs, batch):
        return -outputs.square().sum(), len(outputs)

    problem = lg.Problem(nn.Linear(1, 1), bent, [(torch.ones(2, 1), torch.ones(2, 1))])
    with pytest.raises(ValueError, match="not convex in the outputs"):
        lg.kronecker_factors(problem)
    with pytest.raises(ValueError, match="negative logarithm of a known likelihood"):
        lg.kronecker_factors(problem, curvature="sampled")


# Nothing is left behind


def test_leaves_no_trace(unchecked):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3))
    problem = lg.Problem(model, "cross_entropy", [(torch.randn(4, 4), torch.zeros(4).long())])
    models = (model, problem.network.module)
    before = [fingerprint(each) for each in models]
    lg.kronecker_factors(problem, curvature="sampled", corrected=True)
    assert [fingerprint(each) for each in models] == before
