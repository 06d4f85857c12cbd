"""Norms of each example's Jacobian in the parameters."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import lossgeom as lg
from lossgeom.smoothness import _parameter_function
from lossgeom.smoothness._parameter_function import parameter_function
from tests import reference
from tests.problems import CASES, mlp

BY_NAME = {case.name: case for case in CASES}
NAMES = ["ragged", "tied", "subset", "mapping", "conv", "language_model", "tokens", "own_loss"]


@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_differences_and_svd(name, unchecked):
    case = BY_NAME[name]
    J = reference.parameter_jacobian(case).reshape(len(case.targets), -1, len(case.problem().theta))
    expected = torch.linalg.matrix_norm(J, ord=2)
    for method in ("exact", "lanczos"):
        norms = lg.parameter_jacobian_norms(case.problem(), method=method, tol=1e-5)
        assert norms.method == method
        torch.testing.assert_close(norms.values, expected, rtol=1e-5, atol=1e-8)
    frobenius = lg.parameter_jacobian_norms(case.problem(), norm="frobenius", method="exact")
    torch.testing.assert_close(frobenius.values, J.flatten(1).norm(dim=1), rtol=1e-5, atol=1e-8)


class Outside(nn.Module):
    """Reads a weight outside of the calls of its layer, too."""

    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.linear(x))) + x[:, :3] @ self.linear.weight[:3, :3]


class Ignored(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


class Again(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.linear(torch.tanh(self.linear(x)))))


def doubled():
    model = mlp(4, 6, 3)
    model[0].register_forward_hook(lambda layer, args, z: 2 * z)
    return model


def without_bias():
    return nn.Sequential(nn.Linear(4, 6, bias=False), nn.Tanh(), nn.Linear(6, 3))


SETTINGS = [
    {"method": "exact"},
    {"method": "lanczos", "tol": 1e-6},
    {"norm": "frobenius", "method": "exact"},
]


@pytest.mark.parametrize(
    "outputs", ["logits", "softmax", lambda f, batch: f[:, :2] * batch[0][:, :1]]
)
@pytest.mark.parametrize(
    ("model", "batched"),
    [
        (mlp(4, 6, 5, 3, activation=nn.ReLU), True),
        (without_bias(), True),
        (Outside(), False),
        (Again(), False),
        (doubled(), False),
        (parametrizations.weight_norm(nn.Linear(4, 3)), False),
        (nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 3)), False),
        (
            nn.Sequential(nn.Linear(4, 3), nn.Unflatten(1, (3, 1)), nn.Linear(1, 2), nn.Flatten()),
            False,
        ),
    ],
    ids=["mlp", "no bias", "outside", "again", "hook", "weight norm", "layer norm", "positions"],
)
def test_norms_in_what_layers_put_out_are_those_in_their_weights(
    monkeypatch, unchecked, model, batched, outputs
):
    """Which they are only where nothing else is made of the weights."""
    generator = torch.Generator().manual_seed(0)
    xs = torch.randn(7, 4, generator=generator).double().split((5, 2))
    data = [(x, torch.zeros(len(x)).long()) for x in xs]
    problem = lg.Problem(model.double(), "cross_entropy", data)
    function = parameter_function(problem, "logits", problem.first_batch(), scaled=True)
    assert (function.others == 0) == batched
    found = [lg.parameter_jacobian_norms(problem, outputs, **setting) for setting in SETTINGS]
    monkeypatch.setattr(_parameter_function, "linear_layers", lambda problem: {})
    problem = lg.Problem(model.double(), "cross_entropy", data)
    for setting, actual in zip(SETTINGS, found, strict=True):
        expected = lg.parameter_jacobian_norms(problem, outputs, **setting).values
        torch.testing.assert_close(actual.values, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("pattern", ["0.*", "*.bias", "2.weight"])
def test_some_of_the_parameters(pattern):
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)).double()
    whole = lg.Problem(mlp(4, 6, 3).double(), "cross_entropy", [(x, torch.zeros(5).long())])
    problem = whole.with_parameters(pattern)
    J = lg.ParameterJacobian(problem).dense().unflatten(0, (5, 3))
    expected = torch.linalg.matrix_norm(J, ord=2)
    torch.testing.assert_close(lg.parameter_jacobian_norms(problem).values, expected)


def test_outputs_without_a_gradient():
    problem = lg.Problem(
        nn.Sequential(nn.Linear(3, 3), Ignored(3, 2)),
        lambda outputs, batch: (outputs.sum(), len(outputs)),
        [(torch.randn(4, 3), torch.zeros(4))],
        check=False,
    )
    assert lg.parameter_jacobian_norms(problem).values.tolist() == [0.0] * 4


def test_is_the_diagonal_of_the_tangent_kernel():
    case = BY_NAME["ragged"]
    kernel = lg.NTK(case.problem()).dense().reshape(9, 3, 9, 3)
    blocks = torch.stack([kernel[i, :, i] for i in range(9)])
    norms = lg.parameter_jacobian_norms(case.problem())
    torch.testing.assert_close(norms.values.square(), torch.linalg.eigvalsh(blocks)[:, -1])
    trace = blocks.diagonal(dim1=1, dim2=2).sum(1)
    frobenius = lg.parameter_jacobian_norms(case.problem(), norm="frobenius")
    torch.testing.assert_close(frobenius.values.square(), trace)


@pytest.mark.quick
def test_linear_model_in_closed_form():
    """J is x beside every output: its norm is that of x, and sqrt(C) times it."""
    x = torch.randn(4, 5)
    model = nn.Linear(5, 3, bias=False)
    problem = lg.Problem(model, "cross_entropy", [(x, torch.zeros(4).long())])
    norms = lg.parameter_jacobian_norms(problem).values.float()
    torch.testing.assert_close(norms, x.norm(dim=1))
    frobenius = lg.parameter_jacobian_norms(problem, norm="frobenius").values.float()
    torch.testing.assert_close(frobenius, x.norm(dim=1) * 3**0.5)
    softmax = lg.parameter_jacobian_norms(problem, "softmax").values.float()
    p = model(x).detach().softmax(1)
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    torch.testing.assert_close(softmax, torch.linalg.matrix_norm(A, ord=2) * x.norm(dim=1))


def test_batchnorm_is_measured_in_eval_mode():
    case = BY_NAME["batchnorm_train"]
    expected = lg.parameter_jacobian_norms(case.problem().in_mode("eval"))
    assert torch.equal(lg.parameter_jacobian_norms(case.problem()).values, expected.values)


def test_examples_that_depend_on_each_other_are_refused():
    class Mixing(nn.Linear):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    problem = lg.Problem(
        Mixing(3, 2), "cross_entropy", [(torch.randn(4, 3), torch.zeros(4).long())]
    )
    with pytest.raises(ValueError, match="depend on other examples"):
        lg.parameter_jacobian_norms(problem)


def test_leaves_no_trace(unchecked):
    case = BY_NAME["conv"]
    before = reference.fingerprint(case.model)
    lg.parameter_jacobian_norms(case.problem())
    assert reference.fingerprint(case.model) == before
