"""The command line: ``lossgeom list``, ``run`` and ``report``."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lossgeom.record import RecordError

if TYPE_CHECKING:
    from lossgeom.claim import Claim
    from lossgeom.lab.runner import Progress as StudyProgress
    from lossgeom.lab.studies import Study

HELP = """\
usage: lossgeom COMMAND ...

Measure the geometry of a loss and the smoothness of its model, and say what follows.

commands:
  list                  what there is: studies, models, data sets, metrics
  run STUDY             train, measure, judge the claims of a paper, write a report
  report RUN [RUN ...]  write the report of records again, or of several together

examples:
  lossgeom run progressive_sharpening                    a minute or two; report in runs/
  lossgeom run progressive_sharpening --seeds 10 --lr 1  other settings
  lossgeom run progressive_sharpening --help             all of its settings
  lossgeom report runs/progressive_sharpening            from what is recorded by now

A run that was stopped goes on when the same command is given again.
Every command takes --help, and --debug to show tracebacks; lossgeom --version.
"""

RUN_HELP = """\
{study.title} ({study.source}).

examples:
  lossgeom run {study.name}                        quick, into runs/{study.name}
  lossgeom run {study.name} --seeds 10 --out DIR   more seeds, which make intervals narrower
  lossgeom run {study.name} --preset paper         the paper's own data and model

A run that was stopped goes on when the same command is given again."""

FAILED, USAGE_ERROR, INTERRUPTED = 1, 2, 130
USAGE_ERRORS = (ValueError, RecordError, ImportError, OSError)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where and how much to run."""

    out: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/STUDY)")
    ] = None
    """Folder for records, claims.json and report.html. One with the same study goes on."""
    seeds: int = 5
    """Seeds to run, which give the intervals."""
    workers: Annotated[
        int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: one per core)")
    ] = None
    """Parallel processes. The numbers do not depend on it."""
    preset: Literal["quick", "paper"] = "quick"
    """Defaults of the settings below: quick, or the paper's own."""
    strict: tyro.conf.FlagCreatePairsOff[bool] = False
    """Exit with 1 unless every claim is shown and every control contradicted."""


@dataclasses.dataclass(frozen=True)
class PresetOption:
    """What decides about the defaults of everything else."""

    preset: str = "quick"


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """What to report on."""

    runs: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help_behavior_hint="")
    ]
    """Folders of studies or of single runs."""
    out: Annotated[
        Path | None,
        tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: report.html in the first RUN)"),
    ] = None
    """The HTML file."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _command(arguments)
    except KeyboardInterrupt:
        _say("interrupted; the same command goes on from here")
        return INTERRUPTED
    except (*USAGE_ERRORS, RuntimeError) as error:
        if debug:
            raise
        _say(f"error: {' '.join(str(error).split())}")
        return USAGE_ERROR if isinstance(error, USAGE_ERRORS) else FAILED


def _command(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(importlib.metadata.version("lossgeom"))  # noqa: T201
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")  # noqa: T201
        return 0 if arguments else USAGE_ERROR
    commands = {"list": _list, "run": _run, "report": _report}
    name, *rest = arguments
    if name not in commands:
        raise ValueError(f"unknown command {name!r}; expected one of {', '.join(commands)}")
    return commands[name](rest)


# list


def _list(arguments: list[str]) -> int:
    @dataclasses.dataclass
    class ListOptions:
        """List studies, models, data sets and metrics."""

    tyro.cli(ListOptions, args=arguments, prog="lossgeom list")
    from lossgeom.lab.datasets import DATASETS
    from lossgeom.lab.models import MODELS
    from lossgeom.lab.studies import STUDIES
    from lossgeom.metrics import METRICS

    kinds = {
        "studies": {name: study.title for name, study in STUDIES.items()},
        "models": {name: _first_line(model) for name, model in MODELS.items()},
        "data sets": {name: _first_line(data) for name, data in DATASETS.items()},
        "metrics": {metric.__name__: _first_line(metric) for metric in METRICS},
    }
    for kind, members in kinds.items():
        print(kind)  # noqa: T201
        for name, text in members.items():
            print(f"  {name:<24}{text}")  # noqa: T201
    return 0


def _first_line(thing: Any) -> str:
    return str(thing.__doc__).strip().split("\n")[0]


# run


def _run(arguments: list[str]) -> int:
    from lossgeom.lab.runner import run_study
    from lossgeom.lab.studies import STUDIES
    from lossgeom.report import render

    if arguments[:1] in (["-h"], ["--help"]):
        print("usage: lossgeom run STUDY [--help] [OPTIONS]\n\nstudies:")  # noqa: T201
        for name, study in STUDIES.items():
            print(f"  {name:<24}{study.title}")  # noqa: T201
        return 0
    study = _study(arguments, STUDIES)
    options, config = _parse_run(study, arguments[1:])
    if options.seeds < 1 or (options.workers is not None and options.workers < 1):
        raise ValueError(
            f"expected --seeds and --workers of at least 1, got --seeds {options.seeds} and "
            f"--workers {options.workers}"
        )
    out = Path("runs", study.name) if options.out is None else options.out
    with _ProgressDisplay() as display:
        found = run_study(
            study,
            config,
            out,
            seeds=options.seeds,
            workers=options.workers,
            command=shlex.join(["lossgeom", "run", *arguments]),
            on_progress=display,
        )
    page = render([out])
    _print_claims(found)
    print(f"report: {page}")  # noqa: T201
    return int(options.strict and not all(claim.as_expected for claim in found))


def _study(arguments: list[str], studies: dict[str, Study]) -> Study:
    known = ", ".join(studies)
    if not arguments:
        raise ValueError(f"expected the name of a study: lossgeom run STUDY, with one of {known}")
    if arguments[0] not in studies:
        raise ValueError(f"unknown study {arguments[0]!r}; expected one of {known}")
    return studies[arguments[0]]


def _parse_run(study: Study, arguments: list[str]) -> tuple[RunOptions, Any]:
    """Options and settings, whose defaults depend on the preset."""
    first, _ = tyro.cli(PresetOption, args=arguments, return_unknown_args=True, add_help=False)
    defaults = study.paper if first.preset == "paper" else study.Config()
    both = dataclasses.make_dataclass(
        "Both",
        [
            ("options", Annotated[RunOptions, tyro.conf.arg(name="")]),
            (
                "settings",
                Annotated[study.Config, tyro.conf.arg(name="")],
                dataclasses.field(default=defaults),
            ),
        ],
    )
    parsed: Any = tyro.cli(
        both,
        args=arguments,
        prog=f"lossgeom run {study.name}",
        description=RUN_HELP.format(study=study),
    )
    return parsed.options, parsed.settings


def _print_claims(found: Sequence[Claim]) -> None:
    for claim in found:
        low, high = claim.interval
        control = " (control)" if claim.control else ""
        print(  # noqa: T201
            f"{claim.verdict:<13} {claim.statistic:6.3f} [{low:6.3f}, {high:6.3f}]  "
            f"{claim.id}{control}"
        )
        if claim.verdict == "inconclusive" and claim.note:
            print(f"              {claim.note}")  # noqa: T201


class _ProgressDisplay:
    """A bar with the time left on a terminal; elsewhere a line for each run that has ended."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.started = time.monotonic()
        self.first: float | None = None
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[finished]} of {task.total:.0f} runs"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> _ProgressDisplay:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def __call__(self, progress: StudyProgress) -> None:
        if self.task is None:
            self.task = self.bar.add_task("training", finished=0, total=progress.runs)
        self.bar.update(
            self.task,
            completed=progress.done,
            finished=progress.finished,
        )
        if self.console.is_terminal:
            return
        if self.first is None:
            self.first = progress.done
            if progress.finished:
                _say(f"{progress.finished} of {progress.runs} runs are finished already")
        elif progress.latest:
            elapsed = time.monotonic() - self.started
            left = elapsed * (progress.runs - progress.done) / (progress.done - self.first)
            _say(
                f"{progress.finished} of {progress.runs} runs are finished, about {left:.0f} s "
                f"left: {', '.join(progress.latest)}"
            )


# report


def _report(arguments: list[str]) -> int:
    options = tyro.cli(
        ReportOptions,
        args=arguments,
        prog="lossgeom report",
        description="Write the report of records, from what they hold by now.",
    )
    if not options.runs:
        raise ValueError("expected at least one folder: lossgeom report RUN [RUN ...]")
    from lossgeom.report import render

    print(f"report: {render(options.runs, options.out)}")  # noqa: T201
    return 0


def _say(text: str) -> None:
    print(f"lossgeom: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
