"""Arrays that the manifests of runs name, for a section to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lossgeom.report._source import Source


@dataclass(frozen=True)
class Saved:
    """What some runs hold under one name.

    Attributes:
        arrays: by name, one for each run that holds them.
        facts: of the first of them.
    """

    arrays: tuple[dict[str, np.ndarray], ...]
    facts: dict[str, Any]

    def stack(self, name: str) -> np.ndarray:
        """An array of all runs, runs first."""
        return np.stack([each[name] for each in self.arrays])


def saved(source: Source, key: str) -> dict[str, Saved]:
    """By the names that manifests list under ``key``; those that no run holds yet are left out."""
    found: dict[str, Saved] = {}
    for record in source.records.values():
        for name in record.manifest.get(key, ()):
            held = record.load_arrays(name)
            if held is None:
                continue
            arrays = {part: tensor.double().numpy() for part, tensor in held[0].items()}
            before = found.get(name, Saved((), held[1]))
            found[name] = Saved((*before.arrays, arrays), before.facts)
    return found
