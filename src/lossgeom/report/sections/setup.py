"""Configuration, environment, and how to repeat it."""

from __future__ import annotations

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
            "config": {key: _text(value) for key, value in _used(manifest).items()},
            "environment": {
                **manifest["versions"],
                "git commit": manifest["git_commit"] or "not in a repository",
                **{name: _text(fact) for name, fact in manifest["machine"].items()},
                **({"measured": _text(manifest["notes"])} if manifest.get("notes") else {}),
                "created": manifest["created"],
                "ended": manifest.get("ended", "not yet"),
            },
            "command": manifest.get("command"),
        },
    )


def _used(manifest: dict[str, Any]) -> dict[str, Any]:
    """The settings that the run made use of, also those of its study."""
    idle = manifest.get("idle_settings", ())

    def used(settings: dict[str, Any]) -> dict[str, Any]:
        return {
            key: used(value) if isinstance(value, dict) else value
            for key, value in settings.items()
            if key not in idle
        }

    return used(manifest["config"])


def _text(value: object) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(item)}" for name, item in value.items())
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
