"""Choices in words, for errors."""

import difflib
from collections.abc import Iterable


def one_of(choices: Iterable[object]) -> str:
    """Some choices, sorted.

    >>> one_of(["run", "list", "report"]), one_of(["digits"])
    ('list, report or run', 'digits')
    """
    *others, last = sorted(map(str, choices))
    return f"{', '.join(others)} or {last}" if others else last


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """What to say of a name that there is not.

    >>> unknown("command", "lsit", ["run", "list"])
    "unknown command 'lsit': did you mean list? expected list or run"
    """
    known = list(choices)
    near = difflib.get_close_matches(name.lower(), known, n=1)
    meant = f": did you mean {near[0]}?" if near else ";"
    return f"unknown {kind} {name!r}{meant} expected {one_of(known)}"
