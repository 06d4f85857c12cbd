"""Loading weights from a file into a model, without running anything that it holds."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lossgeom.checkpoints.integrity import check_numbers, declared
from lossgeom.checkpoints.names import renamed
from lossgeom.checkpoints.weights import (
    CheckpointError,
    State,
    check_names,
    check_tensors,
    completed,
    differences,
    few,
)
from lossgeom.problem.model_copy import unwrapped

ENTRIES = (  # where training scripts put the weights
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights",
)  # fmt: skip
LEAST_TORCH = (2, 10)
SAVE = (
    "save weights alone, with safetensors.torch.save_model(model, 'model.safetensors') or "
    "torch.save(model.state_dict(), 'model.pt')"
)


def load_checkpoint(
    model: nn.Module, path: str | Path, *, key: str | None = None
) -> tuple[str, ...]:
    """Put the weights of a file into a model, all of them, and nothing else.

    Names are compared without what ``torch.compile`` and data-parallel wrappers put into them, and
    without a prefix that all of them have, such as Lightning's ``model.``, where all are names of
    the model then. A weight that the model uses under several names may be in the file under one of
    them, as ``transformers`` and safetensors save it. Types may differ in width: the model keeps
    its own. What the file declares is compared with the model before its numbers are read.

    Args:
        model: any module, also inside a wrapper; it is changed in place. After an error it may hold
            a part of the file.
        path: see :func:`read_checkpoint`.
        key: see :func:`read_checkpoint`.

    Returns:
        Notes on what was different between the file and the model.

    Raises:
        CheckpointError: if the file cannot be read, if names are missing or not expected, if
            shapes or kinds of numbers differ, or if names that share a weight have different
            values.

    >>> import tempfile
    >>> model = nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = folder + "/model.safetensors"
    ...     safetensors.torch.save_file({"weight": torch.ones(1, 2), "bias": torch.ones(1)}, file)
    ...     load_checkpoint(model, file)
    ()
    >>> model.weight.tolist()
    [[1.0, 1.0]]
    """
    path = Path(path)
    promised = _declared(path)
    inner, _ = unwrapped(model)
    own = {n: t for n, t in inner.state_dict(keep_vars=True).items() if isinstance(t, Tensor)}
    found = _state_dicts(promised, key)
    if len(found) == 1:
        check_tensors(renamed(next(iter(found.values())), own)[0], own, path)
    state, notes = _read(path, promised, key)
    state, prefix = renamed(state, own)
    state = completed(state, own, path)
    try:
        missing, unexpected = inner.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the model: {_first_line(error)}") from error
    check_names(missing, unexpected, path)
    return (*notes, *differences(prefix, state, own))


def read_checkpoint(path: str | Path, *, key: str | None = None) -> tuple[State, tuple[str, ...]]:
    """The weights in a file, by name, on the CPU.

    Args:
        path: ``.safetensors``; or ``.pt``, ``.pth``, ``.bin``, ``.ckpt`` or ``.tar`` as
            ``torch.save`` writes it, with a state dict at top level or at one of ``"state_dict"``,
            ``"model_state_dict"``, ``"model_state"``, ``"model"``, ``"net"``, ``"network"`` and
            ``"weights"``. Of these, torch reads tensors and plain containers only, and nothing in
            them is run.
        key: the entry with the state dict, where it has another name or there are several.

    Returns:
        The weights, and notes on where they were found.

    Raises:
        CheckpointError: for another suffix, no file, a file that is not complete or damaged, one
            that holds more than weights, or a version of torch before 2.10, in which reading one
            can be exploited (CVE-2025-32434, CVE-2026-24747).
    """
    path = Path(path)
    return _read(path, _declared(path), key)


def _declared(path: Path) -> Any:
    """What a file promises to hold, without reading its numbers."""
    if path.suffix not in READERS:
        raise CheckpointError(
            f"expected a checkpoint in {', '.join(READERS)}, got {path.name!r}; {SAVE}"
        )
    if not path.is_file():
        raise CheckpointError(f"expected a checkpoint at {path.absolute()}, found no file")
    if path.suffix != ".safetensors":
        _check_torch(path)
    with _explained(path):
        return declared(path)


def _read(path: Path, promised: Any, key: str | None) -> tuple[State, tuple[str, ...]]:
    """Read the weights, and compare them with what the file promised."""
    with _explained(path):
        state, notes = _state_dict(READERS[path.suffix](path), path, key)
        check_numbers(path, state.values())
    expected, _ = _state_dict(promised, path, key)
    forms = [{n: (t.shape, t.dtype) for n, t in each.items()} for each in (expected, state)]
    if forms[0] != forms[1]:
        raise CheckpointError(f"{path} is damaged: it does not hold the tensors that it declares")
    return state, notes


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise what goes wrong with a file as one kind of error; a damaged one raises any kind."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"expected {path} to hold weights alone, found {_refused(error)}, which is not read "
            f"because reading it could run code; where it was made, {SAVE}"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read ({_first_line(error)}); is it complete? If it is something "
            f"else than a state dict, {SAVE}"
        ) from error


def sha256(path: str | Path) -> str:
    """The hash of a file's content."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_torch(path: Path) -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < LEAST_TORCH:
        raise CheckpointError(
            f"expected torch 2.10 or newer to read {path.name}, got {torch.__version__}, in which "
            "a file of this kind can run code or corrupt memory even where only weights are asked "
            "for (CVE-2025-32434, CVE-2026-24747); update torch, or save the weights as "
            ".safetensors"
        )


def _read_pickled(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _refused(error: pickle.UnpicklingError) -> str:
    """The name of a function or class that torch refuses to make, if it gives one."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else "something else"


READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": safetensors.torch.load_file,
    ".pt": _read_pickled,
    ".pth": _read_pickled,
    ".bin": _read_pickled,
    ".ckpt": _read_pickled,
    ".tar": _read_pickled,  # as in .pth.tar
}


def _is_state_dict(thing: Any) -> bool:
    return (
        isinstance(thing, Mapping)
        and len(thing) > 0
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in thing.items())
    )


def _state_dict(loaded: Any, path: Path, key: str | None) -> tuple[State, tuple[str, ...]]:
    """The one state dict, and a note on where it was."""
    found = _state_dicts(loaded, key)
    if len(found) == 1:
        ((entry, state),) = found.items()
        return dict(state), () if entry is None else (f"checkpoint read from its entry {entry!r}",)
    where = "at top level or at " + ", ".join(map(repr, ENTRIES)) if key is None else f"at {key!r}"
    raise CheckpointError(f"expected {path} to hold one state dict, {where}, found {_what(loaded)}")


def _state_dicts(loaded: Any, key: str | None) -> dict[str | None, State]:
    """The state dicts at a key; or at top level, under None; or at the usual entries."""
    if key is None and _is_state_dict(loaded):
        return {None: loaded}
    entries = loaded if isinstance(loaded, Mapping) else {}
    names = ENTRIES if key is None else (key,)
    return {name: entries[name] for name in names if _is_state_dict(entries.get(name))}


def _what(loaded: Any) -> str:
    """What a file holds, and what to do about it."""
    if _is_state_dict(loaded):
        return "one at top level; leave out the key"
    entries = loaded if isinstance(loaded, Mapping) else {}
    there = [repr(name) for name, entry in entries.items() if _is_state_dict(entry)]
    if there:
        some = "a state dict" if len(there) == 1 else "state dicts"
        return f"{some} at {few(there, ' and at ')}; say which with key (on a command line --key)"
    kind = f"a {type(loaded).__name__}" + (f" with {few(map(repr, entries))}" if entries else "")
    return f"{kind}; {SAVE}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
