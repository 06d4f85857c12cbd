"""The command line in the process of the tests."""

import subprocess

import pytest

from lossgeom.cli import main


@pytest.fixture(autouse=True)
def pages(pages_alone):
    """Figures are drawn for the page alone."""


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a command as a process of its own would, without the seconds that importing torch takes.

    What signals, encodings, workers and the end of a process do is tested in real ones.
    """

    def run(*arguments, cwd):
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = ended.code or 0
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, printed.out, printed.err)

    return run
