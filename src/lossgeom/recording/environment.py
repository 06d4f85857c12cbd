"""Versions, git commit and machine of a run."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from typing import Any


def environment() -> dict[str, Any]:
    """Versions, git commit and machine, for a manifest."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("lossgeom", "torch", "numpy")},
        },
        "git_commit": _git_commit(),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
        },
    }


@functools.cache
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def _git_commit() -> str | None:
    """The commit of the working folder, with + if it has changes; None outside a repository."""
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],  # noqa: S607
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return git.stdout.strip() or None
