"""What a live model's parameters and gradients are now, in the order of a flat vector."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

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


@torch.no_grad()
def take_live_buffers(problem: Problem) -> None:
    """Give a copy of the user's model the buffers that this has now, such as running averages.

    Of several processes, those that the first has, as in the next pass of data-parallel training.
    """
    model, _ = unwrapped(problem.model)
    own = {_own_name(name): b for name, b in model.named_buffers()}
    theirs = problem.ranks.from_first(own)
    for name, buffer in problem.network.module.named_buffers():
        if name in theirs and buffer.shape == theirs[name].shape:
            buffer.copy_(theirs[name])


def _own_name(name: str) -> str:
    """The name of a parameter without those of wrappers."""
    for wrapper in WRAPPED:
        name = name.replace(wrapper, "")
    return name
