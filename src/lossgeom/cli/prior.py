"""A problem on the command line with weights that its data had no part in."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor, nn

from lossgeom.checkpoints import load_checkpoint
from lossgeom.cli.arguments import optional
from lossgeom.cli.checkpoint import CheckpointOptions, named_file, problem_at_checkpoint
from lossgeom.cli.user_code import make
from lossgeom.problem import NonFiniteError, Problem
from lossgeom.problem.model_copy import unwrapped
from lossgeom.problem.passes import digest, fingerprint

SEEDS = 2**63


@dataclass(frozen=True)
class PriorOptions(CheckpointOptions):
    """A problem, and the prior."""

    prior: Annotated[str | None, optional("FILE|SEED", "as MODEL returns it")] = None
    """Weights that DATA had no part in: a file, or a seed with which MODEL draws them."""


def problem_and_prior(
    options: PriorOptions,
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


def _prior(options: PriorOptions, prior: str) -> tuple[dict[str, Tensor], str]:
    """The weights in a file, or those that the model draws with a seed, and which these are."""
    drawn = prior.isdecimal()
    if drawn and int(prior) >= SEEDS:
        raise ValueError(f"expected --prior as a FILE, or a SEED below 2**63, got {prior}")
    if not drawn and not Path(prior).suffix[1:].isalpha():
        raise ValueError(
            "expected --prior with a checkpoint, such as init.pt, or with a seed, a whole number "
            f"from 0 on; got {prior!r}"
        )
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


def hash_of(problem: Problem, prior: dict[str, Tensor]) -> str:
    """A hash of the data and weights that a bound is computed from, and of the loss there."""
    try:
        loss = problem.loss()
    except NonFiniteError:
        loss = math.nan
    data = problem.over_batches(lambda batch: fingerprint(batch.raw))
    parts = (problem.theta, *problem.network.module.state_dict().values(), *prior.values())
    hashes = [digest(part) for part in parts if torch.is_tensor(part)]
    return hashlib.sha256(repr((loss, data, hashes)).encode()).hexdigest()
