"""Which runs are drawn together, and what to call them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lossgeom.plot.style import level, literal, words
from lossgeom.recording.record import Record
from lossgeom.recording.tables import named_runs, opened

LONG = 60  # characters, beyond which a legend had better name folders

Groups = dict[str, list[str]]  # names of runs, by what to call them
Runs = Record | str | Path | Iterable[Record | str | Path]


def runs_of(records: Runs) -> dict[str, Record]:
    """Runs by name, those of studies among them."""
    return {name: run for name, _, run in named_runs(opened(records))}


def groups_of(records: dict[str, Record], colour: str | None) -> tuple[str, Groups]:
    """What the colours stand for, and the runs of each."""
    if colour:
        return words(colour), {words(k): names for k, names in settings(records, colour).items()}
    configs = [record.config for record in records.values()]
    keys = {key: None for config in configs for key in config}
    differing = [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs)]
    one = len(differing) == 1
    labels = [
        ", ".join(
            words(level(config.get(key)))
            if one
            else f"{words(key)} {words(level(config.get(key)))}"
            for key in differing
        )
        for config in configs
    ]
    if not differing or max(map(len, labels)) > LONG:
        return "run", {literal(name): [name] for name in records}
    groups = {
        f"{label} ({literal(name)})" if labels.count(label) > 1 else label: [name]
        for label, name in zip(labels, records, strict=True)
    }
    return words(differing[0]) if one else "run", groups


def settings(records: dict[str, Record], key: str) -> Groups:
    """The runs for each value of a setting."""
    values = sorted({record.config[key] for record in records.values()})
    return {
        level(value): [name for name, record in records.items() if record.config[key] == value]
        for value in values
    }
