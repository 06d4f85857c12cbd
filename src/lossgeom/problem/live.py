"""What a live model's parameters and gradients are now, in the order of a flat vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.distributed import Ranks
from lossgeom.problem.batch_norm import buffers_kept
from lossgeom.problem.model_copy import unwrapped
from lossgeom.problem.problem import Problem
from lossgeom.problem.sharded import reshard, whole

WRAPPED = ("_orig_mod.", "_checkpoint_wrapped_module.")  # by torch.compile and for checkpointing


def live_parameters(problem: Problem) -> list[nn.Parameter]:
    """The parameters of the user's model that theta was copied from, in its order."""
    model, _ = unwrapped(problem.model)
    reshard(model)
    theirs = {_own_name(name): p for name, p in model.named_parameters()}
    return [theirs[name] for name in problem.network.names]


@torch.no_grad()
def live_theta(problem: Problem) -> Float[Tensor, " P"]:
    """A copy of the parameters that the user's model has now."""
    with torch.inference_mode(False):
        pieces = [whole(p.detach()).reshape(-1) for p in live_parameters(problem)]
        return torch.cat([piece.to(problem.theta) for piece in pieces])


@torch.no_grad()
def flat_gradient(problem: Problem, gradients: Mapping[int, Tensor]) -> Float[Tensor, " P"]:
    """Gradients by the ids of live parameters as one vector, zero where there is none."""
    with torch.inference_mode(False):
        pieces = []
        for p in live_parameters(problem):
            gradient = gradients.get(id(p))
            zero = problem.theta.new_zeros(p.numel())
            pieces.append(
                zero if gradient is None else whole(gradient).reshape(-1).to(problem.theta)
            )
        return torch.cat(pieces)


def take_live_buffers(problem: Problem) -> None:
    """Give a copy of the user's model the buffers that this has now, such as running averages.

    Of several processes, those that the first has, as in the next pass of data-parallel training.
    """
    model, _ = unwrapped(problem.model)
    _take_buffers(problem.network.module, model, problem.ranks)


@contextmanager
def buffers_of_first(model: nn.Module, ranks: Ranks) -> Iterator[None]:
    """Let a model have the buffers that it has on the first of several processes, for a time."""
    if ranks.size == 1 or not isinstance(model, nn.Module):
        yield
        return
    inner, _ = unwrapped(model)
    with buffers_kept(inner):
        _take_buffers(inner, inner, ranks)
        yield


@torch.no_grad()
def _take_buffers(module: nn.Module, live: nn.Module, ranks: Ranks) -> None:
    theirs = ranks.from_first({_own_name(name): b for name, b in live.named_buffers()})
    for name, buffer in module.named_buffers():
        theirs_here = theirs.get(_own_name(name))
        if theirs_here is not None and buffer.shape == theirs_here.shape:
            buffer.copy_(theirs_here)


def _own_name(name: str) -> str:
    """The name of a parameter without those of wrappers."""
    for wrapper in WRAPPED:
        name = name.replace(wrapper, "")
    return name
