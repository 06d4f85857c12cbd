"""Results and messages, on terminals of any encoding."""

from __future__ import annotations

import os
import sys

from lossgeom.messages.wording import spelled


def is_first() -> bool:
    """Whether this process is the one that prints, where torchrun has started several."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ.get("RANK", "0") == "0"


def show(text: str) -> None:
    """Print a result, to standard output."""
    if is_first():
        print(spelled(text, sys.stdout.encoding or "utf-8", keep="\n\t"), flush=True)  # noqa: T201


def say(text: str) -> None:
    """Print a message of one line, to standard error."""
    message = spelled(f"lossgeom: {text}", sys.stderr.encoding or "utf-8")
    if is_first():
        print(message, file=sys.stderr, flush=True)  # noqa: T201
