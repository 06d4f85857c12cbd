"""Notes on what is measured differently from how a model runs in training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from lossgeom.problem.batch_norm import has_batch_statistics
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.passes import Data
from lossgeom.problem.sharded import notes_on_sharding

REPLICA = "unwrapped from DistributedDataParallel"


def notes_on(model: nn.Module, at: Evaluation, data: Data, at_point: Sequence[str]) -> list[str]:
    """Notes on how a model and its loss are evaluated.

    Args:
        model: the user's.
        at: what is known of its copy.
        data: that it is evaluated on.
        at_point: what was seen at one point.
    """
    seen = at.facts.first_look
    notes = [*notes_on_sharding(model), *at.network.notes]
    if REPLICA in notes and data.processes == 1 and not data.is_share:
        notes[notes.index(REPLICA)] += "; the data is this process's own"
    notes += [*(seen.model or ()), *(seen.loss or ()), *_on_batches(at, data.sizes)]
    notes += [seen.training] if seen.training else []
    if at.facts.in_double.needed:
        notes.append("run in float64 also where the model says float32")
    notes += [*at_point, *_on_sampler(data.batches)]
    if at.seed is not None:
        notes.append(f"random numbers of the model fixed by seed {at.seed}, one draw a batch")
    if at.autocast is not None:
        notes.append(f"model and loss run under autocast to {at.autocast}")
    return notes


def _on_sampler(batches: Iterable[Any]) -> list[str]:
    """A note on what a sampler does to give each process as many examples as any other."""
    sampler = batches.sampler if isinstance(batches, DataLoader) else None
    if not isinstance(sampler, DistributedSampler):
        return []
    more = sampler.total_size - len(cast(Any, sampler.dataset))
    done = "counts examples twice" if more > 0 else "leaves examples out"
    text = f"DistributedSampler {done}, {abs(more)} in all, to give each process as many"
    return [text] if more else []


def _on_batches(at: Evaluation, sizes: Sequence[int]) -> list[str]:
    """Notes on how the numbers depend on the batches."""
    if not sizes:
        return []
    notes, seen = [], at.facts.first_look
    listed = ", ".join(map(str, sizes[:8])) + ", ..." * (len(sizes) > 8)
    split = f"how the data is split, here into batches of {listed} examples"
    if at.mode == "train" and has_batch_statistics(at.network.module):
        notes.append(f"BatchNorm uses the statistics of each batch, of {listed} examples")
    if seen.mixed:
        notes.append(
            "the outputs of an example depend on the others in its batch, and so the loss "
            f"depends on {split}"
        )
    if seen.is_sum is False:
        notes.append(
            f"the loss {at.criterion.name!r} is no sum over examples: it depends on {split}"
        )
    return notes
