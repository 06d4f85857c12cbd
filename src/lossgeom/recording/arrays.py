"""Files of tensors, with facts about them and a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from lossgeom.problem.passes import digest
from lossgeom.recording.crash_safety import write_atomically
from lossgeom.recording.forms import ARRAY
from lossgeom.recording.json_files import plain
from lossgeom.recording.record_format import RecordError

Arrays = tuple[dict[str, Tensor], dict[str, Any]]


def array_path(folder: Path, name: str) -> Path:
    """The file of the arrays under a name.

    Raises:
        ValueError: if it is no name for a file.
    """
    if not ARRAY.fullmatch(name):
        raise ValueError(f"expected a name of letters, digits, - and _, got {name!r}")
    return folder / "arrays" / f"{name}.safetensors"


def save(path: Path, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts about them."""
    path.parent.mkdir(exist_ok=True)
    tensors: dict[str, Tensor] = {}
    known = set[int]()
    for key, tensor in arrays.items():
        kept = tensor.detach().cpu().contiguous()
        storage = kept.untyped_storage().data_ptr()
        tensors[key] = kept.clone() if storage in known else kept  # as where weights are tied
        known.add(storage)
    described = json.dumps(plain(facts))
    metadata = {"facts": described, "sha256": _checksum(tensors, described)}
    write_atomically(path, safetensors.torch.save(tensors, metadata))


def load(path: Path, *, expected: bool) -> Arrays | None:
    """The tensors of a file and the facts about them; None if there is no file.

    Raises:
        RecordError: if it is damaged, or is expected and is not there.
    """
    if expected and not path.exists():
        raise RecordError(f"{path} is missing, which was there when this had ended")
    if not path.exists():
        return None
    try:
        content = path.read_bytes()  # safe_open takes no path that is not in UTF-8
        tensors = safetensors.torch.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header["__metadata__"]
        if _checksum(tensors, metadata["facts"]) != metadata["sha256"]:
            raise ValueError("its checksum is another one")
        return tensors, json.loads(metadata["facts"])
    except Exception as error:
        raise RecordError(f"{path} is damaged: {error}") from error


def _checksum(tensors: Mapping[str, Tensor], described: str) -> str:
    parts = [(n, str(t.dtype), tuple(t.shape), digest(t)) for n, t in sorted(tensors.items())]
    return hashlib.sha256(repr((parts, described)).encode()).hexdigest()
