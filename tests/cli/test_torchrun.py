"""What the page on several processes says, by torchrun itself."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import lossgeom
from lossgeom.cli import main

pytestmark = pytest.mark.slow
PAGE = Path(__file__).parents[2] / "docs/how-to/several-processes.md"
NET = """
import torch
def model():
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)
    return torch.nn.Sequential(*layers).double()
def data():
    torch.manual_seed(1)
    x, y = torch.randn(20, 4).double(), torch.randint(3, (20,))
    return list(zip(x.split(5), y.split(5)))
def other():
    import os
    return data()[int(os.environ["RANK"]):]
"""
FEW = ["--k", "1", "--probes", "2", "--steps", "5", "--matvecs", "4", "--json"]


def torchrun(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Two processes of a command in a folder, which have found each other at a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    source = str(Path(lossgeom.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    return subprocess.run(
        [*launch, "--master-port", port, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_page_runs_and_prints_what_it_says(tmp_path):
    page = PAGE.read_text()
    (tmp_path / "train.py").write_text("".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)))
    done = torchrun(tmp_path, "train.py")
    assert done.returncode == 0, done.stderr
    (said,) = re.findall(r"```\n(at the edge.*?)```", page, re.DOTALL)

    def words(text: str) -> list[str]:
        return re.sub(r"[\d.]+", "", text).split()

    assert words(done.stdout) == words(said)  # numbers may differ in their last digit
    assert lossgeom.Record.open(tmp_path / "runs/ddp").status == "finished"


def test_measure_is_that_of_one_process(tmp_path, monkeypatch, capsys):
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    assert main(["measure", "net.py:model", "net.py:data", "--out", "one", *FEW]) == 0
    expected = json.loads(capsys.readouterr().out)
    measure = ["-m", "lossgeom", "measure", "net.py:model"]
    done = torchrun(tmp_path, *measure, "net.py:data", "--out", "two", *FEW)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # which one process has printed
    assert done.stderr.count("measuring 1 of 12") == 1
    assert len(found["quantities"]) == len(expected["quantities"]) > 10
    for here, there in zip(found["quantities"], expected["quantities"], strict=True):
        assert here["value"] == pytest.approx(there["value"], rel=1e-9), here["name"]


def test_other_data_in_each_process_is_an_error_of_all(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    done = torchrun(tmp_path, "-m", "lossgeom", "measure", "net.py:model", "net.py:other")
    assert done.returncode == 1
    assert done.stderr.count("lossgeom: error: expected all processes to have the same data") == 1
    assert not (tmp_path / "runs").exists()
