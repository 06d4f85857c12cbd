"""``lossgeom run``."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lossgeom.cli.arguments import optional, parsed
from lossgeom.cli.messages import say, show
from lossgeom.cli.terminal import study_display
from lossgeom.messages.extras import require_lab
from lossgeom.messages.wording import one_of, unknown
from lossgeom.recording.claim import Claim, counted
from lossgeom.recording.folder import is_record
from lossgeom.recording.record import Record
from lossgeom.recording.tables import require_tables, write_tables
from lossgeom.report.render import NAME

if TYPE_CHECKING:
    from lossgeom.lab.executors import Executor
    from lossgeom.lab.studies import Study

HELP = """\
{study.title} ({study.source}).

examples:
  lossgeom run {study.name}                        quick, into runs/{study.name}
  lossgeom run {study.name} --seeds 10 --out DIR   more seeds, which make intervals narrower
  lossgeom run {study.name} --preset paper         the paper's own settings
  lossgeom run {study.name} --executor ray --ray-address auto --out DIR
  lossgeom run {study.name} --executor slurm --slurm partition=main time=120 --out DIR

A run that was stopped goes on when the same command is given again. On a cluster, DIR is a folder
that all of its machines share; the numbers are those of processes here."""
HELP_ALL = """\
Run every study, one after the other, and write one page with the claims of all.

examples:
  lossgeom run all                        quick: into runs/STUDY, runs/report.html, runs/runs.csv
  lossgeom run all --seeds 10 --out DIR   more seeds, into another folder
  lossgeom run all --executor ray         on a Ray cluster; see lossgeom run STUDY --help

What is finished is not repeated: a command that was stopped goes on when it is given again. A study
that fails does not keep the others from running; it is named at the end."""
ALL = "all"
STATEMENT = 100  # characters of one that are printed


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The folder of a study, and how much of it to run."""

    out: Annotated[Path | None, optional("DIR", "runs/STUDY")] = None
    """Folder for records, claims.json and report.html. A study that was stopped there goes on."""
    seeds: int = 6
    """Number of seeds; with fewer than 6, a median over seeds has no 95% interval."""
    workers: Annotated[int | None, optional("INT", "one per core")] = None
    """Runs at once, here never more than cores. The numbers do not depend on it."""
    executor: Literal["processes", "ray", "slurm"] = "processes"
    """What runs are: processes here, tasks on a Ray cluster, or jobs of Slurm."""
    ray_address: Annotated[str | None, optional("HOST:PORT", "RAY_ADDRESS, or one here")] = None
    """Ray cluster; auto: the one that this machine is part of; local: a new one here."""
    slurm: Annotated[tuple[str, ...], optional("NAME=VALUE ...", "time=60")] = ()
    """Options of sbatch by their long names, as partition=main mem=4G; time in minutes."""
    preset: Literal["quick", "paper"] = "quick"
    """Defaults of the settings below: quick, or the paper's own."""
    table: Literal["csv", "parquet"] = "csv"
    """Tables of the results: runs.csv and settings.csv, or runs.parquet and rows.parquet, too."""
    strict: tyro.conf.FlagCreatePairsOff[bool] = False
    """Exit with 1 unless every claim is shown and every control contradicted."""


def main(arguments: list[str]) -> int:
    """Run a study or all of them, print the claims, write the report; return the exit status."""
    from lossgeom.lab.studies import STUDIES

    if arguments[:1] in (["-h"], ["--help"]):
        show("usage: lossgeom run STUDY [--help] [OPTIONS]\n\nstudies:")
        for name, study in STUDIES.items():
            show(f"  {name:<24}{study.title}")
        show(f"  {ALL:<24}each of them, into one page of claims")
        return 0
    if arguments[:1] == [ALL]:
        return _all(STUDIES, arguments[1:])
    study = _study(arguments, STUDIES)
    options, config = _parse_run(study, arguments[1:])
    executor = _checked(options)
    out = Path("runs", study.name) if options.out is None else options.out
    found = _run(study, config, out, options, executor, ["lossgeom", "run", *arguments])
    _print_claims(found)
    show(f"report: {out / NAME}")
    return int(options.strict and not all(claim.as_expected for claim in found))


def _run(
    study: Study,
    config: Any,
    out: Path,
    options: RunOptions,
    executor: Executor,
    command: Sequence[str],
) -> list[Claim]:
    """Run a study into a folder and write its report, also where some of its runs failed."""
    from lossgeom.lab.runner import FailedRunsError, run_study
    from lossgeom.report import render

    with study_display() as on_progress:
        try:
            found = run_study(
                study, config, out, seeds=options.seeds, executor=executor,
                command=shlex.join(command), on_progress=on_progress,
                parquet=options.table == "parquet",
            )  # fmt: skip
        except FailedRunsError:
            show(f"report: {render([out])}")
            raise
    render([out])
    return found


def _all(studies: Mapping[str, Study], arguments: list[str]) -> int:
    """Run all studies, one after the other; one that fails does not keep others from running."""
    from lossgeom.lab.executors import message

    options = parsed(RunOptions, arguments, f"run {ALL}", HELP_ALL)
    executor = _checked(options)
    out = Path("runs") if options.out is None else options.out
    failed, as_expected = dict[str, Exception](), True
    for place, (name, study) in enumerate(studies.items(), 1):
        say(f"{place} of {len(studies)}: {study.title}")
        config = study.paper if options.preset == "paper" else study.Config()
        preset = ["--preset", "paper"] if options.preset == "paper" else []
        command = ["lossgeom", "run", name, "--seeds", str(options.seeds), *preset]
        command += [] if options.out is None else ["--out", str(out / name)]
        try:
            found = _run(study, config, out / name, options, executor, command)
        except Exception as error:  # of any kind, which is no reason to leave out the others
            failed[name] = error
            say(f"{name}: {message(error)}")
        else:
            show(f"{name}: {counted(found)}")
            as_expected &= all(claim.as_expected for claim in found)
    there = [out / name for name in studies if is_record(out / name)]
    if there:
        show(f"report: {_together(there, failed, out, options)}")
    if failed:
        raise RuntimeError(f"these studies failed, and the others are over: {', '.join(failed)}")
    return int(options.strict and not as_expected)


def _together(
    folders: Sequence[Path], failed: Collection[str], out: Path, options: RunOptions
) -> Path:
    """Write a table and a page of all studies, but for failed ones if they cannot be read."""
    from lossgeom.report import render

    try:
        write_tables(out, map(Record.open, folders), parquet=options.table == "parquet")
        return render(folders, out / NAME)
    except Exception:
        others = [folder for folder in folders if folder.name not in failed]
        if len(others) in (0, len(folders)):
            raise
        return _together(others, (), out, options)


def _checked(options: RunOptions) -> Executor:
    """Raise if any option cannot be, and return what runs are run by."""
    from lossgeom.lab.executors import Processes, Ray, Slurm

    for name, number in (("--seeds", options.seeds), ("--workers", options.workers)):
        if number is not None and number < 1:
            raise ValueError(f"expected {name} of at least 1, got {number}")
    require_lab()
    if options.table == "parquet":
        require_tables()
    for name, flag in (("ray", options.ray_address), ("slurm", options.slurm)):
        if flag and options.executor != name:
            raise ValueError(f"expected --executor {name} beside flags of {name}")
    if options.executor == "ray":
        return Ray(options.ray_address, options.workers)
    if options.executor == "slurm":
        pairs = (option.partition("=") for option in options.slurm)
        return Slurm(
            {name: value if sign else True for name, sign, value in pairs}, options.workers
        )
    return Processes(options.workers)


def _study(arguments: list[str], studies: dict[str, Study]) -> Study:
    if not arguments:
        raise ValueError(
            f"expected the name of a study: lossgeom run STUDY, with {one_of(studies)}"
        )
    if arguments[0] not in studies:
        raise ValueError(unknown("study", arguments[0], studies))
    return studies[arguments[0]]


def _parse_run(study: Study, arguments: list[str]) -> tuple[RunOptions, Any]:
    """Read the options and the settings, whose defaults depend on the preset."""
    preset = dataclasses.make_dataclass("Preset", [("preset", str, "quick")])
    first: Any
    first, _ = tyro.cli(preset, args=arguments, return_unknown_args=True, add_help=False)
    defaults = study.paper if first.preset == "paper" else study.Config()
    flat, settings = tyro.conf.arg(name=""), dataclasses.field(default=defaults)
    both = dataclasses.make_dataclass(
        "Both",
        [
            ("options", Annotated[RunOptions, flat]),
            ("settings", Annotated[study.Config, flat], settings),
        ],
    )
    options: Any = parsed(both, arguments, f"run {study.name}", HELP.format(study=study))
    return options.options, options.settings


def _print_claims(found: Sequence[Claim]) -> None:
    for claim in found:
        low, high = claim.interval
        interval = "no interval" if math.isnan(low) else f"[{low:6.3f}, {high:6.3f}]"
        statement = shorten(claim.statement, STATEMENT, placeholder=" ...")
        show(f"{claim.verdict:<13} {claim.statistic:6.3f} {interval:<16}  {statement}")
        if claim.verdict == "inconclusive" and claim.note:
            show(f"              {claim.note}")
