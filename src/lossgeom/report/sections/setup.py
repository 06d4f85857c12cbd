"""Configuration, environment, and how to repeat it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lossgeom.report._section import Section
from lossgeom.report._source import Source


def setup(source: Source, figures: Path) -> Section:  # noqa: ARG001
    """What was asked, on which versions and machine, and the command that repeats it."""
    manifest = source.manifest
    return Section(
        "Configuration and environment",
        "setup.html",
        {
            "config": {
                key: as_text(value)
                for key, value in used(manifest["config"], source.told.idle_settings).items()
            },
            "environment": {
                **manifest["versions"],
                "git commit": manifest["git_commit"] or "not in a repository",
                **{name: as_text(fact) for name, fact in manifest["machine"].items()},
                **({"measured": "; ".join(source.told.notes)} if source.told.notes else {}),
                "created": manifest["created"],
                "ended": manifest.get("ended", "not yet"),
            },
            "command": source.told.command,
        },
    )


def used(settings: dict[str, Any], idle: Collection[str]) -> dict[str, Any]:
    """The settings that the run made use of, also those of its study."""
    return {
        key: used(value, idle) if isinstance(value, dict) else value
        for key, value in settings.items()
        if key not in idle
    }


def as_text(value: object) -> str:
    """Write a setting in words."""
    if isinstance(value, dict):
        return "; ".join(f"{name}: {as_text(item)}" for name, item in value.items())
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
