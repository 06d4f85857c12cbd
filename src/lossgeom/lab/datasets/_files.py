"""What readers of published files share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

ALGORITHMS = {32: "md5", 40: "sha1"}  # by the length of what they give


def check_published(file: Path, content: bytes, published: Mapping[str, str], source: str) -> None:
    """Raise for a file that is not the published one of its name, by its checksum.

    Args:
        file: its suffix .gz is not part of the name.
        content: unpacked.
        published: checksums by name, md5 or sha1.
        source: where the published one is.
    """
    name = file.name.removesuffix(".gz")
    algorithm = ALGORITHMS[len(published[name])]
    found = hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()
    if found != published[name]:
        raise ValueError(
            f"{file} has as many examples as the published file, and is another: expected the "
            f"{algorithm} {published[name]}, got {found}; get it again from {source}, or take it "
            "as it is with verify=False (--no-verify)"
        )
