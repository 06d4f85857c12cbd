"""A recording replayed is the function itself, or is refused."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import TensorWeakRef

from lossgeom.autodiff.recorded_products import NotRecordable, record

pytestmark = pytest.mark.usefixtures("unchecked")


def vector(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X = vector(1, 6)
M = vector(2, 6, 6)


def change_in_place(v):
    w = v * X
    w.mul_(3).add_(v)
    return w


def sum_with_zeros(v):
    return torch.zeros_like(v) + v * X + torch.zeros(6, dtype=v.dtype) - torch.zeros_like(X)


def zeros_and_a_multiple(v):
    return torch.add(torch.zeros_like(v), v * X, alpha=2) + (v * M[0]).add_(torch.zeros_like(X))


def sum_with_zeros_that_is_larger(v):
    return (torch.zeros_like(M) + v * X).sum(0)


def products_that_fuse(v):
    square = v.reshape(2, 3) @ M[:3, :3]
    total = M[:2, :3] * v.sum() + square
    return (total - v.reshape(2, 3) * X[:3]).reshape(-1)


def several_results(v):
    first, second = v.split(3)
    return torch.cat([second.mul(2), first])


def views_written_over(v):
    w = (v * 2).reshape(2, 3)
    kept = w.t() * M[:3, :2]
    return (w + 1 * w).reshape(-1) + kept.t().reshape(-1)


def parts_that_are_views_in_secret(v):
    """unsafe_split does not say that it returns views."""
    w = v * X
    first, second = torch.unsafe_split(w, 3)
    return torch.cat([first * 3 + second, w[:3]])


def used_twice(v):
    w = v * X
    return w + w * w.detach().sign().abs() + w


def used_for_the_last_time(v):
    w, z = M @ v, M.T @ v
    view = z.view(2, 3).t()
    first, second = w * X, z * X
    return first + w * X.exp() + second + (z * M[0] + view.t().reshape(6))


def values_not_needed(v):
    return torch.ones_like(v) * v + torch.empty_like(v).fill_(2) * v


def slopes_of_activations(v):
    slope = torch.ops.aten.gelu_backward(v * X, X, approximate="tanh")
    return torch.ops.aten.tanh_backward(slope, X.tanh()) * M[0] + slope.sum() * X


def factors_too_large_for_one(v):
    return v * (X * 1e-200) * 1e-100 * (X * 1e200) * (X * 1e200)


FUNCTIONS = [
    change_in_place,
    slopes_of_activations,
    factors_too_large_for_one,
    sum_with_zeros,
    zeros_and_a_multiple,
    sum_with_zeros_that_is_larger,
    products_that_fuse,
    several_results,
    views_written_over,
    parts_that_are_views_in_secret,
    used_twice,
    used_for_the_last_time,
    values_not_needed,
    lambda v: v,
    lambda v: v.view(2, 3).t().reshape(6),
    lambda v: torch.where(X > 0, v, -v),
    lambda v: v[torch.tensor([2, 2, 0, 5, 1, 1])],
    lambda v: torch.zeros_like(v).index_add(0, torch.tensor([0, 0, 1, 2, 3, 3]), v),
    lambda v: torch.stack([v, 2 * v]).sum(0).cumsum(0),
    lambda v: (M @ v).copy_(v * X),
]


@pytest.mark.quick
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_replay_is_another_call(function):
    tape, _ = record(function, vector(3, 6))
    for seed in (4, 5, 4):
        v = vector(seed, 6)
        before = v.clone()
        torch.testing.assert_close(tape(v), function(v), rtol=1e-14, atol=1e-14)
        assert torch.equal(v, before)


STEPS = {
    "times": lambda v, x: v * x,
    "plus": lambda v, x: v + x * v,
    "minus": lambda v, x: x * v - v,
    "matrix": lambda v, x: M @ v,
    "reversed": lambda v, x: v.flip(0),
    "in place": lambda v, x: v.clone().mul_(x).add_(v),
    "through a view": lambda v, x: (v.view(2, 3) * x.view(2, 3)).t().reshape(-1),
    "broadcast": lambda v, x: (v[:, None] * x).sum(1) + v,
    "scaled": lambda v, x: (v * 2).div(3) - v * 0.5,
}


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 5)), max_size=8),
    again=st.lists(st.integers(0, 7), max_size=3),
)
def test_any_chain_of_steps_is_replayed(steps, again):
    def function(v):
        seen = [v]
        for name, seed in steps:
            seen.append(STEPS[name](seen[-1], vector(10 + seed, 6)))
        return sum((seen[i % len(seen)] for i in again), start=1 * seen[-1])

    tape, _ = record(function, vector(3, 6))
    v = vector(4, 6)
    torch.testing.assert_close(tape(v), function(v), rtol=1e-12, atol=1e-12)


@pytest.mark.quick
def test_what_does_not_depend_on_the_vector_is_done_once():
    calls = []

    def function(v):
        calls.append(1)
        return v * X.exp().cos()

    tape, _ = record(function, X)
    tape(X)
    tape(X)
    assert len(calls) == 1
    assert len(tape.operations) == 1


def test_zeros_products_and_dead_ends_cost_nothing():
    def function(v):
        _ = v.exp()
        return torch.zeros_like(v) + (v * X + v)

    tape, _ = record(function, X)
    assert [str(o.function) for o in tape.operations] == ["aten.mul.Tensor", "aten.add.Tensor"]
    assert len(tape.program._steps) == 1


class Masks(TorchDispatchMode):
    """Notes which gradients convolutions are asked for."""

    def __init__(self):
        TorchDispatchMode.__init__(self)
        self.noted = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is BACKWARD:
            self.noted.append(args[-1])
        return func(*args, **(kwargs or {}))


BACKWARD = torch.ops.aten.convolution_backward.default
IMAGES, KERNEL = vector(6, 2, 3, 4, 4), vector(7, 3, 3, 3, 3)


def of_weights(v, g=IMAGES, x=IMAGES, mask=(True, True, False)):
    same = [[1, 1], [1, 1], [1, 1], False, [0, 0], 1, list(mask)]
    return BACKWARD(g, x, KERNEL, [0], *same)[1]


def left_out(v):
    flat = torch.cat([of_weights(v).view(-1), X])
    return v * X + torch.ones_like(flat)[:6]


def read(v):
    return v * torch.cat([X, of_weights(v).view(-1)])[-6:]


def read_by_a_constant(v):
    return v * (of_weights(v) * 2).sum((1, 2, 3)).repeat(2)


def taken_out(v):
    return v * of_weights(v)[0, 0, 0, 0].item()


def written_to(v):
    weights = of_weights(v)
    weights.mul_(3)
    return v * weights.view(-1)[:6]


def made_of_what_changes(v):
    g = IMAGES.clone()
    weights = of_weights(v, g)
    g.mul_(2)
    return v * weights.view(-1)[:6]


@pytest.mark.quick
@pytest.mark.parametrize(
    "function", [left_out, read, read_by_a_constant, taken_out, written_to, made_of_what_changes]
)
def test_gradients_of_weights_are_computed_where_they_are_needed(function):
    with Masks() as masks:
        tape, value = record(function, X)
    torch.testing.assert_close(value, function(X))
    torch.testing.assert_close(tape(M[0]), function(M[0]))
    later = [] if function is left_out else [[False, True, False]]
    assert masks.noted == [[True, False, False], *later]


def test_constants_do_not_hold_tangents():
    def function(v):
        with forward_ad.dual_level():
            y = forward_ad.make_dual(X, v).exp()
            tangent = TensorWeakRef(forward_ad.unpack_dual(y).tangent)
            result = forward_ad.unpack_dual(y.sin()).tangent
            del y
            assert tangent() is None
        return result

    tape, _ = record(function, M[0])
    torch.testing.assert_close(tape(M[1]), X.exp().cos() * X.exp() * M[1])


def test_factors_and_slopes_of_activations_are_one_factor():
    def function(v):
        slope = torch.ops.aten.tanh_backward(v, X.tanh())
        return torch.ops.aten.sigmoid_backward(slope * X, X.sigmoid())

    tape, _ = record(function, X)
    assert [str(o.function) for o in tape.operations] == ["aten.mul.Tensor"]
    assert sum(tape.storages.values()) == X.nbytes


def test_views_of_the_same_numbers_cost_nothing():
    def function(v):
        turned = v.view(2, 3).detach().t()
        return (turned.t().reshape(2, 3) * M[:2, :3]).reshape(-1).reshape(6) * X

    tape, _ = record(function, X)
    assert [str(o.function) for o in tape.operations] == [
        "aten.reshape.default", "aten.mul.Tensor", "aten.reshape.default", "aten.mul.Tensor",
    ]  # fmt: skip
    torch.testing.assert_close(tape(vector(4, 6)), function(vector(4, 6)))


@pytest.mark.parametrize(
    ("shape", "dim"), [((5, 3), 1), ((3, 5), 0), ((2, 3, 4), 1), ((2, 300), 1)]
)
def test_log_softmax_is_pulled_back_by_the_same_numbers(shape, dim):
    outputs = vector(5, *shape).log_softmax(dim)

    def function(v):
        return torch.ops.aten._log_softmax_backward_data(v, outputs, dim, v.dtype)

    tape, _ = record(function, vector(6, *shape))
    v = vector(7, *shape)
    torch.testing.assert_close(tape(v), function(v))
    rowwise = "aten._log_softmax_backward_data.default"
    assert ([str(o.function) for o in tape.operations] == [rowwise]) == (shape[dim] > 128)


def shared_constant(v):
    x = X.clone()
    y = v * x
    x.add_(1)
    return y


def constant_written(v):
    x = torch.zeros(6, dtype=torch.float64)
    x.copy_(v)
    return x


def part_written(v):
    w = v * 2
    w[:3].mul_(3)
    return w


def input_written(v):
    return v.mul_(2)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (shared_constant, "changes a constant"),
        (constant_written, "changes what other tensors share"),
        (part_written, "changes what other tensors share"),
        (lambda v: v * v.sum().item(), "takes a number"),
        (lambda v: X * 2, "does not depend"),
        (input_written, "changes what other tensors share"),
    ],
)
def test_what_cannot_be_replayed_is_refused(function, reason):
    with pytest.raises(NotRecordable) as refused:
        record(function, X)
    assert reason in str(refused.value)


def test_recording_changes_nothing_for_the_caller():
    v, before = X.clone(), X.clone()
    record(lambda v: v * 2, v)
    with pytest.raises(NotRecordable):
        record(input_written, v)
    assert torch.equal(v, before)


def test_a_tape_and_its_constants_go_with_the_last_reference():
    gc.disable()
    try:
        constant = vector(5, 6)
        tape, _ = record(lambda v: v * constant.exp(), X)
        (held,) = (c for o in tape.operations for c in o.constants())
        tape(X)
        references = [weakref.ref(tape), TensorWeakRef(held)]
        del tape, held
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()


def test_the_memory_of_constants_is_counted_once():
    x = vector(5, 6)
    tape, _ = record(lambda v: v * x + v[:3].sum() * x.view(2, 3).reshape(6), X)
    assert sum(tape.storages.values()) == 6 * 8
