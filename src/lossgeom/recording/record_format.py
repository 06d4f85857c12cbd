"""What the files of a record hold, compared with that where they are read and where written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lossgeom.recording.files import number
from lossgeom.wording import printable

SCHEMA = 2
LARGEST = 2**53  # up to which JSON's readers agree on whole numbers
DEEPEST = 32  # of what is in what
MATRICES = {"loss", "hessian", "gauss_newton", "residual"}
ARRAY = re.compile(r"[A-Za-z0-9_-]+")

# A type, a value, a set of values, a pattern; a list of one kind, or of several in order; a dict
# with keys, of which those with ? may be absent, or with any keys, as *; or a tuple, any of which.
Form = Any
TEXT_OR_NONE = (str, None)
DRAWN = ("curves", "heat_maps", "phase_planes", "predictions", "spectra")
LISTS = ("notes", "checkpoint_notes", "planned_runs", "planned_at_end", "idle_settings")
QUANTITY = {"metric": str, "label": str}
MANIFEST: Form = {
    "schema": SCHEMA,
    "kind": str,
    "config": dict,
    "status": str,
    "created": str,
    "versions": {"lossgeom": str, "torch": str, "*": str},
    "git_commit": TEXT_OR_NONE,
    "machine": dict,
    "contents?": {"rows": int, "sha256": {"*": str}, "arrays": [ARRAY]},
    "command?": TEXT_OR_NONE,
    "parameters?": int,
    "examples?": int,
    "batches?": int,
    "terms?": (float, None),
    "geometry?": dict,
    "planned?": [{**QUANTITY, "part": str, "matrix": MATRICES}],
    "stability?": (
        {"lr": float, "momentum": float, "threshold": float, "formula?": str, "caution?": str},
        None,
    ),
    "thresholds?": {"*": float},
    "threshold_formulas?": {"*": str},
    "planned_steps?": [int],
    "figure?": {
        "columns": TEXT_OR_NONE,
        "colour": TEXT_OR_NONE,
        "panels": [{**QUANTITY, "log": bool, "threshold?": str}],
    },
    "scatter?": (
        {
            "colour": str,
            "size": str,
            "caption": str,
            "panels": [{"x": QUANTITY, "y": QUANTITY}],
        },
        None,
    ),
    **{f"{name}?": [ARRAY] for name in DRAWN},
    **{f"{name}?": [str] for name in LISTS},
    **dict.fromkeys(
        ("ended?", "title?", "source?", "summary?", "loss?", "mode?", "dtype?", "device?",
         "left_out?", "thresholds_caution?"), str
    ),
}  # fmt: skip
MEASURED: Form = {"step": int, "metric": str, "value": float, "status?": str, "message?": str}
MEASUREMENT: Form = {
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


def read_json(path: Path, form: Form) -> Any:
    """What a file holds.

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


def read_row(line: bytes, kind: str) -> dict[str, Any]:
    """A row of a record of a kind, with its numbers.

    Raises:
        ValueError: with what is wrong.
    """
    try:
        row = json.loads(line)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    return checked_row(row, kind)


def checked_row(row: Any, kind: str) -> dict[str, Any]:
    """A row with its numbers, if it is of the form that its kind of record asks for."""
    if isinstance(row, dict):
        row = {key: number(value) for key, value in row.items()}
    form: Form = dict
    if isinstance(row, dict) and "metric" in row:
        form = MEASUREMENT if kind == "measurement" else MEASURED
    wrong = mismatch(row, form)
    if wrong is not None:
        raise ValueError(wrong)
    return dict(row)


def mismatch(value: Any, form: Form, at: str = "", depth: int = 0) -> str | None:
    """Say in words where a value is not of a form; None if it is."""
    if isinstance(form, dict) and isinstance(value, dict):
        return _wrong_fields(value, form, at, depth)
    if isinstance(form, list) and isinstance(value, list) and len(form) in (1, len(value)):
        forms = form * len(value) if len(form) == 1 else form
        found = (
            mismatch(item, of, f"{at}[{i}]", depth + 1)
            for i, (item, of) in enumerate(zip(value, forms, strict=True))
        )
        return next((wrong for wrong in found if wrong is not None), None)
    if isinstance(form, tuple):
        wrongs = [mismatch(value, each, at, depth) for each in form]
        return None if None in wrongs else wrongs[0]
    if _is_one(value, form):
        return "it is nested too deeply" if _is_deep(value, depth) else None
    shown = printable(repr(value)[:40])
    return f"expected {_words(form)}{f' at {printable(at)}' if at else ''}, found {shown}"


def _wrong_fields(value: dict[str, Any], form: dict[str, Form], at: str, depth: int) -> str | None:
    absent = [key for key in form if key[-1] not in "?*" and key not in value]
    if absent:
        return f"{at}{'.' if at else ''}{absent[0]} is missing"
    for key, item in value.items():
        of = form.get(key, form.get(f"{key}?", form.get("*", object)))
        wrong = mismatch(item, of, f"{at}.{key}" if at else key, depth + 1)
        if wrong is not None:
            return wrong
    return None


CHECKS: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    dict: lambda value: isinstance(value, dict),
    object: lambda value: True,  # noqa: ARG005
    int: lambda value: type(value) is int and abs(value) <= LARGEST,
    float: lambda value: type(number(value)) in (int, float) and _fits(number(value)),
}
WORDS = {str: "text", bool: "true or false", dict: "an object", int: "a whole number",
         float: "a number", None: "null"}  # fmt: skip


def _is_one(value: Any, form: Form) -> bool:
    if isinstance(form, type):
        return CHECKS[form](value)
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and form.fullmatch(value) is not None
    if isinstance(form, set):
        return isinstance(value, str) and value in form
    return not isinstance(form, (dict, list)) and type(value) is type(form) and value == form


def _fits(value: float) -> bool:
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _is_deep(value: Any, depth: int) -> bool:
    if depth > DEEPEST:
        return True
    inside = value.values() if isinstance(value, Mapping) else value
    return isinstance(value, (dict, list)) and any(_is_deep(item, depth + 1) for item in inside)


def _words(form: Form) -> str:
    if isinstance(form, re.Pattern):
        return "a name of letters, digits, - and _"
    if isinstance(form, set):
        return f"one of {', '.join(sorted(form))}"
    if isinstance(form, (dict, list)):
        return f"{'an object' if isinstance(form, dict) else 'a list'} of its form"
    return WORDS.get(form) or repr(form)
