"""What the file of a checkpoint declares, compared with what it holds before that is read.

``torch.load`` with ``weights_only=True`` runs no code of a file, but it makes what the file asks
for: a gigabyte of zeros from forty bytes, a tensor of memory that nobody has written, a key that is
a million tuples deep. So a pickle is first gone through with a reader that makes containers and
nothing else, and sizes, places in storages and checksums are compared with the file's.
"""

from __future__ import annotations

import io
import pickle
import struct
import sys
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from safetensors import safe_open
from torch import Tensor
from torch.serialization import StorageType

ZIP = b"PK\x03\x04"
OPCODES = (  # those that torch reads
    pickle.APPEND, pickle.APPENDS, pickle.BINFLOAT, pickle.BINGET, pickle.BININT, pickle.BININT1,
    pickle.BININT2, pickle.BINPERSID, pickle.BINPUT, pickle.BINUNICODE, pickle.BUILD,
    pickle.EMPTY_DICT, pickle.EMPTY_LIST, pickle.EMPTY_SET, pickle.EMPTY_TUPLE, pickle.GLOBAL,
    pickle.LONG1, pickle.LONG_BINGET, pickle.LONG_BINPUT, pickle.MARK, pickle.NEWFALSE,
    pickle.NEWOBJ, pickle.NEWTRUE, pickle.NONE, pickle.PROTO, pickle.REDUCE, pickle.SETITEM,
    pickle.SETITEMS, pickle.SHORT_BINSTRING, pickle.STOP, pickle.TUPLE, pickle.TUPLE1,
    pickle.TUPLE2, pickle.TUPLE3,
)  # fmt: skip
TENSORS = {f"torch._utils._rebuild_{what}" for what in ("tensor", "tensor_v2", "qtensor")}
WITH_DTYPE = "torch._utils._rebuild_tensor_v3"
PARAMETERS = {f"torch._utils._rebuild_parameter{more}" for more in ("", "_with_state")}
SUBCLASS = "torch._tensor._rebuild_from_type_v2"
MAKERS = ("bytearray", "Tensor", "Storage")  # make as much memory as a number says


def declared(path: Path) -> Any:
    """What a file says it holds, with tensors on the meta device for those in it.

    Raises:
        ValueError: if sizes or checksums are not those of the file.
        Exception: of any kind, if the file is of another form.
    """
    if path.suffix == ".safetensors":
        return _of_safetensors(path)
    if _is_zip(path):
        return _of_zip(path)
    with path.open("rb") as file:
        return _of_legacy(file, path)


def _of_safetensors(path: Path) -> dict[str, Tensor]:
    """Read the header, whose sizes the library compares with the file's."""
    with safe_open(path, framework="pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {
            name: torch.empty(part.get_shape(), dtype=TYPES[part.get_dtype()], device="meta")
            for name, part in parts.items()
        }


TYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16,
    "I16": torch.int16, "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64,
    "I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F64": torch.float64, "C64": torch.complex64, "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


def _of_zip(path: Path) -> Any:
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        sizes = {record.filename: record.file_size for record in records}
        if len(sizes) < len(records):
            raise ValueError("it holds two records of one name")
        if sum(sizes.values()) > size or any(r.compress_size != r.file_size for r in records):
            raise ValueError(
                f"it declares {sum(sizes.values()):,} bytes in a file of {size:,}, or bytes that "
                "are compressed, as torch.save writes none"
            )
        _without_absent_checksums(records)
        folder = records[0].filename.partition("/")[0]
        storages = _Storages(lambda key: sizes[f"{folder}/data/{key}"])
        return _Reader(io.BytesIO(archive.read(f"{folder}/data.pkl")), storages).load()


def check_numbers(path: Path, tensors: Iterable[Tensor]) -> None:
    """Compare what was read with the checksums of a zip archive, which torch does not.

    Raises:
        ValueError: if a storage has none of them.
    """
    if not _is_zip(path):
        return
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        orders = {archive.read(r) for r in records if r.filename.endswith("/byteorder") and r.CRC}
    if not any(record.CRC for record in records) or orders - {sys.byteorder.encode()}:
        return
    sums = {(record.file_size, record.CRC) for record in records}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in tensors}
    for storage in storages.values():
        numbers = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
        if (storage.nbytes(), zlib.crc32(numbers.data)) not in sums:
            raise ValueError(f"a tensor of {storage.nbytes():,} bytes does not have its checksum")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(ZIP)) == ZIP


def _without_absent_checksums(records: list[zipfile.ZipInfo]) -> None:
    """Drop checksums where ``torch.serialization.set_crc32_options`` left all of them out."""
    if not any(record.CRC for record in records):
        for record in records:
            del record.CRC


def _of_legacy(file: io.BufferedIOBase, path: Path) -> Any:
    """Read the form from before torch 1.6: pickles, then size and numbers of each storage."""
    left = path.stat().st_size
    storages = _Storages(lambda _: left)
    _magic, _protocol, _system = (_Reader(file, storages).load() for _ in range(3))
    content = _Reader(file, storages).load()
    keys = _Reader(file, storages).load()
    if set(keys) != storages.sizes.keys():
        raise ValueError("its list of storages is not that of its tensors")
    for key in keys:
        (numbers,) = struct.unpack("<q", file.read(8))
        item, nbytes = storages.items[key], storages.sizes[key]
        if numbers * item != nbytes or file.seek(nbytes, io.SEEK_CUR) > left:
            raise ValueError(f"it does not hold the {nbytes:,} bytes of its storage {key!r}")
    return content


class _Storages:
    """The storages that a pickle names, each not larger than what the file has for it."""

    def __init__(self, available: Callable[[str], int]) -> None:
        self.available = available
        self.sizes: dict[str, int] = {}
        self.items: dict[str, int] = {}

    def named(self, kind: str, of: _Name, key: str, where: str, numel: int, *view: Any) -> _Storage:  # noqa: ARG002
        """The storage of a persistent id."""
        if kind != "storage" or any(view):
            raise pickle.UnpicklingError("a storage that is a part of another one")
        name = of.name.rpartition(".")[2]
        dtype = torch.uint8 if name == "UntypedStorage" else cast(Any, StorageType)(name).dtype
        nbytes = numel * dtype.itemsize
        if not 0 <= nbytes <= self.available(key) or self.sizes.setdefault(key, nbytes) != nbytes:
            raise ValueError(f"it does not hold the {nbytes:,} bytes of its storage {key!r}")
        self.items[key] = dtype.itemsize
        return _Storage(dtype, nbytes)


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    nbytes: int


class _Thing:
    """Stands for what is not a tensor or a container; takes everything and keeps nothing."""

    def __setstate__(self, state: object) -> None: ...
    def __setitem__(self, key: object, value: object) -> None: ...
    def append(self, item: object) -> None: ...
    def extend(self, items: object) -> None: ...


@dataclass(frozen=True)
class _Name:
    """A function or class that a pickle names, and that is not looked up."""

    name: str

    def __call__(self, *args: Any) -> Any:
        if self.name in TENSORS:
            return _tensor(args[0].dtype, *args[:4])
        if self.name == WITH_DTYPE:
            return _tensor(getattr(torch, args[6].name.removeprefix("torch.")), *args[:4])
        if self.name in PARAMETERS:
            return args[0]
        if self.name == SUBCLASS:
            return args[0](*args[2])
        if self.name == "collections.OrderedDict":
            return _filled(OrderedDict(), (pair for pairs in args for pair in pairs))
        if self.name.endswith(MAKERS) and any(isinstance(each, int) for each in args):
            raise ValueError(f"it asks for memory with {self.name}{args}")
        return _Thing()


def _tensor(dtype: torch.dtype, storage: _Storage, offset: int, size: Any, stride: Any) -> Tensor:
    """A tensor without numbers, whose numbers would lie in its storage."""
    farthest = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    empty = 0 in size
    if min((offset, *size, *stride)) < 0 or (
        not empty and (farthest + 1) * dtype.itemsize > storage.nbytes
    ):
        raise ValueError(
            f"it declares a tensor of shape {tuple(size)}, which does not lie in its storage of "
            f"{storage.nbytes:,} bytes"
        )
    return torch.empty(size, dtype=dtype, device="meta")


def _filled(made: Any, items: Iterable[Any]) -> Any:
    """Add items to a dict, if their keys can be hashed without going deep."""
    for key, value in items:
        parts = key if isinstance(key, tuple) else (key,)
        if any(isinstance(part, tuple) for part in parts):
            raise pickle.UnpicklingError("a key of tuples in tuples")
        made[key] = value
    return made


class _Reader(pickle._Unpickler):
    """Reads a pickle without looking anything up that it names, and without calling it."""

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file: io.BufferedIOBase, storages: _Storages) -> None:
        pickle._Unpickler.__init__(self, file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module: str, name: str) -> _Name:
        return _Name(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        return self.storages.named(*pid)

    def _load_newobj(self) -> None:
        args, made = self.stack.pop(), self.stack.pop()
        self.append(made(*args))

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _filled(self.stack[-1], [(key, value)])

    def _load_setitems(self) -> None:
        items = self.pop_mark()
        _filled(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("an instruction that torch.save does not write")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **dict.fromkeys(range(256), _refuse),
        **{code[0]: pickle._Unpickler.dispatch[code[0]] for code in OPCODES},
        pickle.NEWOBJ[0]: _load_newobj,
        pickle.SETITEM[0]: _load_setitem,
        pickle.SETITEMS[0]: _load_setitems,
    }
