"""Data-parallel training in two processes, of which the first measures."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import lossgeom as lg
import tests

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["lightning", "transformers", "accelerate"])
def test_the_first_process_measures_and_training_stays_the_same(tmp_path, name):
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
    command = [sys.executable, "-m", "tests.integrations.in_two_processes", name, str(tmp_path)]
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
    record = lg.Record.open(tmp_path / "record")
    assert record.status == "finished"
    assert record.series("loss")[0] == [0, 1]
