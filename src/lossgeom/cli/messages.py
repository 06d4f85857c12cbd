"""Results and messages, on terminals of any encoding."""

from __future__ import annotations

import re
import sys

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal would obey, not show


def show(text: str) -> None:
    """Print a result, to standard output."""
    print(spelled(text, sys.stdout.encoding or "utf-8"), flush=True)  # noqa: T201


def say(text: str) -> None:
    """Print a message, to standard error."""
    message = spelled(f"lossgeom: {text}", sys.stderr.encoding or "utf-8")
    print(message, file=sys.stderr, flush=True)  # noqa: T201


def spelled(text: str, encoding: str) -> str:
    r"""Text in characters that an encoding has, and that a terminal shows.

    >>> spelled("4.60 ± 0.20 in caf\udce9", "ascii")
    '4.60 +- 0.20 in caf\\udce9'
    """
    text = UNSEEN.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "backslashreplace").decode(encoding)
    return text
