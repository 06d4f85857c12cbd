"""Messages on terminals of any encoding."""

import os
from pathlib import Path

from tests.cli.test_cli import lossgeom
from tests.cli.test_measure import NET


def test_terminals_and_folders_of_any_encoding(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.mkdir(folder)
    Path(folder, "net.py").write_text(NET)
    few = ["--k", "1", "--probes", "2", "--steps", "3", "--matvecs", "4"]
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = lossgeom(
        "measure", f"{folder}/net.py:model", f"{folder}/net.py:data", *few, "--out", f"{folder}/a",
        cwd=tmp_path, env={**os.environ, **plain},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " +- " in done.stdout
    assert done.stdout.endswith("caf\\udce9/a/report.html\n")
