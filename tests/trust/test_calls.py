"""Models whose pieces seem to be right, and which have a wrong derivative as a whole."""

from types import MethodType, SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.trust import piece_by_piece
from tests.trust.test_doctor import problem
from tests.trust.test_piece_by_piece import in_pieces


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(piece_by_piece, "_right", set())


def half_square(x, wrong=True):
    """Half of a square, with a second derivative that is wrong."""
    return x.detach() * x - 0.5 * x.detach().square() if wrong else x.square() / 2


class Calls(nn.Module):
    """A function as a module, of a setting and of parts."""

    def __init__(self, function, *parts, **settings):
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)
        for name, value in settings.items():
            setattr(self, name, value)

    def forward(self, *args):
        return self.function(self, *args)


def by_setting(module, x):
    return half_square(x, module._wrong)


def by_buffer(module, x):
    return half_square(x, bool(module.flag > 0))


def rounded(module, x):
    rest = (x * module.flag).round() / module.flag - x
    return x + rest.detach() * (module.flag < 32)


def by_width(module, x):
    return half_square(x, x.shape[-1] == 16)


def by_parameter(module, x):
    return half_square(x, module.p.numel() > 1) * module.p


def by_part(module, x):
    return half_square(x, module.part is None)


def with_buffer(flag, function=by_buffer):
    module = Calls(function)
    module.register_buffer("flag", torch.tensor(flag))
    return module


def with_part(part):
    module = Calls(by_part)
    module.register_module("part", part)
    return module


def with_parameter(n):
    return Calls(by_parameter, p=nn.Parameter(torch.ones(n)))


def hooked():
    layer = nn.Tanh()
    layer.register_full_backward_hook(lambda _, inputs, outputs: (inputs[0] * 2,))
    return layer


def with_own_forward():
    layer = nn.Linear(16, 16)
    layer.forward = MethodType(lambda self, x: F.linear(x, half_square(self.weight)), layer)
    return layer


@pytest.mark.parametrize(
    "layers",
    [
        (Calls(by_setting, _wrong=False), Calls(by_setting, _wrong=True)),
        (Calls(by_setting, _wrong=False, layer_idx=0), Calls(by_setting, _wrong=True, layer_idx=1)),
        (with_buffer(0.0), with_buffer(1.0)),
        (with_buffer(64.0, rounded), with_buffer(4.0, rounded)),
        (nn.Linear(16, 8), Calls(by_width), nn.Linear(8, 16), Calls(by_width)),
        (with_parameter(1), with_parameter(16)),
        (with_part(nn.Tanh()), with_part(None)),
        (nn.Tanh(), hooked()),
        (nn.Linear(16, 16), with_own_forward()),
    ],
    ids=[
        "setting",
        "layer_idx",
        "buffer",
        "number",
        "shape",
        "parameter",
        "part",
        "hook",
        "forward",
    ],
)
def test_one_class_that_computes_in_two_ways(layers):
    assert not in_pieces(problem(*layers, nn.Tanh()))


def keeps(module, x):
    module.kept = half_square(x)
    return x


def returns_an_object(module, box):
    return SimpleNamespace(x=half_square(box.x))


def writes(module, x):
    x.copy_(half_square(x.clone()))


def appends(module, x, made):
    made.append(half_square(x))
    return x


def complex_one(module, x):
    return torch.complex(half_square(x), x)


def writes_and_goes_on(module, x):
    x = 1 * x
    module.parts[0](x)
    return x


def reads_list(module, x):
    made = []
    return module.parts[0](x, made) + sum(made)


def sets_context(module, x):
    module.parts[0].context = half_square(x)
    return module.parts[0](x)


def masks(module, x):
    return module.parts[0](x.masked_fill(torch.arange(16) > 7, float("-inf"))).cumsum(1)


def passes_two(module, x):
    return module.parts[0](module.parts[0](x), x)


def passes_switches(module, x):
    return module.parts[0](module.parts[0](x, 0), torch.tensor(1))


def calls_forward(module, x):
    return module.parts[0].forward(module.parts[0](x), True)


def kept_parameter(module, x):
    module.kept = half_square(module.p)
    return x


@pytest.mark.parametrize(
    "layer",
    [
        Calls(lambda m, x: m.parts[0](x) + m.parts[0].kept, Calls(keeps, kept=0.0)),
        Calls(
            lambda m, x: m.parts[0](x) + m.parts[0].kept,
            Calls(kept_parameter, kept=0.0, p=nn.Parameter(torch.ones(16))),
        ),
        Calls(lambda m, x: m.parts[0](SimpleNamespace(x=x)).x, Calls(returns_an_object)),
        Calls(lambda m, x: m.parts[0](x).real, Calls(complex_one)),
        Calls(writes_and_goes_on, Calls(writes)),
        Calls(reads_list, Calls(appends)),
        Calls(sets_context, Calls(lambda m, x: x + m.context, context=0.0)),
        Calls(masks, Calls(lambda m, x: half_square(torch.softmax(x, -1)))),
        Calls(passes_two, Calls(lambda m, x, y=None: x if y is None else half_square(x) + y)),
        Calls(passes_switches, Calls(lambda m, x, i: x.sin() + i * half_square(x))),
        Calls(calls_forward, Calls(lambda m, x, i=False: half_square(x, i))),
        Calls(lambda m, x: 10 * x + m.parts[0](half_square(x)), nn.Linear(16, 16)),
    ],
    ids=[
        "kept",
        "kept_parameter",
        "object",
        "complex",
        "in_place",
        "list",
        "context",
        "mask",
        "arguments",
        "switches",
        "forward",
        "beside_large",
    ],
)
def test_what_gets_past_arguments_and_outputs(layer):
    p = problem(nn.Tanh(), layer)
    assert not in_pieces(p)
    with pytest.raises(lg.DerivativeError, match="the second derivative"):
        lg.check_derivatives(p)


def test_what_a_class_does_now_is_looked_at():
    wrong = []
    layer = Calls(lambda module, x: half_square(x, bool(wrong)))
    assert in_pieces(problem(layer))
    wrong.append(True)
    assert not in_pieces(problem(layer))


class Counted(torch.autograd.Function):
    """Reads in its backward pass what its last call has kept, whichever that was."""

    @staticmethod
    def forward(ctx, x):
        Counted.kept = x
        ctx.save_for_backward(x)
        return x.square() / 2

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x + (Counted.kept - x).detach())


def test_functions_of_ones_own_are_looked_at_in_the_model():
    layer = Calls(lambda module, x: Counted.apply(x))
    assert not in_pieces(problem(layer, nn.Linear(16, 16), nn.Tanh(), layer))
