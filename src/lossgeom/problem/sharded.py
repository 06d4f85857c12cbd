"""Models whose parameters are spread over processes, as ``fully_shard`` of torch leaves them."""

from __future__ import annotations

import copy
import sys
from typing import Any, cast

import torch
from torch import Tensor, nn

from lossgeom.distributed import Ranks
from lossgeom.problem.model_copy import unwrapped

OF_TORCH = "torch.distributed."  # the modules that the hooks of fully_shard are from
STATE = "__composable_api_state_key"  # how the names begin under which it keeps its state
SPREADING = {"torch.distributed.fsdp", "torch.distributed.tensor"}  # without them, none is spread
LOADED = (
    "one that is not sharded, with the full state dict loaded into it (get_model_state_dict of "
    "torch.distributed.checkpoint.state_dict), can be measured"
)


def sharded_parts(model: nn.Module) -> list[Any]:
    """The modules that ``fully_shard`` was called on."""
    fsdp = sys.modules.get("torch.distributed.fsdp")  # without which there are none
    return [] if fsdp is None else [m for m in model.modules() if isinstance(m, fsdp.FSDPModule)]


def reshard(model: nn.Module) -> None:
    """Free what is gathered of the parameters, which forward passes use in place of the shards."""
    for part in sharded_parts(model):
        part.reshard()


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process has but a part of a tensor."""
    return type(tensor).__name__ == "DTensor"


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; the processes that have a part of it call this together."""
    return cast(Tensor, cast(Any, tensor).full_tensor()) if is_sharded(tensor) else tensor


def own_part(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process has, in its memory."""
    return cast(Tensor, cast(Any, tensor).to_local()) if is_sharded(tensor) else tensor


def forward_types(model: nn.Module) -> list[torch.dtype]:
    """The types in which ``fully_shard`` gathers parameters, where it has been told any."""
    policies = [part._get_fsdp_state()._mp_policy for part in sharded_parts(model)]
    return [policy.param_dtype for policy in policies if policy.param_dtype is not None]


def end_forward(model: nn.Module) -> None:
    """Let a model go on after an error that has ended its forward pass half-way."""
    parts = sharded_parts(model)
    inside = {id(child) for part in parts for child in part.modules() if child is not part}
    for part in parts:
        if id(part) not in inside:
            part.reset_iter_state()


def whole_model(model: nn.Module, ranks: Ranks) -> nn.Module:
    """The model, or a copy of what it was before ``fully_shard``, with all of its parameters.

    The processes that have a part of it call this together. What is gathered in it is freed.

    Raises:
        TypeError: if it is spread over processes in another way.
        ValueError: if it is over other processes, or cannot be copied.
    """
    if not isinstance(model, nn.Module):
        return model  # or what it is instead, which is said later
    inner, _ = unwrapped(model)
    reshard(inner)
    sharded = any(map(is_sharded, inner.parameters())) or any(map(_is_flat, inner.modules()))
    if not sharded and not sharded_parts(inner):
        return model
    ranks.together(lambda: check_spread(inner, ranks))
    with torch.inference_mode(False), torch.no_grad():
        memo: dict[int, Any] = {
            id(p): nn.Parameter(whole(p.detach()).clone(), p.requires_grad)
            for p in inner.parameters()
        }
        return ranks.together(lambda: _copied(inner, memo))


def notes_on_sharding(model: nn.Module) -> list[str]:
    """Notes on what is different in the copy of a sharded model."""
    text = "whole parameters gathered from all processes, without mixed precision of fully_shard"
    return [*unwrapped(model)[1], text] if sharded_parts(model) else []


def _is_flat(module: nn.Module) -> bool:
    """Whether this is the older class of torch that flattens parameters and cuts them up."""
    return type(module).__name__ == "FullyShardedDataParallel"


def check_spread(model: nn.Module, ranks: Ranks) -> None:
    """Refuse parameters that ``fully_shard`` has not spread over just these processes."""
    if any(map(_is_flat, model.modules())):
        raise TypeError(
            "FullyShardedDataParallel flattens parameters and cuts them up; use fully_shard of "
            f"torch.distributed.fsdp in its place, or {LOADED}"
        )
    by_fsdp = {id(p) for part in sharded_parts(model) for p in part.parameters()}
    for name, p in model.named_parameters():
        if not is_sharded(p):
            continue
        mesh = cast(Any, p).device_mesh
        if why := how_else(mesh, p.device.type, id(p) in by_fsdp):
            raise TypeError(
                f"{name} is {why}; a model can be measured that fully_shard has spread over one "
                f"dimension of processes, with nothing offloaded, or {LOADED}"
            )
        if mesh.size() != ranks.size:
            here = f"{ranks.size} share the data" if ranks.size > 1 else "this one measures alone"
            raise ValueError(
                f"{name} is spread over {mesh.size()} processes, and {here}; let all of them "
                "measure their shares of the data, with ranks=lossgeom.ranks()"
            )


def how_else(mesh: Any, device: str, by_fsdp: bool) -> str | None:
    """How else a parameter is spread, if it is."""
    if not by_fsdp:
        return "spread by tensor parallelism"
    if mesh.ndim > 1:
        return f"spread over a mesh of {mesh.ndim} dimensions (HSDP, or tensor parallelism beside)"
    if device != mesh.device_type:
        return f"offloaded from {mesh.device_type} to {device}"
    return None


def _copied(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy without what ``fully_shard`` has put in, with a memo of what parameters become.

    That cannot be taken out of a module, and forbids to copy it: a plain one of the class that
    there was before gets copies of all that is the module's own.
    """
    parts, fsdp = sharded_parts(model), sys.modules["torch.distributed.fsdp"].FSDPModule
    try:
        for part in parts:
            kinds = [kind for kind in type(part).__mro__[1:] if not issubclass(kind, fsdp)]
            memo[id(part)] = object.__new__(kinds[0])  # of FSDPNet, FSDPModule, Net, ...
        for part in parts:
            vars(memo[id(part)]).update(copy.deepcopy(_of_its_own(part), memo))
        return copy.deepcopy(model, memo)
    except Exception as error:
        raise ValueError(
            f"the model could not be copied without fully_shard ({error}); {LOADED}"
        ) from error


def _of_its_own(part: nn.Module) -> dict[str, Any]:
    """The attributes of a module without state and hooks of torch.distributed."""
    own = {name: value for name, value in vars(part).items() if not name.startswith(STATE)}
    for name in [name for name in own if name.endswith("_hooks") and own[name]]:
        hooks = own[name].items()
        kept = ((k, hook) for k, hook in hooks if not _home(hook).startswith(OF_TORCH))
        own[name] = type(own[name])(kept)
    return own


def _home(hook: Any) -> str:
    """The module that a hook is from, also one that a module of torch has wrapped."""
    return str(getattr(getattr(hook, "hook", hook), "__module__", ""))
