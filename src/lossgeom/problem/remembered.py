"""What earlier problems of a model object have found out, as long as it is the same model."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from types import BuiltinFunctionType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as all_modules
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_flatten

from lossgeom.batches import Batch
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.isolation import GLOBAL_HOOKS
from lossgeom.problem.model_facts import ModelFacts
from lossgeom.problem.side_effects import OF_EVERY_MODULE

SIZES = (
    "in_features", "out_features", "in_channels", "out_channels", "num_embeddings",
    "embedding_dim", "num_features", "num_channels", "normalized_shape", "nx", "nf", "layer_idx",
)  # fmt: skip
PLAIN = (str, bool, int, float, torch.dtype, torch.device)
NOTHING_ELSE = type("Object", (), {}).__basicsize__  # of objects with all of it in attributes
OBJECT = "object"  # marks the place of one that is told by where it is in memory
FORMS = 16  # of a model, its settings and batches, that are remembered: the last ones

_kinds: WeakKeyDictionary[nn.Module, Hashable] = WeakKeyDictionary()  # of copies, which stay so
_remembered: WeakKeyDictionary[nn.Module, dict[Hashable, ModelFacts]] = WeakKeyDictionary()


def facts_of(model: nn.Module, at: Evaluation, batch: Batch) -> ModelFacts:
    """Return what is remembered of a model object, to be added to; errors are not.

    It is known of earlier problems of the same object, as it is of the same problem refreshed, if
    all its modules have kept their class, code, settings and hooks, loss and batches are of the
    same form, and these say all that there is to say: not with a loss or ``forward=`` of the user's
    own, nor with hooks, parametrizations or objects among the settings. Otherwise nothing is
    known, and nothing that is added is found again.

    Args:
        model: the user's.
        at: its copy, as it is evaluated.
        batch: the one that shows what is found out.
    """
    network, module = at.network, at.network.module
    if (kinds := _kinds.get(module)) is None:
        parts = tuple((name, kind_of(part, ignored=())) for name, part in module.named_modules())
        tensors = (*module.named_parameters(), *module.named_buffers())
        kinds = _kinds[module] = parts, tuple((name, x.shape, x.dtype) for name, x in tensors)
    raw = batch.raw  # which may be a mapping of another library's
    leaves, tree = tree_flatten(dict(raw) if isinstance(raw, Mapping) else raw)
    given = tuple((x.shape, x.dtype) if isinstance(x, Tensor) else _comparable(x) for x in leaves)
    around = any(getattr(all_modules, name) for name in GLOBAL_HOOKS)
    own = not at.criterion.known or at.forward is not None or callable(batch.target)
    alone = any(parametrize.is_parametrized(part) for part in module.modules())  # a class for each
    if around or own or alone or not lasting((kinds, given)):
        return ModelFacts()
    form = (
        kinds,
        *(at.criterion.name, at.criterion.average, at.mode, at.seed, at.autocast),
        *(network.names, network.frozen_names, network.theta.dtype, network.theta.device),
        *(batch.target, repr(tree), given),
    )
    known = _remembered.setdefault(model, {})
    facts = known[form] = known.pop(form, ModelFacts())
    if len(known) > FORMS:
        del known[next(iter(known))]
    return facts


def kind_of(module: nn.Module, ignored: Collection[str] = SIZES) -> Hashable:
    """What modules have in common that run the same code, whatever their sizes."""
    own = vars(module)
    settings = tuple(
        (name, _comparable(value))
        for name, value in sorted(own.items())
        if name not in ignored and name not in OF_EVERY_MODULE
    )
    hooks = tuple(
        (name, (OBJECT, id(hook)))
        for name in OF_EVERY_MODULE
        if name.endswith("_hooks")
        for hook in own.get(name, {}).values()
    )
    torchs = type(module).__module__.startswith("torch.")
    tensors = (
        *((name, p is None) for name, p in module._parameters.items()),
        *(
            (name, b is None or (b.requires_grad, torchs or plain_value(b)))
            for name, b in module._buffers.items()
        ),
    )
    return type(module), type(module).forward, settings, hooks, tensors


def plain_value(value: Any) -> Hashable:
    """A number or a word that may be a switch; of other tensors and objects, only that they are."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.requires_grad:
        value = value.item()
    return value if value is None or isinstance(value, PLAIN) else ...


def _comparable(value: Any, depth: int = 3) -> Hashable:
    """A setting, such as an object that holds settings and no more, or which object it is."""
    if value is None or isinstance(value, (*PLAIN, FunctionType, BuiltinFunctionType)):
        return type(value), value
    if isinstance(value, (tuple, list)):
        return tuple(_comparable(part, depth) for part in value)
    if isinstance(value, (set, frozenset)):
        return frozenset(_comparable(part, depth) for part in value)
    if type(value) is dict and depth:
        return dict, tuple((key, _comparable(part, depth - 1)) for key, part in value.items())
    if type(value).__basicsize__ == NOTHING_ELSE and depth:  # all of it is in its attributes
        held = type(value), _comparable(vars(value), depth - 1)
        if lasting(held):
            return held
    return OBJECT, id(value)


def lasting(kind: Hashable) -> bool:
    """Whether what modules have in common tells them from all others, also after they are gone."""
    if isinstance(kind, (tuple, frozenset)):
        return all(map(lasting, kind))
    return kind != OBJECT
