"""A copy of a model that can be differentiated twice, and what had to change for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from types import MethodType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from lossgeom.problem.checkpointed_layers import compute_again, computes_again
from lossgeom.problem.plain_weight_norm import PlainWeightNorm, PlainWeightNormHook, dimension_of

WRAPPERS = (DataParallel, DistributedDataParallel)
COMPILED = "OptimizedModule"  # the type of what torch.compile makes of a module
CHECKPOINTED = "CheckpointWrapper"  # and of what torch.distributed makes for checkpointing
UNCOMPILED = "measured without torch.compile, which has no second derivatives"
PARAMETRIZED_NORM = ("torch.nn.utils.parametrizations", "_WeightNorm")
HOOKED_NORM = ("torch.nn.utils.weight_norm", "WeightNorm")
UNCHECKPOINTED = "measured without activation checkpointing, which gives the same in less memory"
PLAIN_WEIGHT_NORM = "weight norm computed from its definition; torch's second derivative is wrong"
MEASURED = (torch.float32, torch.float64)


def private_copy(
    model: nn.Module, dtype: torch.dtype | None
) -> tuple[nn.Module, Tensor, list[str]]:
    """A deep copy without wrappers, in a type that is measured, and notes on what is different.

    Returns the copy, a flat vector that is the memory of its trainable parameters, and the notes.

    Args:
        model: the user's; it is not touched.
        dtype: float32 or float64; ``None`` for the widest type among the parameters, and float32
            where that is narrower.

    Raises:
        TypeError: if it is not a module, or its parameters are complex or sharded.
        ValueError: if it has lazy parameters, or cannot be copied.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"expected model to be a torch.nn.Module, got {type(model).__name__}")
    inner, notes = unwrapped(model)
    if any(isinstance(module, torch.jit.ScriptModule) for module in inner.modules()):
        raise TypeError(
            "a TorchScript module cannot be evaluated at other parameters; measure the module that "
            "it was made from"
        )
    wanted = _measured_type(inner, dtype)
    if any(module._compiled_call_impl is not None for module in inner.modules()):
        notes.append(UNCOMPILED)  # a copy does not have what module.compile() has made
    own = [p for p in inner.parameters() if p.requires_grad]
    devices = sorted({str(p.device) for p in own})
    if len(devices) > 1:
        raise TypeError(f"expected all parameters on one device, got {devices}")
    with torch.inference_mode(False), torch.no_grad():
        sizes, device = [p.numel() for p in own], devices[0] if devices else None
        theta, pieces = torch.empty(sum(sizes), dtype=wanted, device=device), {}
        for p, piece in zip(own, torch.split(theta, sizes), strict=True):
            piece.copy_(p.detach().reshape(-1))
            if type(p) in (nn.Parameter, AtRest):  # its copy has no memory of its own
                pieces[id(p)] = nn.Parameter(piece.view(p.shape))
    module = deep_copy(inner, pieces)
    _repair(module, notes)
    _convert(module, wanted)
    tensors = [
        t
        for t in (*inner.parameters(), *inner.buffers())
        if t.is_floating_point() or t.is_complex()
    ]
    if types := sorted({str(t.dtype) for t in tensors} - {str(wanted), str(wanted.to_complex())}):
        notes.append(f"measured in {wanted}, in a copy of a model in {', '.join(types)}")
    trained = [p for p in module.parameters() if p.requires_grad]
    if [id(p) for p in trained] != [id(p) for p in pieces.values()]:  # copied in a way of its own
        theta = torch.cat([p.detach().reshape(-1) for p in trained] or [theta])
    return module, theta, list(dict.fromkeys(notes))


def _repair(module: nn.Module, notes: list[str]) -> None:
    """Replace parts of a copy that have no second derivative, or a wrong one."""
    for part in list(module.modules()):
        if "_original_forward" in vars(part):
            _take_off_autocast(part, notes)
        if vars(part).get("gradient_checkpointing"):  # the flag of transformers
            notes += [] if computes_again(part) else [UNCHECKPOINTED]
        for name, child in part._modules.items():
            if type(child).__name__ == COMPILED:
                part._modules[name] = cast(nn.Module, cast(Any, child)._orig_mod)
                notes.append(f"{name} measured without torch.compile")
            elif type(child).__name__ == CHECKPOINTED:
                part._modules[name] = compute_again(cast(Any, child)._checkpoint_wrapped_module)
            elif (type(child).__module__, type(child).__name__) == PARAMETRIZED_NORM:
                part._modules[name] = PlainWeightNorm(dimension_of(child))
                notes.append(PLAIN_WEIGHT_NORM)
        for number, hook in part._forward_pre_hooks.items():
            if (type(hook).__module__, type(hook).__name__) == HOOKED_NORM:
                name = str(getattr(hook, "name", ""))
                part._forward_pre_hooks[number] = PlainWeightNormHook(name, dimension_of(hook))
                notes.append(PLAIN_WEIGHT_NORM)
        part._state_dict_hooks.clear()  # saved for its numbers, not for what they are called
        part._state_dict_pre_hooks.clear()


def unwrapped(model: nn.Module) -> tuple[nn.Module, list[str]]:
    """The module inside torch.compile, DistributedDataParallel and DataParallel, with notes."""
    notes = []
    while True:
        if isinstance(model, WRAPPERS):
            notes.append(f"unwrapped from {type(model).__name__}")
            model = cast(nn.Module, model.module)
        elif type(model).__name__ == COMPILED:
            notes.append(UNCOMPILED)
            model = cast(nn.Module, model._orig_mod)
        else:
            return model, notes


def _measured_type(model: nn.Module, dtype: torch.dtype | None) -> torch.dtype:
    """The type to measure in, where all parameters can be measured."""
    kinds = set()
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            raise ValueError(
                f"the model has lazy parameters ({name}); run one forward pass before measuring"
            )
        if type(parameter.data).__name__ == "DTensor":
            raise TypeError(
                f"{name} is sharded over processes; measure a model whose parameters are whole, "
                "such as one loaded from its full state dict"
            )
        if parameter.is_complex():
            raise TypeError(
                f"expected real parameters, got some in {parameter.dtype}; make each a real one, "
                "nn.Parameter(torch.view_as_real(w)), and let the model read it as "
                "torch.view_as_complex(w)"
            )
        kinds.add(parameter.dtype)
    if dtype is not None and dtype not in MEASURED:
        raise TypeError(f"expected dtype to be torch.float32 or torch.float64, got {dtype}")
    return dtype or (torch.float64 if torch.float64 in kinds else torch.float32)


def deep_copy(model: nn.Module, instead: Mapping[int, nn.Parameter] | None = None) -> nn.Module:
    """A deep copy, in which tensors that a module keeps with their history are detached.

    Older hooks of weight norm and spectral norm write such tensors before every call, and models
    keep attention maps or hidden states.

    Args:
        model: what is copied.
        instead: what its copy has in the place of parameters, by the ids of these.

    Raises:
        ValueError: if the model cannot be copied.
    """
    try:
        with torch.inference_mode(False):
            try:
                module = copy.deepcopy(model, dict[int, Any](instead or {}))
            except RuntimeError:  # of torch, of such a tensor
                with _Detached():
                    module = copy.deepcopy(model, dict[int, Any](instead or {}))
    except Exception as error:
        raise ValueError(
            f"the model could not be copied with copy.deepcopy ({error}); a measurement works on "
            "a copy so that yours stays as it is: remove what cannot be copied"
        ) from error
    for part in module.modules():
        if parametrize.is_parametrized(part):
            _take_off_cache(part)
    return module


class _Detached(TorchFunctionMode):
    """Copies tensors that are no leaves as if they were, wherever they are kept."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__ or args[0].is_leaf:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        return memo.setdefault(id(tensor), tensor.detach().clone())


def _take_off_cache(part: nn.Module) -> None:
    """Compute parametrized tensors as they are now, also inside ``parametrize.cached()``.

    That is a cache of the process, which knows a copy by its original: a copy would get weights of
    another point out of it, and the original those of the copy.
    """
    kind = type(part)
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    for name in cast(nn.ModuleDict, part.parametrizations):
        own[name] = property(partial(_parametrized, name), vars(kind)[name].fset)
    part.__class__ = type(kind.__name__, kind.__bases__, own)


def _parametrized(name: str, module: Any) -> Any:
    return module.parametrizations[name]()


def _take_off_autocast(part: nn.Module, notes: list[str]) -> None:
    """Undo what ``Accelerator.prepare`` does for mixed precision, as Trainer does, too.

    It puts ``forward`` under autocast and keeps the one that it found as ``_original_forward``.
    """
    own = vars(part)
    if "forward" not in own:
        return
    del own["forward"]
    found = own.pop("_original_forward")
    bound = isinstance(found, MethodType)
    original = _prepared_once(found.__func__ if bound else found)
    if original is not type(part).forward:  # but the user's own
        own["forward"] = MethodType(original, part) if bound else original
    notes.append(
        "measured without the autocast that accelerate puts around the model's forward; "
        "Problem(..., autocast=torch.bfloat16) measures under it"
    )


def _prepared_once(forward: Any) -> Any:
    """The forward that a model had before it was prepared a second time, by another Trainer."""
    while type(getattr(forward, "__wrapped__", None)).__name__ == "ConvertOutputsToFp32":
        forward = forward.__wrapped__.model_forward.__wrapped__
    return forward


def _convert(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert floating parameters and buffers to one type, and complex buffers to its complex one.

    Each once, however many modules share it.
    """
    converted: dict[int, Tensor] = {}
    for owner in module.modules():
        if isinstance(owner, (nn.Embedding, nn.EmbeddingBag)):
            owner.sparse = False  # whose sparse gradients cannot be differentiated
        for tensors in (owner._parameters, owner._buffers):
            for name, tensor in list(tensors.items()):
                if tensor is None or not (tensor.is_floating_point() or tensor.is_complex()):
                    continue
                wanted = dtype.to_complex() if tensor.is_complex() else dtype
                if tensor.dtype == wanted:
                    continue
                if isinstance(tensor, nn.Parameter):
                    tensor.data = tensor.data.to(wanted)
                else:
                    owner._buffers[name] = converted.setdefault(id(tensor), tensor.to(wanted))


class ReentryError(ValueError):
    """A backward pass calls a module of the model again."""


class AtRest(nn.Parameter):
    """A parameter of the copy between evaluations, which no backward pass must use.

    While one runs, theta is no longer in the place of the parameters.
    """

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch._C._current_graph_task_id() != -1:
            raise ReentryError(
                "the backward pass of the model calls a module again, after its parameters have "
                "been put back, so its derivatives would be wrong: adjoint ODE solvers and "
                "reversible networks do so, and activation checkpointing other than that of "
                "torch.utils.checkpoint. Measure with the variant that keeps "
                "the graph of its forward pass, such as odeint in the place of odeint_adjoint"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))
