"""``lossgeom bound pac-bayes``."""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from lossgeom.bounds import PacBayes, pac_bayes
from lossgeom.checkpoints import load_checkpoint
from lossgeom.cli.arguments import choices, optional, parsed
from lossgeom.cli.checkpoint import CheckpointOptions, named_file, problem_at_checkpoint
from lossgeom.cli.problem import FUNCTIONS
from lossgeom.cli.report import publish
from lossgeom.cli.terminal import epoch_display
from lossgeom.cli.user_code import explained, importable, make
from lossgeom.problem import Problem
from lossgeom.problem.model_copy import unwrapped
from lossgeom.problem.passes import digest
from lossgeom.recording.bound_search import SEARCH, numbers_of
from lossgeom.recording.estimates import problem_facts
from lossgeom.recording.folder import ROWS, check_may_write
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.json_files import plain
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import BOUND
from lossgeom.recording.rows import SUPERSEDES

HELP = f"""\
Bound the error of a classifier on new data, from its training data alone.

{FUNCTIONS}
DATA returns the training data, all of it: what is bounded is the error on others like these.

examples:
  lossgeom bound pac-bayes net.py:model net.py:data --checkpoint trained.safetensors
                                                         from what net.py:model returns, with
                                                         torch.manual_seed(0): the model untrained
  lossgeom bound pac-bayes net.py:model net.py:data --checkpoint trained.pt --prior init.pt
                                                         which training started from these weights
  lossgeom bound pac-bayes net.py:model net.py:data --checkpoint trained.pt --prior 0
                                                         or from those of torch.manual_seed(0)
  lossgeom bound pac-bayes net.py:model net.py:data --checkpoint trained.pt --basis recomputed
                                                         the lowest bound, and the longest search
  lossgeom bound pac-bayes net.py:model net.py:data --checkpoint trained.pt --json > a.json
                                                         for another program

what is bounded:
  the error of a network that is drawn for each new example from a normal distribution around the
  trained weights, the posterior. The bound comes from the error of such networks on DATA, and from
  how far the posterior is from another distribution around initial weights, the prior. The search
  moves the posterior to where the bound is low. Any weights will do for the prior, as long as DATA
  had no part in them, nor in what else MODEL holds fixed; those that training started from are the
  nearest. --basis says in which basis of the weights the posterior is diagonal.

what is written:
  DIR/report.html with DIR/figures/, DIR/bound.json, and the record that they are made from, with
  every constant and every assumption: whether it was checked, is yours to vouch for, or cannot be
  checked by anybody.

exit status:
  0  there is a bound, also where it is 1 and says nothing
  2  the model could not be made or loaded, or is none that this bounds"""

BasisName = Literal["standard", "decoupled", "recomputed", "exact"]


@dataclass(frozen=True)
class PacBayesOptions(CheckpointOptions):
    """The prior, the posterior, and how to search for it."""

    prior: Annotated[str | None, optional("FILE|SEED", "as MODEL returns it")] = None
    """Weights that DATA had no part in: a file, or a seed with which MODEL draws them."""
    basis: Annotated[BasisName, optional(choices(get_args(BasisName)), "decoupled")] = "decoupled"
    """Basis of the posterior: of single weights, or eigenvectors of layer Hessians: by a Kronecker
    product at the start, or again and again, or exactly."""
    epochs: int = 300
    """Passes over the data in search for the posterior."""
    lr: float = 2e-3
    """Learning rate of the search, by RMSprop."""
    samples: int = 1000
    """Networks that are drawn from the posterior for its error on DATA."""
    delta: float = 0.025
    """Probability that the bound does not hold, over the draw of the data."""
    delta_prime: float = 0.01
    """The same, over the draw of these networks."""
    prior_share: float = 0.0
    """Share of the batches, from the first, to train the prior's weights on, which the bound then
    leaves out: a prior that depends on data, and is labelled as such. The others must have no part
    in the weights of --prior."""
    search_seed: int = 0
    """Seed of what is drawn in the search, and of the networks."""


SEEDS = 2**63
SETTINGS = ("basis", "epochs", "lr", "samples", "delta", "delta_prime", "prior_share")
TOLD = ("title", "bound", "config", "versions", "command", "notes", "checkpoint_notes")


def main(arguments: list[str]) -> int:
    """Compute the bound, print and write it; return the exit status."""
    options = parsed(PacBayesOptions, arguments, "bound pac-bayes", HELP)
    names, settings = options.factories(), {name: vars(options)[name] for name in SETTINGS}
    with importable(*names):
        problem, notes, prior, told = _problem(options)
        config = plain({"bound": "pac-bayes", **options.config(), **told})
        folder = options.folder("bound")
        check_may_write(folder, config, BOUND, resume=True)  # before it takes its time
        expected = f"{' and '.join(names)} to be bounded"
        with (
            explained(expected, but=(ValueError, TypeError)),
            epoch_display(options.epochs) as tell,
        ):
            found = pac_bayes(
                problem, prior=prior, seed=options.search_seed, on_epoch=tell, **settings
            )
    with Record.create(folder, config, kind=BOUND, resume=True) as record:
        _write(record, found)
        facts = {**problem_facts(problem), "notes": problem.notes, "checkpoint_notes": notes}
        record.update(**facts, bound=asdict(found.bound))
        title = options.title("A PAC-Bayes bound for")
        command = shlex.join(["lossgeom", "bound", "pac-bayes", *arguments])
        record.describe(ForReport(title=title, figure=SEARCH, command=command))
        record.finish("diverged" if found.diverged else "finished")
    known = {key: record.manifest.get(key) for key in TOLD}
    publish(folder, "bound.json", known, str(found), options.json)
    return 0


def _problem(
    options: PacBayesOptions,
) -> tuple[Problem, list[str], dict[str, Tensor], dict[str, str]]:
    """The problem with notes on how it was loaded, and the prior with what identifies it."""
    if options.checkpoint is None and options.prior is None:
        raise ValueError(
            "expected --checkpoint with the trained weights, or --prior with those from before "
            "training, or both: MODEL alone returns one of them"
        )
    prior, told = dict[str, Tensor](), "MODEL after torch.manual_seed(0)"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        problem, notes = problem_at_checkpoint(options, before=lambda it: prior.update(_of(it)))
    if options.prior is not None:
        prior, told = _prior(options, options.prior)
    weights = problem.unflatten(problem.theta).items()
    if all(torch.equal(prior[name].to(trained), trained) for name, trained in weights):
        raise ValueError(
            "the weights of the prior are those of the model, in which DATA had a part: expected "
            "--checkpoint with trained weights, and --prior with those from before training"
        )
    hashes = [(name, digest(held)) for name, held in sorted(prior.items())]
    found = hashlib.sha256(repr(hashes).encode()).hexdigest()
    return problem, notes, prior, {"prior": told, "prior_weights": f"sha256 {found}"}


def _prior(options: PacBayesOptions, prior: str) -> tuple[dict[str, Tensor], str]:
    """The weights in a file, or those that the model draws with a seed, and which these are."""
    drawn = prior.isdecimal()
    if drawn and int(prior) >= SEEDS:
        raise ValueError(f"expected --prior as a FILE, or a SEED below 2**63, got {prior}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(prior) if drawn else 0)
        made = make(str(options.model))
    model: nn.Module = made.model if isinstance(made, Problem) else made
    if not drawn:
        load_checkpoint(model, prior, key=options.key)
    return _of(model), f"seed {int(prior)}" if drawn else named_file(Path(prior))


def _of(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model, whatever becomes of it."""
    return {name: held.clone() for name, held in unwrapped(model)[0].state_dict().items()}


def _write(record: Record, found: PacBayes) -> None:
    """Write the search for a bound, in place of what was there."""
    if record.rows():
        lines = (record.path / ROWS).read_bytes().count(b"\n")
        record.append({"step": 0, SUPERSEDES: lines})
    for epoch in found.history:
        for metric, value in numbers_of(epoch).items():
            record.append({"step": epoch.epoch, "metric": metric, "value": value})
