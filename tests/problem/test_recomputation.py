"""Models under activation checkpointing, and the same models without."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import lossgeom as lg
from lossgeom.problem.recomputation import bytes_of_parts
from lossgeom.trust.piece_by_piece import right_in_pieces
from lossgeom.trust.trial import on_few
from tests.problem.test_reentry import MEASURES

pytestmark = pytest.mark.usefixtures("unchecked")


class Block(nn.Module):
    def __init__(self, width=5, dropout=0.0):
        super().__init__()
        self.norm, self.lin = nn.BatchNorm1d(width), nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x, scale=1.0):
        return x + scale * self.dropout(torch.tanh(self.lin(self.norm(x))))


def plainly(block, x):
    return block(x)


def torchs(reentrant, block, x):
    return checkpoint(block, x, use_reentrant=reentrant)


def in_each_other(block, x):
    inner = partial(checkpoint, block, use_reentrant=False)
    return checkpoint(lambda x: 2 * inner(x), x, use_reentrant=False) / 2


def named(block, x):
    """With what is passed by name, in a container and bound; and several results."""

    def call(both, *, scale, word):
        return {"y": block(both[0], scale), word: None, "numbers": torch.arange(3)}

    bound = partial(call, word="word", scale=x.detach().mean() * 0 + 1)
    return checkpoint(bound, (x, None), use_reentrant=False)["y"]


def in_sequence(block, x):
    return checkpoint_sequential([block, nn.Identity()], 2, x, use_reentrant=True)


def wrapped(block, x):
    return checkpoint_wrapper(block)(x)


WAYS = {
    "reentrant": partial(torchs, True),
    "not reentrant": partial(torchs, False),
    "in each other": in_each_other,
    "named": named,
    "in sequence": in_sequence,
    "wrapped": wrapped,
}


class Model(nn.Module):
    def __init__(self, way=plainly, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.blocks = nn.ModuleList(Block(dropout=dropout) for _ in range(2))
        self.way = way

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = self.way(block, x)
        return self.last(x)


def problem(model, n=12, **options):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)
    return lg.Problem(model, "cross_entropy", [(x, y)], **{"mode": "eval", **options})


SETTINGS = {
    "eval": {},
    "float64": {"dtype": torch.float64},
    "train": {"mode": "train", "seed": 1},
    "autocast": {"autocast": torch.bfloat16},
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("way", WAYS)
def test_second_derivatives_are_those_without(way, settings):
    """Also with random numbers, statistics of batches, and types of the forward pass."""
    options, models = SETTINGS[settings], [Model(w, 0.3) for w in (plainly, WAYS[way])]
    before = [t.clone() for t in models[1].state_dict().values()]
    plain, recomputed = (problem(model, **options) for model in models)
    for point in (plain.theta, 1.1 * plain.theta):
        a, b = plain.at(point), recomputed.at(point)
        v = torch.linspace(-1, 1, len(point)).to(point)
        close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-6)
        if settings == "autocast":
            close = partial(torch.testing.assert_close, rtol=3e-2, atol=3e-2)
        close(b.gradient(), a.gradient())
        close(lg.Hessian(b) @ v, lg.Hessian(a) @ v)
        close(lg.Hessian(b, memory_budget=0) @ v, lg.Hessian(a) @ v)
    assert all(map(torch.equal, models[1].state_dict().values(), before))
    assert recomputed.loss() == plain.loss()


@pytest.mark.parametrize("kind", CheckpointImpl)
def test_wrappers_stay_in_a_copy(kind):
    """With the numbers and the names of the model without them, in less memory."""
    plain, wrapped = Model(dropout=0.3), Model(dropout=0.3)
    wrapped.blocks = nn.ModuleList(checkpoint_wrapper(b, kind) for b in wrapped.blocks)
    options = {"n": 400, "dtype": torch.float64, "mode": "train", "seed": 1}
    a, b = problem(plain, **options), problem(wrapped, **options)
    v = torch.linspace(-1, 1, len(a.theta)).double()
    torch.testing.assert_close(lg.Hessian(b) @ v, lg.Hessian(a) @ v)
    without, kept = (lg.Hessian(p, memory_budget=0).memory.steps["a product"] for p in (a, b))
    assert kept < 0.8 * without
    assert b.network.names == a.network.names
    assert b.notes == a.notes
    assert all(type(block).__name__ == "CheckpointWrapper" for block in wrapped.blocks)


@pytest.mark.parametrize("way", WAYS)
def test_derivatives_of_a_large_model_are_checked_in_pieces(way):
    """Where a piece has stand-ins for what it calls, which count their calls."""
    p = problem(Model(WAYS[way]))
    assert on_few(p, p.first_batch(), right_in_pieces, ("first", "second"))


@pytest.mark.parametrize("measure", MEASURES)
def test_whatever_is_measured_is_the_same(measure):
    plain, recomputed = (
        MEASURES[measure](problem(Model(way), dtype=torch.float64))
        for way in (plainly, WAYS["not reentrant"])
    )
    for found, expected in zip(numbers(recomputed), numbers(plain), strict=True):
        torch.testing.assert_close(found, expected)


def numbers(found):
    found = found[1] if isinstance(found, dict) else found  # of the first layer
    found = [found] if isinstance(found, torch.Tensor) else vars(found).values()
    return [part for part in found if isinstance(part, (float, torch.Tensor))]


def test_derivatives_of_third_order():
    found = []
    for way in (plainly, in_each_other):
        p = problem(Model(way), n=3, dtype=torch.float64)
        leaf, batch = p.leaf(), p.first_batch()
        total = p.terms(p.outputs(leaf, batch), batch)[0]
        assert len(bytes_of_parts(total)) == 2 * (way is in_each_other)
        for _ in range(2):
            (gradient,) = torch.autograd.grad(total, leaf, create_graph=True)
            total = gradient @ torch.arange(len(leaf)).cos().double()
        found += torch.autograd.grad(total, leaf)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (lambda block, x: checkpoint(lambda: block(x), use_reentrant=False), "uses tensors"),
        (None, "leaves tensors"),
    ],
)
def test_what_goes_another_way_is_refused(way, message):
    left = []

    def leaving(block, x):
        def call(x):
            left.append(block(x))
            return x.clone()

        return checkpoint(call, x, use_reentrant=False) + left.pop()

    with pytest.raises(ValueError, match=f"activation checkpointing {message} with gradients"):
        problem(Model(way or leaving)).loss()


def test_what_is_another_function_in_the_backward_pass_is_refused():
    def way(block, x):
        calls = []

        def call(x):
            calls.append(1)
            return block(x) if len(calls) == 1 else 1.5 * block(x)

        return checkpoint(call, x, use_reentrant=False)

    p = problem(Model(way), check=False)
    assert p.loss() == pytest.approx(problem(Model()).loss())
    with pytest.raises(ValueError, match="gives something else in the backward pass"):
        p.gradient()


def test_contexts_of_the_user_are_entered():
    """Which choose what is kept: here nothing is computed again."""
    entered = []

    class Context:
        def __enter__(self):
            entered.append(1)

        def __exit__(self, *error):
            pass

    def way(block, x):
        both = (Context(), Context())
        return checkpoint(block, x, use_reentrant=False, context_fn=lambda: both)

    p = problem(Model(way))
    torch.testing.assert_close(p.gradient(), problem(Model()).gradient())
    assert entered
    assert not bytes_of_parts(p.outputs(p.leaf(), p.first_batch()))


def test_a_model_that_trains_meanwhile_has_the_checkpoints_of_torch():
    """During a measurement, in the same thread and afterwards."""
    model = Model(WAYS["not reentrant"])
    x = torch.ones(3, 4)

    def forward(copy, batch):
        return copy(batch[0])

    p = problem(model, forward=forward)
    p.gradient()
    model.train()
    model(x).sum().backward()
    plain = Model().train()
    plain(x).sum().backward()
    for found, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)
