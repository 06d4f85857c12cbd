"""``lossgeom measure``."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch.optim import SGD

from lossgeom.cli.arguments import choices, optional, parsed
from lossgeom.cli.certificate import SAMPLINGS, certificate
from lossgeom.cli.checkpoint import CheckpointOptions, problem_at_checkpoint
from lossgeom.cli.problem import FUNCTIONS
from lossgeom.cli.report import publish
from lossgeom.cli.terminal import part_display
from lossgeom.cli.user_code import explained, importable
from lossgeom.distributed import OtherRankError, Ranks, launched
from lossgeom.metrics.geometry import Geometry
from lossgeom.metrics.structure import Structure
from lossgeom.problem import Problem
from lossgeom.problem.minibatches import shared
from lossgeom.recording.measuring import STEP
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import MEASUREMENT, RecordError
from lossgeom.recording.snapshot import measure
from lossgeom.stability import stability_threshold
from lossgeom.trust.trial import DerivativeError

HELP = f"""\
Measure the geometry of a loss at a checkpoint, or where a function leaves the model.

{FUNCTIONS}

examples:
  lossgeom measure net.py:model net.py:data --checkpoint trained.safetensors
                                                         into runs/measure-model-trained
  lossgeom measure net.py:model net.py:data --checkpoint trained.pt --examples 512 --k 3
                                                         faster: fewer examples and eigenvalues
  lossgeom measure net.py:model net.py:data --lr 0.1 --momentum 0.9
                                                         how far from the edge of stability
  lossgeom measure net.py:model net.py:data --lr 0.1 --batch-size 32
                                                         whether SGD stays at this minimum
  lossgeom measure net.py:model net.py:data --mode train
                                                         with the statistics of each batch
  lossgeom measure net.py:model net.py:data --structure
                                                         how far layers are Kronecker products
  lossgeom measure net.py:problem                        a Problem with a loss of its own
  lossgeom measure zoo.nets:gpt zoo.text:batches --loss next_token_cross_entropy
                                                         modules, and a language model's loss
  lossgeom measure net.py:model net.py:data --json > a.json
                                                         for another program
  torchrun --nproc-per-node 2 -m lossgeom measure net.py:model net.py:data
                                                         two processes share the batches

what is measured:
  the loss and the norm of its gradient; the largest eigenvalues of the Hessian, of which the first
  is the sharpness, the most negative one, trace, Frobenius norm and spectral density; the same of
  the Gauss-Newton matrix; the extreme eigenvalues and the trace of their difference. Each number
  has a residual or a standard error. With --lr, the edge of stability beside the sharpness; with
  --batch-size, too, whether SGD stays at this point, and why. With --structure, for each linear or
  convolutional layer: the top of its block of the Hessian, spectra of its Kronecker factors, the
  overlap of both, the form of its top eigenvectors, and the errors of Kronecker products.

what is written:
  DIR/report.html with DIR/figures/, DIR/measurement.json, and the record they are made from.
  A measurement that was stopped goes on when the same command is given again.

several processes:
  MODEL and DATA are called in each, and return the same in all; each measures on its share of the
  batches, and the first prints and writes. The numbers are those of one process, up to rounding.
  With GPUs, each process has its own: MODEL moves the model to "cuda".

exit status:
  0  measured, also where the loss is NaN or infinite
  2  the model could not be made, loaded or measured"""

SamplingName = Literal["without-replacement", "with-replacement", "reshuffling"]
THEIR_OWN_WORDS = (RecordError, OSError, DerivativeError)


@dataclass(frozen=True)
class MeasureOptions(CheckpointOptions):
    """What to measure, and how well."""

    k: Annotated[int | None, optional("INT", "10, or all")] = None
    """Number of largest eigenvalues; there are as many as parameters."""
    tol: float = Geometry.tol
    """Tolerance for the residual of an eigenvalue, relative to it."""
    max_matvecs: Annotated[int | None, optional("INT", "max(100, 20 k)")] = Geometry.max_matvecs
    """Products for each search of eigenvalues."""
    matvecs: int = Geometry.matvecs
    """Products for each trace and each Frobenius norm."""
    probes: int = Geometry.probes
    """Random probes for each spectral density."""
    steps: int = Geometry.steps
    """Products with each of these probes."""
    probe_seed: int = Geometry.seed
    """Seed of all probes and random starts."""
    lr: Annotated[float | None, optional("FLOAT")] = None
    """Learning rate of the run, to compare the sharpness with the edge of stability."""
    momentum: float = 0.0
    """Momentum of the run: heavy ball, as of torch's SGD without Nesterov and dampening. Of other
    optimisers compare lossgeom.effective_sharpness with lossgeom.stability_threshold, in Python."""
    batch_size: Annotated[int | None, optional("INT")] = None
    """Examples in a batch of the run, to certify that SGD stays at a minimum, or does not."""
    sampling: Annotated[
        SamplingName | None, optional(choices([*SAMPLINGS]), "without-replacement")
    ] = None
    """How the run draws its batches; a shuffling DataLoader does by reshuffling."""
    structure: tyro.conf.FlagCreatePairsOff[bool] = False
    """Measure each layer's block of the Hessian beside its Kronecker factors, too."""


def main(arguments: list[str]) -> int:
    """Measure, print and write it; return the exit status."""
    ranks = launched()
    try:
        return _measured(arguments, ranks)
    except OtherRankError as error:  # whose exit status is that of this one, too
        raise ValueError(str(error)) from error


def _measured(arguments: list[str], ranks: Ranks) -> int:
    options = parsed(MeasureOptions, arguments, "measure", HELP)
    geometry, edge = _geometry(options), _stability(options)
    names = options.factories()
    with importable(*names):
        problem, notes = ranks.together(lambda: _problem(options), level=STEP)
        if edge and options.batch_size is not None:
            with explained(f"{' and '.join(names)} to be measured", but=(ValueError,)):
                at_lr = edge["lr"], options.batch_size, options.momentum
                edge["sgd"] = certificate(problem, *at_lr, options.sampling)
        problem = shared(problem, ranks)
        folder, config = options.folder("measure"), _config(options)
        record = Record.create(folder, config, kind=MEASUREMENT, resume=True, ranks=ranks)
        with record, explained(f"{' and '.join(names)} to be measured", but=THEIR_OWN_WORDS):
            record.update(title=options.title("The geometry of"), checkpoint_notes=notes)
            if edge and problem.unset_mode:
                edge["caution"] = problem.unset_mode
            if edge or record.manifest.get("stability") is None:
                command = shlex.join(["lossgeom", "measure", *arguments])
                record.update(stability=edge, command=command)
            structure = _structure(options, record)
            with part_display(record) as around:
                measure(problem, record, geometry, structure=structure, around=around)
    ranks.together(lambda: _publish(folder, options.json) if ranks.rank == 0 else None)
    return 0


def _publish(folder: Path, as_json: bool) -> None:
    from lossgeom.report import as_text, summary

    found = summary(Record.open(folder))
    publish(folder, "measurement.json", found, as_text(found), as_json)


def _geometry(options: MeasureOptions) -> Geometry:
    given = {setting.name: vars(options)[setting.name] for setting in fields(Geometry)}
    given["seed"] = options.probe_seed  # --seed is that of the model
    return Geometry(**{name: value for name, value in given.items() if value is not None})


def _structure(options: MeasureOptions, record: Record) -> Structure | None:
    """The structure of layers, where it is asked for or was asked for before."""
    planned = record.manifest.get("planned") or ()
    if not options.structure and all(plan["matrix"] != "layers" for plan in planned):
        return None
    k = Structure.k if options.k is None else options.k
    return Structure(k=k, tol=options.tol, seed=options.probe_seed)


def _stability(options: MeasureOptions) -> dict[str, Any] | None:
    if not 0 <= options.momentum < 1:
        raise ValueError(f"expected --momentum in [0, 1), got {options.momentum}")
    if options.sampling and options.batch_size is None:
        raise ValueError("expected --batch-size, too, with --sampling")
    if options.lr is None:
        given = {"--momentum": options.momentum, "--batch-size": options.batch_size is not None}
        for name in (name for name, there in given.items() if there):
            raise ValueError(f"expected --lr, too, with {name}")
        return None
    if not 0 < options.lr < math.inf:
        raise ValueError(f"expected --lr > 0, got {options.lr}")
    optimizer = SGD([torch.zeros(1, requires_grad=True)], options.lr, options.momentum)
    threshold = stability_threshold(optimizer)
    settings = {"lr": options.lr, "momentum": options.momentum}
    return {**settings, "threshold": threshold, "formula": threshold.formula}


def _problem(options: MeasureOptions) -> tuple[Problem, list[str]]:
    problem, notes = problem_at_checkpoint(options)
    size = problem.theta.numel()
    if options.k is not None and options.k > size:
        raise ValueError(
            f"expected --k of at most {size}, the number of parameters, got {options.k}"
        )
    return problem, notes


def _config(options: MeasureOptions) -> dict[str, Any]:
    """The options that identify the measurement: not its folder, nor what it is compared with."""
    config = options.config("structure", "lr", "momentum", "batch_size", "sampling")
    return {**config, "k": Geometry.k if options.k is None else options.k}
