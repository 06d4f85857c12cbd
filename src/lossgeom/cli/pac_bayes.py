"""``lossgeom bound pac-bayes``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor, nn

from lossgeom.bounds import Bound, Epoch, PacBayes, pac_bayes
from lossgeom.checkpoints import load_checkpoint
from lossgeom.cli.arguments import choices, optional
from lossgeom.cli.bound_options import BoundCommand, BoundOptions, Prepared, Row, Tell
from lossgeom.cli.checkpoint import named_file, problem_at_checkpoint
from lossgeom.cli.problem import FUNCTIONS
from lossgeom.cli.user_code import make
from lossgeom.problem import Problem
from lossgeom.problem.model_copy import unwrapped
from lossgeom.recording.for_report import Panel, Trajectories

HELP = f"""\
Bound the error of a classifier on new data, from its training data alone.

{FUNCTIONS}
DATA returns the training data, all of it: what is bounded is the error on others like these.

examples:
  lossgeom bound pac-bayes net.py:model net.py:data --checkpoint trained.safetensors
                                                         net.py:model returns the model untrained
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
  had no part in them; those that training started from are the nearest. --basis says in which basis
  of the weights the posterior is diagonal.

what is written:
  DIR/report.html with DIR/figures/, DIR/bound.json, and the record that they are made from, with
  every constant and every assumption: whether it was checked, is yours to vouch for, or cannot be
  checked by anybody.

exit status:
  0  there is a bound, also where it is 1 and says nothing
  2  the model could not be made or loaded, or is none that this bounds"""

BasisName = Literal["standard", "decoupled", "recomputed", "exact"]


@dataclass(frozen=True)
class PacBayesOptions(BoundOptions):
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
    leaves out: a prior that depends on data, and is labelled as such."""
    search_seed: int = 0
    """Seed of what is drawn in the search, and of the networks."""


def prepare(options: PacBayesOptions) -> Prepared:
    """Read the options, and load the model and the prior."""
    if options.checkpoint is None and options.prior is None:
        raise ValueError(
            "expected --checkpoint with the trained weights, or --prior with those from before "
            "training, or both: MODEL alone returns one of them"
        )
    prior: dict[str, Tensor] = {}
    problem, notes = problem_at_checkpoint(options, before=lambda model: prior.update(_of(model)))
    config = {}
    if options.prior is not None:
        prior, config["prior"] = _prior(options, options.prior)
    weights = problem.unflatten(problem.theta).items()
    if all(torch.equal(prior[name].to(trained), trained) for name, trained in weights):
        raise ValueError(
            "the weights of the prior are those of the model, in which DATA had a part: expected "
            "--checkpoint with trained weights, and --prior with those from before training"
        )
    settings: dict[str, Any] = {"seed": options.search_seed}
    names = ("basis", "epochs", "lr", "samples", "delta", "delta_prime", "prior_share")
    settings |= {name: vars(options)[name] for name in names}

    def compute(tell: Tell) -> tuple[Bound, list[Row], str]:
        def on_epoch(epoch: Epoch) -> None:
            bits = f"loss {epoch.surrogate:.3f} bits + complexity {epoch.complexity:.3f}"
            tell(epoch.epoch, f"{bits}, KL {epoch.kl:.4g}")

        found = pac_bayes(problem, prior=prior, on_epoch=on_epoch, **settings)
        return found.bound, list(_rows(found)), str(found)

    return Prepared(problem, notes, config, options.epochs, compute)


def _prior(options: PacBayesOptions, prior: str) -> tuple[dict[str, Tensor], str]:
    """The weights in a file, or those that the model draws with a seed, and which these are."""
    seed = int(prior) if prior.isdecimal() else 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = make(str(options.model))
    model: nn.Module = made.model if isinstance(made, Problem) else made
    if prior.isdecimal():
        return _of(model), f"seed {seed}"
    load_checkpoint(model, prior, key=options.key)
    return _of(model), named_file(Path(prior))


def _of(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model, whatever becomes of it."""
    return {name: held.clone() for name, held in unwrapped(model)[0].state_dict().items()}


def _rows(found: PacBayes) -> Iterator[Row]:
    """What the search was at after each epoch, and where it ended."""
    for epoch in found.history:
        yield epoch.epoch, "objective", epoch.surrogate + epoch.complexity
        yield epoch.epoch, "kl", epoch.kl
        yield epoch.epoch, "prior_variance", epoch.prior_variance


COMMAND = BoundCommand(
    title="A PAC-Bayes bound",
    summary="Bound the error of a classifier on new data, from its training data alone.",
    options=PacBayesOptions,
    help=HELP,
    prepare=prepare,
    figure=Trajectories(
        step="epoch",
        panels=(
            Panel("objective", "surrogate of the bound:\nloss in bits + complexity", log=True),
            Panel("kl", "KL, nats", log=True),
            Panel("prior_variance", "variance of the prior", log=True),
        ),
    ),
)
