"""Files that are refused, and in which nothing is run."""

import argparse
import os
import pickle
import re
import warnings

import pytest
import torch
from torch import nn

from lossgeom.checkpoints import CheckpointError, load_checkpoint, read_checkpoint
from tests.checkpoints import files as checkpoints
from tests.checkpoints.files import net, saved


@pytest.fixture
def trained():
    return checkpoints.trained()


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["LOSSGEOM_TEST_FOLDER"],)


def harmful_plain(path):
    path.write_bytes(pickle.dumps({"weight": Harmful()}))


def harmful_zip(path):
    torch.save({"weight": torch.ones(1), "more": Harmful()}, path)


def whole_module(path):
    torch.save(net(), path)


def with_settings(path):
    torch.save({"model": net().state_dict(), "settings": argparse.Namespace(lr=1)}, path)


@pytest.mark.parametrize(
    ("write", "named"),
    [
        (harmful_plain, "posix.mkdir|something else"),
        (harmful_zip, r"posix\.mkdir"),
        (whole_module, r"torch\.nn\.modules\.container\.Sequential"),
        (with_settings, r"argparse\.Namespace"),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_what_could_run_code_is_not_run(tmp_path, monkeypatch, write, named, suffix):
    made = tmp_path / "made"
    monkeypatch.setenv("LOSSGEOM_TEST_FOLDER", str(made))
    path = tmp_path / f"a{suffix}"
    write(path)
    with pytest.raises(CheckpointError, match="to hold weights alone, found") as raised:
        read_checkpoint(path)
    assert re.search(f"found ({named}), which is not read because", str(raised.value))
    assert "torch.save(model.state_dict(), 'model.pt')" in str(raised.value)
    assert "weights_only" not in str(raised.value)
    assert not made.exists()


def test_the_harmful_file_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSGEOM_TEST_FOLDER", str(tmp_path / "made"))
    for write in (harmful_plain, harmful_zip):
        write(tmp_path / "a.pt")
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "made").exists()


def test_pickles_under_another_suffix(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSSGEOM_TEST_FOLDER", str(tmp_path / "made"))
    harmful_zip(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "a.safetensors")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("version", ["2.5.1", "2.9.1+cpu", "1.13.0"])
def test_versions_of_torch_that_can_be_exploited(tmp_path, trained, monkeypatch, version):
    path = saved(tmp_path / "a.pt", trained.state_dict())
    safe = saved(tmp_path / "a.safetensors", trained.state_dict())
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(
        CheckpointError, match=f"expected torch 2.10 or newer.*got {re.escape(version)}"
    ):
        read_checkpoint(path)
    assert read_checkpoint(safe)[0].keys() == trained.state_dict().keys()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.95])
def test_files_that_are_not_complete(tmp_path, trained, suffix, part):
    path = saved(tmp_path / f"a{suffix}", trained.state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(CheckpointError, match=r"cannot be read \(.+\); is it complete\?"):
        read_checkpoint(path)


def test_torchscript(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 1)), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, "found a dict with 'epoch'; save weights alone, with safetensors"),
        ({}, "found a dict; save weights alone"),
        ([torch.ones(1)], "found a list; save weights alone"),
        ({f"w{i}": i for i in range(9)}, "found a dict with 'w0', 'w1', 'w2', and 6 more"),
        (
            {"model": {"w": torch.ones(1)}, "state_dict": {"w": torch.zeros(1)}},
            "found state dicts at 'model' and at 'state_dict'; say which with key (on a command",
        ),
        ({"teacher": {"w": torch.ones(1)}, "epoch": 3}, "found a state dict at 'teacher'; say"),
    ],
)
def test_files_without_one_state_dict(tmp_path, content, message):
    with pytest.raises(
        CheckpointError, match="to hold one state dict, at top level or at"
    ) as raised:
        read_checkpoint(saved(tmp_path / "a.pt", content))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("key", "content", "message"),
    [
        ("b", {"a": {"w": torch.ones(1)}}, "at 'b', found a state dict at 'a'; say which with key"),
        ("a", {"a": {"epoch": 3}}, "one state dict, at 'a', found a dict with 'a'; save weights"),
        ("a", {"w": torch.ones(1)}, "at 'a', found one at top level; leave out the key"),
        ("a", [1], "one state dict, at 'a', found a list; save weights alone"),
    ],
)
def test_keys_without_a_state_dict(tmp_path, key, content, message):
    with pytest.raises(CheckpointError) as raised:
        read_checkpoint(saved(tmp_path / "a.pt", content), key=key)
    assert message in str(raised.value)


def test_other_suffixes(tmp_path):
    for name in ("a.npz", "a", "model.safetensors.index.json"):
        (tmp_path / name).touch()
        with pytest.raises(
            CheckpointError, match=f"in .safetensors, .pt, .pth, .bin, .ckpt, .tar, got '{name}'"
        ):
            read_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"expected a checkpoint at .*/b\.pt, found no file"):
        read_checkpoint(tmp_path / "b.pt")


def change(state, **changes):
    return {**state, **changes}


@pytest.mark.quick
@pytest.mark.parametrize(
    ("state", "message"),
    [
        (net(width=6).state_dict(), "0.weight is (6, 3) there and (5, 3) here; 0.bias is (6,) "
         "there and (5,) here; 1.weight is (6,) there and (5,) here; and 4 more. Make the model"),
        (net(bias=False).state_dict(), "does not fit the model: 1 missing in the file (2.bias)."),
        (change(net().state_dict(), extra=torch.ones(1)), "1 not in the model (extra)."),
        ({f"{k}.{k}": v for k, v in net().state_dict().items()}, "8 missing in the file (0.weight, "
         "0.bias, 1.weight, and 5 more); 9 not in the model (0.weight.0.weight, 0.bias.0.bias, "
         "1.weight.1.weight, and 6 more). Make the model with the settings that it was trained "
         "with, or rename what the file holds"),
        (change(net().state_dict(), **{"2.bias": torch.ones(2, dtype=torch.int8)}),
         "2.bias is torch.int8 there and torch.float32 here"),
    ],
)  # fmt: skip
def test_what_does_not_fit(tmp_path, state, message):
    with pytest.raises(CheckpointError) as raised:
        load_checkpoint(net(), saved(tmp_path / "a.pt", state))
    assert message in str(raised.value)
