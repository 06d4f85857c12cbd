"""The command line: ``lossgeom list``, ``run``, ``report``, ``measure``, ``bound``, and more."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from lossgeom.cli.messages import say, show

HELP = """\
usage: lossgeom COMMAND ...

Measure the geometry of a loss and the smoothness of its model, and say what follows.

commands:
  list                  the studies, models, data sets, metrics and bounds of the library
  run STUDY             train, measure, judge the claims of a paper, write a report
  report RUN [RUN ...]  write the report of records again, or of several together
  measure MODEL [DATA]  a checkpoint's geometry: eigenvalues, traces, spectral densities
  bound NAME MODEL ...  what a theorem promises of a model on data that it has not seen
  mirror RUN --to NAME  write what is recorded into TensorBoard, W&B, MLflow or Trackio
  doctor MODEL [DATA]   which derivatives of your own model can be trusted, and which cannot

examples:
  lossgeom run progressive_sharpening                    a minute or two; report in runs/
  lossgeom run progressive_sharpening --seeds 10 --lr 1  other settings
  lossgeom run progressive_sharpening --help             all of its settings
  lossgeom run all                                       every study, into one page of claims
  lossgeom report runs/progressive_sharpening            from what is recorded so far
  lossgeom mirror runs/mine --to tensorboard             into tensorboard/mine
  lossgeom measure net.py:model net.py:data --checkpoint trained.safetensors
  lossgeom bound pac-bayes net.py:model net.py:data --checkpoint trained.safetensors
  lossgeom doctor net.py:model net.py:data               functions that return them

A run, measure or bound all that was stopped goes on when given again; bound pac-bayes starts anew.
Every command takes --help, and --debug to show tracebacks; lossgeom --version."""

# Modules of this room; they are imported once Ctrl-C is caught, because torch takes seconds.
COMMANDS = {
    "list": "listing",
    "run": "run",
    "report": "report",
    "measure": "measure",
    "bound": "bound",
    "mirror": "mirror",
    "doctor": "doctor",
}
RESUMED = ("run", "measure")

FAILED, USAGE_ERROR, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        try:
            return _command(arguments)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        if argv is None:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # one is enough
        goes_on = arguments and arguments[0] in RESUMED
        say("interrupted" + ("; the same command goes on from here" if goes_on else ""))
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has read enough
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        return PIPE_CLOSED
    except _expected_errors() as error:
        if debug:
            raise
        say(f"error: {' '.join(str(error).split())}")
        return FAILED if isinstance(error, RuntimeError) else USAGE_ERROR


def _expected_errors() -> tuple[type[Exception], ...]:
    """The errors that users meet; all but RuntimeError are mistakes of their own."""
    # torch takes seconds to import, and where this is not there, nothing has raised its error
    record = sys.modules.get("lossgeom.recording.record_format")
    others = () if record is None else (record.RecordError,)
    return (ValueError, ImportError, OSError, RuntimeError, *others)


def _command(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        from importlib.metadata import version

        show(version("lossgeom"))
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        show(HELP)
        return 0 if arguments else USAGE_ERROR
    if arguments[0].startswith("--tyro-"):
        from lossgeom.cli import completion

        return completion.main(arguments)
    name, *rest = arguments
    if name not in COMMANDS:
        from lossgeom.messages.wording import unknown

        raise ValueError(unknown("command", name, COMMANDS))
    command = importlib.import_module(f"lossgeom.cli.{COMMANDS[name]}")
    return int(command.main(rest))
