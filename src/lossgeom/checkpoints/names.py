"""The names of a checkpoint, translated to those of the model."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

PARALLEL, COMPILED = "module.", "_orig_mod."  # what DataParallel and torch.compile put into names
DEEPEST = 32  # prefixes that are tried


def renamed(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str]:
    """Use the model's names for what wrappers have renamed; also the prefix that was taken off."""
    names = {name.replace(COMPILED, ""): name for name in own}
    plain = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    if len(plain) < len(state):  # two names would become one
        return dict(state), ""
    prefix = _prefix(plain, names)
    plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    return {names.get(name, name): tensor for name, tensor in plain.items()}, prefix


def _prefix(names: Collection[str], own: Collection[str]) -> str:
    """The shortest prefix of all names without which all are the model's own.

    If there is none, what wrappers for parallel training put before every name.
    """
    common = _common(min(names), max(names))
    places = [0, *(i + 1 for i, letter in enumerate(common) if letter == ".")][:DEEPEST]
    for place in places:
        if all(name[place:] in own for name in names):
            return common[:place]
    first = re.match(f"({re.escape(PARALLEL)})*", common)
    return "" if first is None or any(name in own for name in names) else first[0]


def _common(a: str, b: str) -> str:
    """What two names begin with."""
    same = (i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other)
    return a[: next(same, min(len(a), len(b)))]
