"""What certified bounds see of a model, and what they refuse."""

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as attend

import lossgeom as lg
from lossgeom.linalg.operator_norms import dense_norm
from lossgeom.lipschitz.certified.tracing import traced
from tests.smoothness.networks import jacobians, problem


@torch.fx.wrap
def tanh(x):
    """A function of the user's, named as one of torch's."""
    return 2 * x.tanh()


class Adding(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x))


class Attention(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, **settings)

    def forward(self, x):
        x = x[:, 0]
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            nn.Sequential(nn.Linear(6, 6), nn.LocalResponseNorm(2)),
            "no bound is known for LocalResponseNorm",
        ),
        (
            nn.InstanceNorm2d(2, track_running_stats=True),
            r"InstanceNorm2d \(0\) with the arguments",
        ),
        (Adding(lambda x: x.softmax(0)), "the method softmax with the arguments"),
        (Adding(lambda x: torch.ones(2, 6, 6) @ x), "the method matmul with the arguments"),
        (Adding(lambda x: x.flatten(1) @ x.flatten(1)), "function matmul with the arguments"),
        (Adding(lambda x: attend(x, x, x, dropout_p=0.1)), "product_attention with the arguments"),
        (Adding(lambda x: attend(x, x, torch.ones(2, 2, 6, 6))), "attention with the arguments"),
        (Attention(batch_first=False), r"MultiheadAttention \(0.attention\) with the arguments"),
        (Attention(batch_first=True, add_bias_kv=True), r"0.attention\) with the arguments"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), "setting of padding_mode"),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.AvgPool2d(4, ceil_mode=True)), "of ceil_mode"),
        (
            nn.Sequential(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2, 7, 1, dilation=7), nn.ReLU()),
            "that lie in the padding",
        ),
        (nn.Sequential(nn.Conv2d(2, 2, 1), nn.AdaptiveAvgPool2d(4)), "setting of output_size"),
        (nn.Sequential(nn.Linear(6, 2), nn.Softplus(threshold=1)), "a threshold of 20 or more"),
        (Adding(torch.sinh), "no bound is known for the function sinh"),
        (Adding(lambda x: x * x[:, 0]), "the function mul with the arguments"),
        (Adding(lambda x: x + torch.ones(2, 1, 1, 1)), "add with the arguments"),
        (Adding(lambda x: x + torch.ones(7)), "add with the arguments"),
        (Adding(lambda x: torch.add(x, x, alpha=2)), "add with the arguments"),
        (Adding(lambda x: torch.cat([x, torch.ones(2, 2, 6, 6)], 1)), "cat with the arguments"),
        (Adding(lambda x: x.log_softmax(1)), "no bound is known for the method log_softmax"),
        (Adding(lambda x: x.reshape(-1, 6)), "reshape with the arguments"),
        (Adding(lambda x: x if x.sum() > -1e9 else -x), "cannot be traced by torch.fx"),
        (Adding(lambda x: x + x[0]), "no bound is known for the function getitem"),
        (Adding(lambda x: tanh(x)), "no bound is known for the function tanh"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_what_is_refused(unchecked, model, text):
    if text.endswith(("arguments", "getitem")):
        module, x = model.eval().double(), torch.randn(2, 2, 6, 6).double()
        with pytest.raises(TypeError, match=text):
            traced(module, tuple(x.shape[1:]))
        return
    with pytest.raises(TypeError, match=text):
        lg.lipschitz_global(problem(model.eval(), torch.randn(2, 2, 6, 6)))


def test_hooks_that_change_outputs_are_refused():
    model = nn.Sequential(nn.Linear(6, 3), nn.Tanh())
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(TypeError, match="do not compute what the model does"):
        lg.lipschitz_local(problem(model, torch.randn(2, 6)), 0.1)


class Overwriting(nn.Module):
    """Linear with a large bias, so that at the data relu(x) is x."""

    def __init__(self, function):
        super().__init__()
        self.linear = nn.Linear(3, 3)
        nn.init.constant_(self.linear.bias, 100.0)
        self.drop = nn.Dropout()
        self.relu = nn.ReLU(inplace=True)
        self.function = function

    def forward(self, x):
        return self.function(self, self.linear(x))


def add_to_itself(model, x):
    return nn.functional.relu(x, inplace=True) + x


def subtract_from_itself(model, x):
    return nn.functional.relu(x, inplace=True) - x


def through_dropout(model, x):
    model.relu(model.drop(x))
    return x


def by_augmented_assignment(model, x):
    y = x
    y *= 3
    return x


def after_a_copy(model, x):
    model.relu(x.clone())
    return x


def after_another_copy(model, x):
    torch.clone(x).neg().tanh_()
    return x


def by_a_method(model, x):
    x.relu_()
    return x


def by_a_function(model, x):
    nn.functional.leaky_relu_(x, -1.0)
    return x


@pytest.mark.parametrize(
    ("function", "factor", "varies"),
    [
        (add_to_itself, 2, True),
        (subtract_from_itself, 0, False),
        (through_dropout, 1, True),
        (by_augmented_assignment, 3, False),
        (after_a_copy, 1, False),
        (after_another_copy, 1, False),
        (by_a_method, 1, True),
        (by_a_function, 1, True),
    ],
)
def test_work_in_place_is_followed(function, factor, varies):
    """Only the order of the work says what x is after it."""
    p = problem(Overwriting(function).double(), torch.randn(2, 3).double())
    model = p.network.module
    norm = dense_norm(model.linear.weight.detach()).item()
    assert lg.lipschitz_global(p) == pytest.approx(factor * norm, rel=1e-7, abs=1e-9)
    assert (lg.local_variation_upper(p, 1000.0) > 1e-9).all() == varies


def test_work_in_place_on_another_view_is_refused():
    def on_a_view(model, x):
        model.relu(x.unsqueeze(1))
        return x

    with pytest.raises(TypeError, match="of which it goes on to use another view"):
        lg.lipschitz_global(problem(Overwriting(on_a_view), torch.randn(2, 3)))


def test_models_are_compared_away_from_the_data():
    """A hook that is seen where a unit is inactive, as none is at the data."""
    model = Overwriting(lambda model, x: x)
    model.linear.register_forward_hook(lambda module, args, output: output.relu())
    with pytest.raises(TypeError, match="do not compute what the model does"):
        lg.lipschitz_global(problem(model, 1000 * torch.rand(200, 3) * model.linear.weight.sum(0)))


@pytest.mark.parametrize(
    ("function", "norm"),
    [
        (lambda x: x[:, 1], 1),
        (lambda x: x[:, :, [0, 0, 1]], 2**0.5),
        (lambda x: x.permute(0, 2, 1).flatten(1), 1),
        (lambda x: torch.cat([x, 2 * x], 1), 5**0.5),
        (lambda x: torch.cat(x.unbind(1)[:2], 1), 1),
        (lambda x: x.mean(1), 1 / 2),
        (lambda x: x.sum((1, 2), keepdim=True), 12**0.5),
        (lambda x: x.mean(2, keepdim=True), 1 / 3**0.5),
        (lambda x: x * torch.arange(3.0), 2),
        (lambda x: 1 - x / torch.tensor([[1.0], [0.5], [4.0], [2.0]]), 2),
    ],
)
def test_rearranging_and_constants_have_the_norms_of_their_matrices(function, norm):
    class Function(nn.Linear):
        def forward(self, x):
            return function(x)

    x = torch.randn(2, 4, 3).double()
    expected = torch.linalg.matrix_norm(jacobians(function, x), ord=2)
    bound = lg.lipschitz_local(problem(Function(1, 1), x), 1.0)
    torch.testing.assert_close(bound, expected)
    assert bound[0].item() == pytest.approx(norm)


def test_errors_of_inputs(unchecked):
    data = [(torch.zeros(2, 3), torch.zeros(2, 1))]
    ragged = [*data, (torch.zeros(2, 1, 3), torch.zeros(2, 1, 1))]
    with pytest.raises(ValueError, match="expected inputs of one shape in all batches"):
        lg.lipschitz_global(lg.Problem(nn.Linear(3, 1), "squared_error", ragged, check=False))
    p = lg.Problem(nn.Linear(3, 1), "squared_error", data, forward=lambda m, b: m(b[0]))
    with pytest.raises(TypeError, match="expected a problem without forward="):
        lg.lipschitz_local(p, 1.0)
    tokens = [(torch.zeros(2, dtype=torch.long), torch.zeros(2, 3))]
    with pytest.raises(ValueError, match="expected floating-point inputs"):
        lg.lipschitz_global(lg.Problem(nn.Embedding(2, 3), "squared_error", tokens))
    p = lg.Problem(nn.Linear(3, 1), "squared_error", data)
    with pytest.raises(ValueError, match="expected a radius >= 0"):
        lg.lipschitz_lower(p, radius=-1.0)
    with pytest.raises(ValueError, match="expected starts of at least 1, got 0"):
        lg.lipschitz_lower(p, starts=0)
    with pytest.raises(lg.NonFiniteError, match="NaN or infinite"):
        lg.lipschitz_global(p.at(p.theta * float("nan")))
