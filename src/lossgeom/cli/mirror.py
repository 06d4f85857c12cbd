"""``lossgeom mirror``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lossgeom.cli.arguments import named, optional, parsed, records_among
from lossgeom.cli.messages import show
from lossgeom.cli.terminal import through
from lossgeom.messages.extras import required

if TYPE_CHECKING:
    from lossgeom.mirrors import Mirror

HELP = """\
Write what records hold into TensorBoard, W&B, MLflow or Trackio, a run for each.

examples:
  lossgeom mirror runs/mine --to tensorboard      into tensorboard/mine
  lossgeom mirror runs/* --to wandb --project p   all records; of a study, each of its runs
  lossgeom mirror runs/mine --to console          as text

W&B, MLflow and Trackio get new runs each time; in TensorBoard they take the place of the last ones.
Where MLflow has them, MLFLOW_TRACKING_URI says. Of several, what is no record is left out."""
WITH_FOLDER = ("tensorboard", "wandb")


@dataclasses.dataclass(frozen=True)
class MirrorOptions:
    """Which records to write where."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, named("RUN [RUN ...]")]
    """Folders of studies or of single runs."""
    to: Literal["console", "mlflow", "tensorboard", "trackio", "wandb"]
    """Where to."""
    folder: Annotated[Path | None, optional("DIR", "tensorboard, or W&B's own choice")] = None
    """Folder of TensorBoard's or W&B's files."""
    project: str = "lossgeom"
    """Project of W&B or Trackio, experiment of MLflow."""
    verbose: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write residuals, standard errors and seconds, too."""


def main(arguments: list[str]) -> int:
    """Write records elsewhere; return the exit status."""
    options = parsed(MirrorOptions, arguments, "mirror", HELP)
    if not options.runs:
        raise ValueError("expected at least one folder: lossgeom mirror RUN [RUN ...] --to WHERE")
    if options.folder and options.to not in WITH_FOLDER:
        raise ValueError(f"expected --folder with tensorboard or wandb, got it with {options.to}")
    from lossgeom.mirrors import key
    from lossgeom.recording.record import Record
    from lossgeom.recording.rows import latest
    from lossgeom.recording.tables import named_runs

    runs = named_runs(map(Record.open, records_among(options.runs)))
    keys = [key(name) for name, _, _ in runs]
    for i, (name, _, record) in enumerate(runs):
        rows = latest(record.rows())
        folder = keys[i] if keys[i] and keys.count(keys[i]) == 1 else f"{keys[i]}-{i + 1}"
        try:
            mirror = _mirror(options, name, folder, record.config)
            for row in through(rows, name):
                mirror.write(row)
            mirror.close()
        except (ImportError, BrokenPipeError):
            raise
        except Exception as error:  # of any kind, which other libraries have
            raise RuntimeError(f"{options.to} did not take {record.path}: {error}") from error
        show(f"{record.path}: {len(rows)} measurements to {options.to}")
    return 0


def _mirror(options: MirrorOptions, name: str, folder: str, config: dict[str, Any]) -> Mirror:
    """What writes one run, which is begun where there are such, or else has a folder."""
    from lossgeom import mirrors
    from lossgeom.recording.folder import flat

    start = {"project": options.project, "name": name, "config": config}
    if options.to == "console":
        return mirrors.Console()
    if options.to == "tensorboard":
        path = (options.folder or Path("tensorboard")) / folder
        return mirrors.TensorBoard(path, verbose=options.verbose, purge_step=0)
    if options.to == "wandb":
        return mirrors.WandB(start={**start, "dir": options.folder}, verbose=options.verbose)
    if options.to == "trackio":
        return mirrors.Trackio(start=start, verbose=options.verbose)
    mlflow = required("mlflow")
    mlflow.set_experiment(options.project)
    mirror = mirrors.MLflow(start={"run_name": name}, verbose=options.verbose)
    mlflow.log_params({mirrors.key(name): value for name, value in flat(config).items()})
    return mirror
