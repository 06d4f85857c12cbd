"""How messages show names, choices and foreign text."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any


def one_of(choices: Iterable[object]) -> str:
    """Some choices, sorted.

    >>> one_of(["run", "list", "report"]), one_of(["digits"])
    ('list, report or run', 'digits')
    """
    *others, last = sorted(map(str, choices))
    return f"{', '.join(others)} or {last}" if others else last


def unknown(kind: str, name: str, choices: Iterable[str]) -> str:
    """The message for an unknown name, with the nearest known one.

    >>> unknown("command", "lsit", ["run", "list"])
    "unknown command 'lsit': did you mean list? expected list or run"
    """
    known = list(choices)
    near = difflib.get_close_matches(name.lower(), known, n=1)
    meant = f": did you mean {near[0]}?" if near else ";"
    return f"unknown {kind} {name!r}{meant} expected {one_of(known)}"


def printable(text: str, keep: str = "") -> str:
    r"""Text with unprintable characters escaped, but for those to keep.

    >>> printable("a\x1b[2Jb"), printable("1\n2", keep="\n")
    ('a\\x1b[2Jb', '1\n2')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def spelled(text: str, encoding: str, keep: str = "") -> str:
    r"""Text in which characters that a terminal or its encoding cannot show are escaped.

    >>> spelled("4.60 ± 0.20 in caf\udce9", "ascii")
    '4.60 +- 0.20 in caf\\udce9'
    """
    text = printable(text, keep)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "backslashreplace").decode(encoding)
    return text


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Write rows of a table below each other.

    >>> in_columns([["layer", "size"], ["0", "3 x 2"]])
    ['layer  size', '0      3 x 2']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def way_to_a_matrix(A: Any) -> str:
    """What to do with a thing that is close to a matrix."""
    kind = type(A).__module__.partition(".")[0]
    known = {
        "numpy": ", which torch.from_numpy makes a tensor",
        "scipy": ", which scipy.sparse.linalg.aslinearoperator makes an operator",
        "torch": f" of {getattr(A, 'ndim', '?')} dimensions",
    }
    return known.get(kind, "")
