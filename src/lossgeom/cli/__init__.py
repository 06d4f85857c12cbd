"""The command line: ``lossgeom list``, ``run``, ``report``, ``measure`` and ``doctor``."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence

from lossgeom.cli import doctor, listing, measure, report, run
from lossgeom.cli.terminal import say, show
from lossgeom.record import RecordError

HELP = """\
usage: lossgeom COMMAND ...

Measure the geometry of a loss and the smoothness of its model, and say what follows.

commands:
  list                  what there is: studies, models, data sets, metrics
  run STUDY             train, measure, judge the claims of a paper, write a report
  report RUN [RUN ...]  write the report of records again, or of several together
  measure MODEL [DATA]  a checkpoint's geometry: eigenvalues, traces, spectral densities
  doctor MODEL [DATA]   which derivatives of your own model can be trusted, and which not

examples:
  lossgeom run progressive_sharpening                    a minute or two; report in runs/
  lossgeom run progressive_sharpening --seeds 10 --lr 1  other settings
  lossgeom run progressive_sharpening --help             all of its settings
  lossgeom report runs/progressive_sharpening            from what is recorded by now
  lossgeom measure net.py:model net.py:data --checkpoint trained.safetensors
  lossgeom doctor net.py:model net.py:data               functions that return them

What was stopped goes on when the same command is given again.
Every command takes --help, and --debug to show tracebacks; lossgeom --version."""

COMMANDS = {
    "list": listing.main,
    "run": run.main,
    "report": report.main,
    "measure": measure.main,
    "doctor": doctor.main,
}
RESUMED = ("run", "measure")

FAILED, USAGE_ERROR, INTERRUPTED = 1, 2, 130
USAGE_ERRORS = (ValueError, RecordError, ImportError, OSError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _command(arguments)
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from here" if arguments[0] in RESUMED else ""
        say(f"interrupted{goes_on}")
        return INTERRUPTED
    except (*USAGE_ERRORS, RuntimeError) as error:
        if debug:
            raise
        say(f"error: {' '.join(str(error).split())}")
        return USAGE_ERROR if isinstance(error, USAGE_ERRORS) else FAILED


def _command(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        show(importlib.metadata.version("lossgeom"))
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        show(HELP)
        return 0 if arguments else USAGE_ERROR
    name, *rest = arguments
    if name not in COMMANDS:
        raise ValueError(f"unknown command {name!r}; expected one of {', '.join(COMMANDS)}")
    return COMMANDS[name](rest)
