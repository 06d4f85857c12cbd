"""What the files of a record hold: the form of each, with which it is compared."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lossgeom.recording.for_report import DRAWINGS, ForReport
from lossgeom.recording.forms import Form, fields_of, mismatch, number
from lossgeom.wording import printable

SCHEMA = 2
ARRAY = re.compile(r"[A-Za-z0-9_-]+")
MEASUREMENT = "measurement"  # the kind of a record of one point
MATRICES = {
    "loss": "Loss",
    "hessian": "Hessian H",
    "gauss_newton": "Gauss-Newton matrix G",
    "residual": "Residual term H - G",
}

TEXT_OR_NONE = (str, None)
MANIFEST: Form = {
    **fields_of(ForReport),
    **{f"{drawing.key}?": [ARRAY] for drawing in DRAWINGS},
    "schema": SCHEMA,
    "kind": str,
    "config": dict,
    "status": str,
    "created": str,
    "versions": {"lossgeom": str, "torch": str, "*": str},
    "git_commit": TEXT_OR_NONE,
    "machine": dict,
    "contents?": {"rows": int, "sha256": {"*": str}, "arrays": [ARRAY]},
    "parameters?": int,
    "examples?": int,
    "batches?": int,
    "terms?": (float, None),
    "geometry?": dict,
    "planned?": [{"part": str, "matrix": set(MATRICES), "metric": str, "label": str}],
    "stability?": (
        {"lr": float, "momentum": float, "threshold": float, "formula?": str, "caution?": str},
        None,
    ),
    "checkpoint_notes?": [str],
    **dict.fromkeys(("ended?", "loss?", "mode?", "dtype?", "device?"), str),
}
MEASURED: Form = {"step": int, "metric": str, "value": float, "status?": str, "message?": str}
ESTIMATED: Form = {
    **MEASURED,
    "status": str,
    "stderr": (float, None),
    "residual": (float, None),
    "converged": bool,
    "matvecs": int,
    "seconds": float,
}
CLAIMS: Form = [
    {
        **dict.fromkeys(("id", "statement", "source", "measured", "note"), str),
        **dict.fromkeys(("control", "as_expected", "every?"), bool),
        "statistic": float,
        "per_seed": [float],
        "interval": [float, float],
        "expected": [float, float],
        "verdict": {"shown", "contradicted", "inconclusive"},
    }
]


class RecordError(Exception):
    """A folder is not what was expected; nothing has been written."""

    def __str__(self) -> str:
        return printable(str(self.args[0]))


def read_json(path: Path, form: Form) -> Any:
    """Read a file, whose content has to be of a form.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: with what is wrong, if it cannot be read or is of another form.
    """
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    wrong = mismatch(content, form)
    if wrong is not None:
        raise ValueError(f"{path} is damaged: {wrong}")
    return content


def checked_row(row: Any, kind: str) -> dict[str, Any]:
    """A row with its numbers, if it is of the form that its kind of record asks for.

    Raises:
        ValueError: with what is wrong.
    """
    form: Form = dict
    if isinstance(row, dict):
        row = {key: number(value) for key, value in row.items()}
        if "metric" in row:
            form = ESTIMATED if kind == MEASUREMENT else MEASURED
    wrong = mismatch(row, form)
    if wrong is not None:
        raise ValueError(wrong)
    return dict(row)


def read_rows(path: Path, kind: str) -> list[dict[str, Any]]:
    """All complete rows of a file; a last line without an end is not one.

    Raises:
        RecordError: if one cannot be read, is of another form, or there is no file.
    """
    try:
        *lines, _incomplete = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from None
    rows = []
    for i, line in enumerate(lines):
        try:
            rows.append(checked_row(json.loads(line), kind))
        except (ValueError, RecursionError) as error:
            raise RecordError(f"{path} is damaged in line {i + 1}: {error}") from error
    return rows
