"""``lossgeom bound pac-bayes``."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from lossgeom.bounds import Bound, PacBayes, pac_bayes
from lossgeom.cli.arguments import choices, optional, parsed
from lossgeom.cli.messages import say
from lossgeom.cli.prior import PriorOptions, hash_of, problem_and_prior
from lossgeom.cli.problem import FUNCTIONS, LossName
from lossgeom.cli.report import publish
from lossgeom.cli.terminal import epoch_display
from lossgeom.cli.user_code import explained, importable
from lossgeom.messages.checks import check_at_least, check_number
from lossgeom.problem.model_facts import Mode
from lossgeom.recording.bound_search import SEARCH, numbers_of
from lossgeom.recording.estimates import problem_facts
from lossgeom.recording.folder import check_may_write, read_manifest
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.forms import parse
from lossgeom.recording.json_files import plain
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import BOUND
from lossgeom.recording.rows import SUPERSEDES

HELP = f"""\
Bound the error on new data of networks drawn at random around a trained classifier.

{FUNCTIONS}

DATA returns the training data, all of it: what is bounded is the error on others like these.
The loss is 'cross_entropy'; for nn.BCEWithLogitsLoss() or nn.SoftMarginLoss(), MODEL returns a
lossgeom.Problem.

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
  how often networks drawn at random around the trained one, a new one for each example, err on new
  examples. They come from a normal distribution over the weights, the posterior. The bound comes
  from the error of such networks on DATA, and from how far the posterior is from another
  distribution around initial weights, the prior. The search moves the posterior to where the bound
  is low. Any weights will do for the prior, as long as DATA had no part in them, nor in what else
  MODEL holds fixed; those that training started from are the nearest. --basis says in which basis
  of the weights the posterior is diagonal.

what is written:
  DIR/report.html with DIR/figures/, DIR/bound.json, and the record that they are made from, with
  every constant and every assumption: whether it was checked, is yours to vouch for, or cannot be
  checked by anybody. A search that was stopped starts anew; a bound that is there already, of the
  same settings, weights and data, is shown again.

exit status:
  0  there is a bound, also where it is 1 and says nothing
  1  there is none, because the search diverged
  2  the model could not be made or loaded, or is none that this bounds"""

BasisName = Literal["standard", "decoupled", "recomputed", "exact"]


@dataclass(frozen=True)
class PacBayesOptions(PriorOptions):
    """The posterior, and how to search for it."""

    basis: Annotated[BasisName, optional(choices(get_args(BasisName)), "decoupled")] = "decoupled"
    """Basis of the posterior. standard: single weights; decoupled: eigenvectors of a Kronecker
    product, made once; recomputed: made every 10 epochs; exact: of each parameter's Hessian."""
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
    b: float = 0.1
    """More than the largest variance of the prior that is tried; not to be chosen by DATA."""
    prior_share: float = 0.0
    """Share of the batches, from the first, to train the prior's weights on, which the bound then
    leaves out: a prior that depends on data, and is labelled as such. The search starts there, and
    --checkpoint has no part in the bound. No other batch may have one in the weights of --prior."""
    # what is bounded is a classifier in mode="eval", and its search has a seed of its own
    loss: Annotated[LossName | None, tyro.conf.Fixed, tyro.conf.Suppress] = None
    mode: Annotated[Mode | None, tyro.conf.Fixed, tyro.conf.Suppress] = None
    seed: Annotated[int | None, tyro.conf.Fixed, tyro.conf.Suppress] = None
    search_seed: int = 0
    """Seed of what is drawn in the search, and of the networks."""


SETTINGS = ("basis", "epochs", "lr", "samples", "delta", "delta_prime", "b", "prior_share")
TOLD = ("title", "status", "bound", "config", "versions", "command", "notes", "checkpoint_notes")


def main(arguments: list[str]) -> int:
    """Compute the bound, print and write it; return the exit status."""
    options = parsed(PacBayesOptions, arguments, "bound pac-bayes", HELP)
    names, settings = options.factories(), {name: vars(options)[name] for name in SETTINGS}
    _check(options)
    with importable(*names):
        problem, notes, prior, told = problem_and_prior(options)
        config = plain({"bound": "pac-bayes", **options.config(), **told})
        folder = options.folder("bound")
        check_may_write(folder, config, BOUND, resume=True)  # before it takes its time
        of = hash_of(problem, prior)
        if _is_there(folder, of):
            say(f"{folder} holds this bound already; to search again, give another --out")
            return _shown(folder, options)
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
        record.update(**facts, bound=asdict(found.bound), bound_of=of)
        start = "A PAC-Bayes bound for"
        title = f"{start} {options.model}" if options.prior_share else options.title(start)
        command = shlex.join(["lossgeom", "bound", "pac-bayes", *arguments])
        lines = len(found.history) - found.diverged > 1
        record.describe(ForReport(title=title, figure=SEARCH if lines else None, command=command))
        record.finish("diverged" if found.diverged else "finished")
    return _shown(folder, options)


def _check(options: PacBayesOptions) -> None:
    """Check the settings, before a folder that holds others is complained of."""
    check_at_least(1, epochs=options.epochs)
    check_at_least(2, samples=options.samples)
    for name in ("lr", "b"):
        check_number(name, vars(options)[name], 0)
    for name in ("delta", "delta_prime"):
        check_number(name, vars(options)[name], 0, 1)
    check_number("prior_share", options.prior_share, 0, 1, at_low=True)


def _is_there(folder: Path, of: str) -> bool:
    """Whether a folder holds the bound that is computed from this."""
    manifest = read_manifest(folder) or {}
    return manifest.get("status") not in (None, "running") and manifest.get("bound_of") == of


def _shown(folder: Path, options: PacBayesOptions) -> int:
    """Print and write the bound that is in a folder; return the exit status."""
    manifest = Record.open(folder).manifest
    known = {key: manifest.get(key) for key in TOLD}
    bound = parse(Bound, known["bound"])
    publish(folder, "bound.json", known, str(bound), options.json)
    return int(bound.vacuous and known["status"] == "diverged")


def _write(record: Record, found: PacBayes) -> None:
    """Write the search for a bound, in place of what was there."""
    if record.rows():
        record.append({"step": 0, SUPERSEDES: record.written})
    for epoch in found.history:
        for metric, value in numbers_of(epoch).items():
            record.append({"step": epoch.epoch, "metric": metric, "value": value})
