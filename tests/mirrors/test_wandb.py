"""Offline, read back from the file that W&B writes."""

import json
import struct

import pytest

from lossgeom.mirrors import WandB

pytestmark = pytest.mark.slow
wandb = pytest.importorskip("wandb", reason="wandb is not installed: make test-slow installs it")


@pytest.fixture
def start(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    return {"dir": str(tmp_path), "mode": "offline", "project": "test"}


def history(folder):
    """The entries of the history of the only run in a folder, as W&B has written them."""
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # until then, W&B keeps some of it
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    found = []
    for content in entries(file.read_bytes()):
        record = Record()
        record.ParseFromString(content)
        if record.HasField("history"):
            items = record.history.item
            found.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    private = ("_timestamp", "_runtime", "_wandb")
    return [{key: x for key, x in each.items() if key not in private} for each in found]


def entries(log):
    """The entries of a log in LevelDB's format, of one block: checksum, length, kind, content."""
    place = 7  # after W&B's own header
    while place + 7 <= len(log) < 2**15:
        length, kind = struct.unpack("<HB", log[place + 4 : place + 7])
        assert kind == 1, "in one piece"
        yield log[place + 7 : place + 7 + length]
        place += 7 + length


def row(step, metric, value, **more):
    return {"step": step, "metric": metric, "value": value, **more}


def test_a_run_of_its_own_has_an_entry_for_each_step(start, tmp_path):
    mirror = WandB(start=start)
    for step in (0, 50, 20):
        mirror.write(row(step, "loss", 0.5 + step))
        mirror.write(row(step, "sharpness", float("nan")))
        mirror.write(row(step, "sharpness (eval)", 3.0))
    mirror.close()
    assert wandb.run is None
    assert history(tmp_path) == [
        {"_step": place, "lossgeom/step": step, "lossgeom/loss": 0.5 + step,
         "lossgeom/sharpness_eval": 3.0}
        for place, step in enumerate((0, 50, 20))
    ]  # fmt: skip


def test_what_a_loop_logs_itself_keeps_its_steps(start, tmp_path):
    with pytest.raises(ValueError, match=r"expected a run of W&B .* call wandb.init"):
        WandB()
    assert wandb.run is None
    with wandb.init(**start) as run:
        mirror = WandB()
        for step in range(4):
            run.log({"mine": step}, step=step)
            if step % 2 == 0:
                mirror.write(row(step, "loss", 0.5))
                mirror.write(row(step, "sharpness", 3.0, seconds=1.0))
            run.log({"also": -step}, step=step)
        mirror.close()
        assert wandb.run is run
    measured = {"lossgeom/loss": 0.5, "lossgeom/sharpness": 3}
    assert history(tmp_path) == [
        {"_step": step, "mine": step, "also": -step}
        | ({"lossgeom/step": step} | measured if step % 2 == 0 else {})
        for step in range(4)
    ]
