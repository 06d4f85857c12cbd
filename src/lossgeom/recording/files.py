"""Files that are seen whole or not at all, and JSON that holds every number."""

import json
import math
import os
import re
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that it is seen with its old content or its new one, never in between."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def is_temporary(path: Path) -> bool:
    """Whether a file is what a process that was killed left of :func:`write_atomically`."""
    return re.fullmatch(r"\..+\.[0-9a-f]{32}\.tmp", path.name) is not None


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically; non-finite numbers become strings."""
    write_atomically(path, (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode())


def plain(value: Any) -> Any:
    """What JSON can hold: tuples as lists, paths and non-finite numbers as strings.

    >>> plain({"widths": (2, 3), "low": -math.inf})
    {'widths': [2, 3], 'low': '-inf'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):  # also one that says more, such as a threshold's formula
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    raise TypeError(
        f"expected what JSON can hold: text, numbers, lists and dicts of them; got a "
        f"{type(value).__name__}"
    )


def number(value: Any) -> Any:
    """A value as it was before ``plain``.

    >>> number("-inf"), number(2.5)
    (-inf, 2.5)
    """
    return float(value) if value in ("nan", "inf", "-inf") else value
