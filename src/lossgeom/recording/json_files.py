"""JSON files that hold every number, and are replaced atomically."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lossgeom.recording.crash_safety import write_atomically


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically; non-finite numbers become strings."""
    write_atomically(path, (json.dumps(plain(content), indent=2, allow_nan=False) + "\n").encode())


def plain(value: Any) -> Any:
    """Turn tuples into lists, and paths and non-finite numbers into strings, as JSON needs it.

    >>> plain({"widths": (2, 3), "low": -math.inf})
    {'widths': [2, 3], 'low': '-inf'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float):  # also one with more to it, such as a threshold with its formula
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
