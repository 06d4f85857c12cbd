"""What was found out about a user's model, for its next problem."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from torch import nn

from lossgeom.batches import Batch, tensors_of
from lossgeom.problem import Problem
from lossgeom.problem.model_facts import Key
from lossgeom.trust.calls import kind_of, lasting

T = TypeVar("T")

_facts: WeakKeyDictionary[nn.Module, dict[Hashable, Any]] = WeakKeyDictionary()


def remembered(problem: Problem, batch: Batch, key: Key, find: Callable[[], T]) -> T:
    """Return a fact of a problem's model, and find it out if it is not known.

    It is known of earlier problems of the same model object, as it is of the same problem
    refreshed, if all its modules have kept their class, code, settings and hooks, loss and batches
    are of the same form, and these say all that there is to say: not with a loss or ``forward=`` of
    the user's own, nor with hooks or objects among the settings.

    Args:
        problem: the model.
        batch: the one that shows it.
        key: what it is, and depends on besides.
        find: finds it out; its errors are not remembered.
    """
    form = _form(problem, batch)
    facts = {} if form is None else _facts.setdefault(problem.model, {})
    if (form, key) not in facts:
        facts[form, key] = find()
    return cast(T, facts[form, key])


def _form(problem: Problem, batch: Batch) -> Hashable | None:
    """All that a fact may depend on but numbers; none where that cannot be said."""
    at, network = problem.evaluation, problem.network
    kinds = [(name, kind_of(part)) for name, part in network.module.named_modules()]
    if not at.criterion.known or at.forward is not None:
        return None
    if not all(lasting((kind,)) for _, kind in kinds):
        return None
    tensors = tuple((t.shape, t.dtype) for t in tensors_of(batch.raw))
    of_loss = at.criterion.name, at.criterion.average
    parameters = network.names, network.frozen_names, network.shapes, network.theta.dtype
    return tuple(kinds), of_loss, at.mode, at.seed, at.autocast, parameters, tensors
