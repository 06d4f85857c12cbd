"""What a model and its loss may be computed from besides theta."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg

pytestmark = pytest.mark.usefixtures("unchecked")


def data(n=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def penalty(model):
    return 0.5 * sum(p.square().sum() for p in model.parameters())


MEASURES = (lg.Problem.loss, lg.Problem.gradient, lg.sharpness, lg.jacobian_norms)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("options", [{}, {"parameters": "2.*"}, {"mode": "train"}])
def test_a_loss_of_the_users_own_parameters_is_refused(options, measure):
    model = mlp()

    def loss(outputs, batch):
        total = F.cross_entropy(outputs, batch[1], reduction="sum")
        return total + len(outputs) * penalty(model), len(outputs)

    problem = lg.Problem(model, loss, [data()], **options)
    for _ in range(2):  # and not only the first time
        with pytest.raises(ValueError, match=r"the loss uses parameters of your own model \(0\.we"):
            measure(problem)


def test_also_where_the_loss_holds_them_as_a_module():
    model = mlp()

    class Tied(nn.Module):
        """A criterion that has the weight of the last layer as its centres."""

        def __init__(self):
            super().__init__()
            self.centres = model[2].weight

        def forward(self, outputs, batch):
            return (outputs @ self.centres).square().sum(), len(outputs)

    tied = Tied()
    problem = lg.Problem(model, lambda outputs, batch: tied(outputs, batch), [data()])
    with pytest.raises(ValueError, match=r"parameters of your own model \(2\.weight\).*forward="):
        lg.sharpness(problem)


def test_what_the_message_says_is_right():
    """The penalty of the model that forward= is given adds one to every eigenvalue."""
    model, batch = mlp(), data()

    def forward(m, batch):
        return F.cross_entropy(m(batch[0]), batch[1]).reshape(1) + penalty(m)

    def loss(outputs, batch):
        return outputs[0] * len(batch[0]), len(batch[0])

    with_penalty = lg.sharpness(lg.Problem(model, loss, [batch], forward=forward)).value
    assert with_penalty == pytest.approx(
        lg.sharpness(lg.Problem(model, "cross_entropy", [batch])).value + 1, rel=1e-5
    )


def test_parameters_of_the_loss_are_held_fixed_with_a_note():
    torch.manual_seed(1)
    scale = nn.Linear(3, 3)

    def loss(outputs, batch):
        return F.cross_entropy(scale(outputs), batch[1], reduction="sum"), len(outputs)

    problem = lg.Problem(mlp(), loss, [data()])
    found = lg.sharpness(problem).value
    assert problem.notes == ("parameters of the loss held fixed: 12 numbers",)
    frozen = copy.deepcopy(scale).requires_grad_(False)
    same = lg.Problem(
        mlp(),
        lambda o, b: (F.cross_entropy(frozen(o), b[1], reduction="sum"), len(o)),
        [data()],
    )
    assert lg.sharpness(same).value == pytest.approx(found, rel=1e-5)
    assert same.notes == ()


def test_a_loss_that_fails_is_no_obstacle_to_what_needs_none():
    x, y = data()
    problem = lg.Problem(mlp(), "squared_error", [(x, y)])
    assert lg.jacobian_norms(problem).max > 0
    with pytest.raises(ValueError, match="squared_error compares outputs and targets"):
        problem.loss()


@pytest.mark.parametrize("function", [lambda m: m[2], lambda m: lambda x: m[2](x)])
def test_a_forward_that_uses_the_users_own_model_is_refused(function):
    model = mlp()
    head = function(model)
    problem = lg.Problem(
        model, "cross_entropy", [data()], forward=lambda m, batch: head(m[:2](batch[0]))
    )
    for measure in MEASURES:
        with pytest.raises(
            ValueError, match=r"2\.weight, 2\.bias of your own model: use the model"
        ):
            measure(problem)


# Leaves that the model makes for itself


def laplacian(net, x):
    du = torch.autograd.grad(net(x).sum(), x, create_graph=True)[0]
    return torch.autograd.grad(du.sum(), x, create_graph=True)[0] + net(x)


class Residual(nn.Module):
    """u'' + u in coordinates that are made a leaf in the forward pass."""

    def __init__(self, leaf):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.leaf = leaf

    def forward(self, x):
        return laplacian(self.net, self.leaf(x))


class ByTransforms(Residual):
    """The same by torch.func."""

    def forward(self, x):
        second = torch.func.hessian(lambda z: self.net(z[None])[0, 0])
        return torch.func.vmap(second)(x).reshape(-1, 1) + self.net(x)


def curvature_by_differences(model, x, f):
    model = copy.deepcopy(model).double()
    parameters = list(model.parameters())
    theta = nn.utils.parameters_to_vector(parameters).detach()

    def gradient(at):
        nn.utils.vector_to_parameters(at, parameters)
        loss = 0.5 * (laplacian(model.net, x.double().requires_grad_()) - f).square().mean()
        found = torch.autograd.grad(loss, parameters, materialize_grads=True)
        return nn.utils.parameters_to_vector(found)

    steps = 1e-5 * torch.eye(len(theta), dtype=theta.dtype)
    H = torch.stack([(gradient(theta + s) - gradient(theta - s)) / 2e-5 for s in steps])
    return torch.linalg.eigvalsh((H + H.T) / 2)[-1].item()


@pytest.mark.parametrize(
    "model",
    [
        Residual(lambda x: x.detach().requires_grad_()),
        Residual(lambda x: x.clone().requires_grad_()),
        Residual(lambda x: x.requires_grad_()),  # in place, on what the batch holds
        ByTransforms(None),
    ],
    ids=["detached", "cloned", "in place", "torch.func"],
)
def test_derivatives_in_coordinates(model):
    x = torch.linspace(0, 3, 12)[:, None]
    problem = lg.Problem(model, "squared_error", [(x, x.sin())])
    expected = curvature_by_differences(model, x, x.double().sin())
    assert lg.sharpness(problem).value == pytest.approx(expected, rel=1e-5)
    assert (lg.GaussNewton(problem) @ torch.ones(25)).norm() > 0
    residual = model(x.clone()) - x.sin()  # without gradients, too, where none are asked for
    assert problem.loss() == pytest.approx(0.5 * residual.square().mean().item(), rel=1e-5)
    assert not x.requires_grad


class Remembering(nn.Module):
    """Computes its weight in the first call, and never again."""

    def __init__(self):
        super().__init__()
        self.root, self.weight = nn.Parameter(torch.ones(4, 3)), None

    def forward(self, x):
        if self.weight is None:
            self.weight = self.root.square()
        return x @ self.weight


def test_a_weight_of_an_earlier_call_is_refused():
    """Two calls agree, but the second one has the graph of the first."""
    with pytest.raises(ValueError, match="remove what it keeps from call to call"):
        lg.Problem(Remembering(), "cross_entropy", [data()]).loss()
