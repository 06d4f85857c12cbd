"""What is built is whole, and says what it is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import lossgeom

ROOT = Path(__file__).parent.parent


@pytest.mark.quick
def test_the_citation_has_the_version_of_the_package():
    told = re.findall(r"^\s*version: (.*)$", (ROOT / "CITATION.cff").read_text(), flags=re.M)
    assert told == [lossgeom.__version__] * 2  # its own, and that of the preferred citation


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(tmp_path):
    """Which takes the libraries that it needs from this one."""
    pytest.importorskip("hatchling", reason="hatchling is not installed: the extra dev brings it")
    environment = {k: x for k, x in os.environ.items() if k != "PYTHONPATH"}

    def run(*command):
        done = subprocess.run(
            [str(each) for each in command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    build = ["build", "--no-isolation", "--outdir", tmp_path / "dist", ROOT]
    run(sys.executable, "-m", *build)  # the source first, and the wheel from that
    wheel, source = sorted(
        (tmp_path / "dist").iterdir(), key=lambda path: path.suffix, reverse=True
    )
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, source)
    run(sys.executable, "-m", "venv", tmp_path / "bare")
    python = tmp_path / "bare/bin/python"
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", wheel)
    (packages,) = (tmp_path / "bare/lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(str(Path(torch.__file__).parent.parent))
    where = run(python, "-c", "import lossgeom; print(lossgeom.Hessian, lossgeom.__file__)")
    assert str(packages) in where
    listed = run(tmp_path / "bare/bin/lossgeom", "list")
    assert "progressive_sharpening" in listed
    told = run(python, "-m", "lossgeom", "--version")
    assert told.strip() == lossgeom.__version__
