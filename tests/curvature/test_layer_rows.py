"""Rows of layers beside dense blocks, and models that have none."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.curvature import layer_rows, left_out
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
    return {layer: total / problem.reduced([(0.0, terms)])[1] for layer, total in sums.items()}


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


# Layers that are used in other ways


class Net(nn.Module):
    """A layer, and a head; what is in between is a function of the layer and its input."""

    def __init__(self, function, layer=None):
        super().__init__()
        self.layer = nn.Linear(4, 4) if layer is None else layer
        self.head = nn.Linear(4, 3)
        self.function = function

    def forward(self, x):
        return self.head(self.function(self.layer, x))


def problem_of(model, *shape, examples=4):
    data = [(torch.randn(n, *shape).double(), torch.zeros(n).long()) for n in (examples, 2)]
    return lg.Problem(model.double(), "cross_entropy", data)


class Shared(nn.Module):
    """Two layers with the same parameters."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias

    def forward(self, x):
        return self.head(self.second(self.first(x).tanh()))


RIGHT = {
    "called twice": lambda: (Net(lambda f, x: f(f(x).tanh())), (4,)),
    "called on two lengths": lambda: (Net(lambda f, x: f(f(x).tanh().mean(1))), (3, 4)),
    "shared": lambda: (Shared(), (4,)),
    "flattened": lambda: (Net(lambda f, x: f(x.flatten(0, 1)).view(x.shape).sum(1)), (3, 4)),
    "by keyword": lambda: (Net(lambda f, x: f(input=x).tanh()), (4,)),
    "output changed": lambda: (Net(lambda f, x: f(x).add_(1).tanh_()), (4,)),
    "without an effect": lambda: (Net(lambda f, x: f(x).sign()), (4,)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_layers_that_are_used_in_other_ways(name):
    """Several calls, and modules with the same parameters, have the positions of all calls."""
    model, shape = RIGHT[name]()
    problem = problem_of(model, *shape)
    found = blocks_of(problem, bias=True)
    assert [parameter for layer in found for parameter in layer.parameters] == list(
        problem.network.names
    )
    for layer, block in found.items():
        expected = lg.GaussNewton(problem.with_parameters(list(layer.parameters))).dense()
        torch.testing.assert_close(block, expected)
    assert not left_out(problem)
    assert not problem.notes


LEFT_OUT = {
    "not called with rows of the examples": lambda: (
        Net(lambda f, x: torch.stack([f(one) for one in x])),
        (4,),
    ),
    "its parameters act outside of its calls, too": lambda: (
        Net(lambda f, x: f(x) + x @ f.weight),
        (4,),
    ),
    "what it does for an example depends on others": lambda: (
        Net(lambda f, x: f(x.transpose(0, 1)).sum(0)),
        (4, 4),
    ),
    "Bilinear is neither linear nor a convolution": lambda: (
        Net(lambda f, x: f(x, x), nn.Bilinear(4, 4, 4)),
        (4,),
    ),
    "a convolution in groups": lambda: (
        Net(lambda f, x: f(x[..., None])[..., 0], nn.Conv1d(4, 4, 1, groups=2)),
        (4,),
    ),
    "its weight is held fixed, or made of others": lambda: (
        Net(lambda f, x: f(x), nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))),
        (4,),
    ),
}


@pytest.mark.parametrize("reason", LEFT_OUT)
def test_what_is_left_out_is_named(reason):
    model, shape = LEFT_OUT[reason]()
    problem = problem_of(model, *shape)
    found = lg.kronecker_factors(problem)
    assert [own.name for own in found] == ["head"]
    assert reason in left_out(problem)["layer"]
    assert any(reason in note and "(layer" in note for note in problem.notes)


def test_a_layer_that_is_not_called_and_convolutions_of_one_example():
    not_called = Net(lambda f, x: x @ f.weight)
    each = Net(lambda f, x: torch.stack([f(one[:, None])[:, 0] for one in x]), nn.Conv1d(4, 4, 1))
    for model in (not_called, each):
        assert left_out(problem_of(model, 4)) == {"layer": "not called with rows of the examples"}


@pytest.mark.parametrize("name", ["tied", "language_model"])
def test_a_model_without_such_layers(name, unchecked):
    with pytest.raises(ValueError, match="expected a model with linear layers or convolutions"):
        lg.kronecker_factors(BY_NAME[name].problem())


def test_reasons_are_said_once():
    model = mlp(4, 4, 4, 4, 4, 4, 3, norm=True)
    problem = problem_of(model, 4)
    lg.kronecker_factors(problem)
    said = "layer by layer: BatchNorm1d is neither linear nor a convolution (1, 4, 7, ...)"
    assert problem.notes[-1].endswith(said)


def test_a_layer_that_acts_in_some_batches_only():
    def sometimes(layer, x):
        return layer(x) if len(x) > 2 else x

    with pytest.raises(ValueError, match=r"the same layers .* batch 1 .* not called .* \(layer\)"):
        lg.kronecker_factors(problem_of(Net(sometimes), 4))


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
