"""Files that are damaged, or made to do damage: one kind of error, and little memory."""

import pickle
import random
import struct
import zipfile

import pytest
import safetensors.torch
import torch
from torch import nn

from lossgeom.checkpoints import CheckpointError, load_checkpoint, read_checkpoint
from tests.checkpoints.files import net, saved, trained
from tests.damage import damaged


def contents(tmp_path):
    """A checkpoint in each form: its suffix, and its bytes."""
    state = trained().state_dict()
    saved(tmp_path / "new.pt", {"model": state, "epoch": 3, "schedule": [1, (0.1, None)]})
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    saved(tmp_path / "a.safetensors", state)
    return {name: (tmp_path / name).read_bytes() for name in ("new.pt", "old.pt", "a.safetensors")}


@pytest.mark.parametrize("name", ["new.pt", "old.pt", "a.safetensors"])
def test_damage_of_any_kind(tmp_path, name):
    """It is refused, or all that a checksum can show is as it was."""
    content, rng, refused = contents(tmp_path)[name], random.Random(0), 0
    for _ in range(250):
        path = tmp_path / f"damaged.{name.rpartition('.')[2]}"
        path.write_bytes(damaged(content, rng))
        model = net()
        try:
            load_checkpoint(model, path)
        except CheckpointError:
            refused += 1
            continue
        if name == "new.pt":
            theirs = trained().state_dict()
            assert all(torch.equal(t, theirs[n]) for n, t in model.state_dict().items())
    assert refused > 150


def test_a_record_that_claims_to_be_a_folder(tmp_path):
    """Of which torch reads nothing, and gives memory that nobody has written."""
    path = saved(tmp_path / "a.pt", {"w": torch.ones(3)})
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"a/data/0"))
    path.write_bytes(content[: entry + 38] + b"\x10" + content[entry + 39 :])
    with pytest.raises(CheckpointError, match="12 bytes does not have its checksum"):
        read_checkpoint(path)


def with_pickle(path, body):
    """An archive as torch.save writes it, with another pickle."""
    torch.save({"a": torch.ones(3)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(records)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**records, f"{folder}/data.pkl": body}.items():
            archive.writestr(name, content)
    return path


class Calls:
    """What is pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def tensor(size, stride=(1,), offset=0):
    storage = torch.arange(4.0)._typed_storage()
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (Calls(bytearray, 10**12), r"asks for memory with \S+bytearray"),
        (Calls(torch.FloatTensor, 10**12), "asks for memory with torch.FloatTensor"),
        (Calls(torch.UntypedStorage, 10**12), r"asks for memory with torch\S+UntypedStorage"),
        (tensor((10**12,)), r"a tensor of shape \(1000000000000,\), which does not lie in its"),
        (tensor((5,)), r"a tensor of shape \(5,\), which does not lie in its storage of 16 bytes"),
        (tensor((2,), (4,)), r"a tensor of shape \(2,\), which does not lie in its storage"),
        (tensor((2,), (1,), 3), r"a tensor of shape \(2,\), which does not lie in its storage"),
        (tensor((2,), (1,), -1), r"a tensor of shape \(2,\), which does not lie in its storage"),
        (tensor((-2,)), r"a tensor of shape \(-2,\), which does not lie in its storage"),
    ],
)
def test_what_asks_for_more_than_is_there(tmp_path, old, thing, message):
    path = tmp_path / "a.pt"
    torch.save({"w": thing}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)


def test_what_lies_in_its_storage(tmp_path):
    whole = torch.arange(12.0).reshape(3, 4)
    state = {"w": whole.T, "v": whole[1:, 2], "one": whole[2, 3], "none": whole[:0]}
    back, _ = read_checkpoint(saved(tmp_path / "a.pt", state))
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_one_number_for_very_many_places(tmp_path):
    """Each has the shape (10^12,), of one number in memory."""
    state = {name: torch.ones(1).expand(10**12) for name in ("weight", "bias")}
    path = tmp_path / "a.pt"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"weight is \(1000000000000,\) there and \(1, 2\)"):
        load_checkpoint(nn.Linear(2, 1), path)


def test_numbers_that_would_be_inflated(tmp_path):
    saved(tmp_path / "a.pt", {"w": torch.zeros(1 << 20)})
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    assert (tmp_path / "a.pt").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"declares 4,19\d,\d+ bytes in a file of \d,\d+, or"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_storage_that_is_declared_too_large(tmp_path):
    torch.save({"w": torch.ones(3)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "a.pt").read_bytes()
    assert content.count(b"K\x03N") == 1
    many = b"J" + struct.pack("<i", 2**31 - 1) + b"N"
    (tmp_path / "a.pt").write_bytes(content.replace(b"K\x03N", many))
    with pytest.raises(CheckpointError, match=r"does not hold the 8,589,934,588 bytes of its stor"):
        read_checkpoint(tmp_path / "a.pt")


def test_a_key_that_goes_deep(tmp_path):
    body = b"\x80\x02}N" + b"\x85" * 100_000 + b"Ns."
    with pytest.raises(CheckpointError, match="to hold weights alone"):
        read_checkpoint(with_pickle(tmp_path / "a.pt", body))


def test_instructions_that_are_not_of_a_checkpoint(tmp_path):
    body = pickle.dumps({"a": bytearray(9)}, protocol=5)
    with pytest.raises(CheckpointError, match="to hold weights alone"):
        read_checkpoint(with_pickle(tmp_path / "a.pt", body))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_far_more_names_than_the_model_has(tmp_path, suffix, monkeypatch):
    one = torch.ones(1)
    path = saved(tmp_path / f"a{suffix}", {f"layer{i}": one.clone() for i in range(500)})
    for reader in (torch, "load"), (safetensors.torch, "load_file"):
        monkeypatch.setattr(*reader, lambda *_, **__: pytest.fail("its numbers were read"))
    with pytest.raises(CheckpointError, match=r"2 missing in the file .* 500 not in the model"):
        load_checkpoint(nn.Linear(2, 1), path)


def test_a_header_that_declares_more_than_there_is(tmp_path):
    header = b'{"w":{"dtype":"F32","shape":[750000000],"data_offsets":[0,3000000000]}}'
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_names_that_would_move_the_cursor(tmp_path, suffix):
    name = "w\x1b[2J\x1b]0;title\x07\u202e\x9b1m\r\n"
    path = saved(tmp_path / f"a{suffix}", {name: torch.ones(1)})
    with pytest.raises(CheckpointError, match=r"1 not in the model \(w\\x1b\[2J") as raised:
        load_checkpoint(nn.Linear(2, 1), path)
    assert str(raised.value).isprintable()
    saved(tmp_path / "b.pt", {name: {"weight": torch.ones(1, 2), "bias": torch.ones(1)}})
    (note,) = load_checkpoint(nn.Linear(2, 1), tmp_path / "b.pt", key=name)
    assert note.isprintable()
