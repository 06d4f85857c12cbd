"""Data-parallel training in two processes, of which the first measures, or both do."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import lossgeom as lg
import tests
from tests.integrations.runs import PROBE, Classifier

pytestmark = pytest.mark.slow


FRAMEWORKS = ["lightning", "transformers", "accelerate"]


def run_on_two(name: str, folder: Path, *more: str) -> lg.Record:
    """The record of a framework's run in two processes, the same as without being watched."""
    pytest.importorskip("accelerate", reason="the frameworks are not installed")
    source, root = Path(lg.__file__).parent.parent, Path(tests.__file__).parent.parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "PYTHONPATH": f"{source}:{root}",
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
    }
    command = [
        sys.executable,
        "-m",
        "tests.integrations.in_two_processes",
        name,
        str(folder),
        *more,
    ]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)[-3000:]
    record = lg.Record.open(folder / "record")
    assert record.status == "finished"
    assert record.series("loss")[0] == [0, 1]
    return record


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_first_process_measures_and_training_stays_the_same(tmp_path, name):
    run_on_two(name, tmp_path)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_both_measure_and_know_the_same(tmp_path, name):
    record = run_on_two(name, tmp_path, "shared")
    halves = [{key: value.chunk(2)[rank] for key, value in PROBE[0].items()} for rank in (0, 1)]
    whole = lg.Problem(Classifier(), "cross_entropy", halves, mode="train")
    (_, (first, last)), (_, (sharpness, _)) = map(record.series, ("loss", "sharpness"))
    assert first == pytest.approx(whole.loss(), rel=1e-5)
    assert sharpness == pytest.approx(lg.sharpness(whole).value, rel=1e-3)
    known = [json.loads((tmp_path / f"known-{rank}.json").read_text()) for rank in (0, 1)]
    assert known[0] == known[1]
    assert known[0]["lossgeom/loss"] == pytest.approx(last, rel=1e-6)
