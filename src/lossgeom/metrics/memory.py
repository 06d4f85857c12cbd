"""What metrics keep from one step of an optimiser for the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from lossgeom.metrics._track import Missed, Track

FORM = "form"  # the name beside those of tensors
KINDS: dict[str, type[Any]] = {"Missed": Missed, "Track": Track}


class Memory(dict[str, Any]):
    """What metrics keep from one step of an optimiser for the next, by keys of their own.

    With it in the checkpoint of a run, one that goes on from there measures the same bits as if it
    had not been stopped; without, eigenvectors are searched anew, to the tolerance of a metric.
    Give it to :meth:`lossgeom.Tracker.attach`.

    Holds numbers, text, tensors, and tuples and mappings of these.

    >>> memory, later = Memory(), Memory()
    >>> memory["eigenvector"] = torch.tensor([0.6, 0.8])
    >>> memory["value"] = 2.5, None
    >>> later.load_state_dict(memory.state_dict())
    >>> later
    {'eigenvector': tensor([0.6000, 0.8000]), 'value': (2.5, None)}
    """

    def state_dict(self) -> dict[str, Tensor]:
        """All that it holds, as tensors.

        Raises:
            TypeError: if a metric keeps something of another kind.
        """
        tensors: dict[str, Tensor] = {}
        form = json.dumps(_taken_apart(dict(self), tensors))
        return {**tensors, FORM: torch.frombuffer(bytearray(form, "utf-8"), dtype=torch.uint8)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Hold what another one held, in place of what is held."""
        form = json.loads(bytes(state[FORM].tolist()))
        self.clear()
        self.update(_together(form, state))


def _taken_apart(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What JSON holds of a value, with places in a dict for its tensors."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        place = str(len(tensors))
        tensors[place] = value
        return {"tensor": place, "device": str(value.device)}
    if isinstance(value, tuple):
        return [_taken_apart(item, tensors) for item in value]
    kind = type(value).__name__
    if isinstance(value, Mapping):
        kind, parts = "mapping", value
    elif kind in KINDS:
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
    else:
        raise TypeError(
            f"expected metrics to keep numbers, text, tensors, and tuples and mappings of these, "
            f"for a checkpoint to hold; got a {kind}"
        )
    return {kind: {key: _taken_apart(part, tensors) for key, part in parts.items()}}


def _together(form: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(form, list):
        return tuple(_together(item, tensors) for item in form)
    if not isinstance(form, dict):
        return form
    if "tensor" in form:
        return tensors[form["tensor"]].to(form["device"])  # a file holds them on the CPU
    ((kind, parts),) = form.items()
    known = {key: _together(part, tensors) for key, part in parts.items()}
    return KINDS.get(kind, dict)(**known)
