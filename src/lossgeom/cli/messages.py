"""Results and messages, on terminals of any encoding."""

from __future__ import annotations

import sys

from lossgeom.messages.wording import spelled


def show(text: str) -> None:
    """Print a result, to standard output."""
    print(spelled(text, sys.stdout.encoding or "utf-8", keep="\n\t"), flush=True)  # noqa: T201


def say(text: str) -> None:
    """Print a message of one line, to standard error."""
    message = spelled(f"lossgeom: {text}", sys.stderr.encoding or "utf-8")
    print(message, file=sys.stderr, flush=True)  # noqa: T201
