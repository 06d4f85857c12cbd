"""What a first batch shows of a model and its loss: what would be wrong, or has to be said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from lossgeom.batches import Batch
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.examples import AGREEMENT, ROUNDED_AGREEMENT
from lossgeom.problem.isolation import seeded
from lossgeom.problem.model_checks import checked_outputs, leaves_of, names_among
from lossgeom.problem.sum_and_count import is_sum_of_terms

BESIDE_OUTPUTS = (
    "the loss depends on the parameters other than through the outputs, as one does that reads "
    "what a hook stores: a Hessian has all of it, Gauss-Newton and Fisher matrices the part that "
    "goes through the outputs"
)


def look_at(
    at: Evaluation,
    thetas: tuple[Tensor, Tensor],
    batch: Batch,
    live: nn.Module,
    cut: Callable[[Batch], Batch],
) -> None:
    """Look at what is not known yet of a model in a mode, and of its loss.

    Args:
        at: the model and its loss.
        thetas: two leaves with the same numbers.
        batch: the one at hand.
        live: the user's model.
        cut: tells which tensors of a batch have examples as rows.

    Raises:
        TypeError, ValueError: for what would make every measurement wrong.
    """
    seen = at.facts.first_look
    known = at.criterion.known or seen.loss_beside_outputs or seen.is_sum is not None
    untold = not known and len(batch) > 1  # of one example, nothing is seen
    if None not in (seen.model, seen.loss, seen.mixed, seen.training) and not untold:
        return
    theta = thetas[0].detach()
    with at.network.undone():
        if seen.model is None:
            outputs, seen.model = checked_outputs(at, thetas, batch, live)
        else:
            outputs = at.outputs(theta, batch).detach()
        if outputs.isnan().any():  # of which nothing else can be seen
            return
        if seen.loss is None and at.criterion.known:
            seen.loss = []
        elif seen.loss is None:
            _look_at_loss(at, thetas, outputs, batch, live)
        if untold and seen.loss is not None and not seen.loss_beside_outputs:
            adds = is_sum_of_terms(at, outputs, batch)
            seen.is_sum = "cannot tell" if adds is None else adds
    if seen.mixed is None:
        seen.mixed = mixes_examples(at, theta, outputs, batch, cut)
    if seen.training is None:
        seen.training = training_note(at, theta, outputs, batch)


def _look_at_loss(
    at: Evaluation, thetas: tuple[Tensor, ...], outputs: Tensor, batch: Batch, live: nn.Module
) -> None:
    """Evaluate the loss twice, to find what it is a function of besides the outputs.

    Leaves of the parameters count from the first time on: a loss may empty what it reads.

    Raises:
        ValueError: if these are parameters of the user's model.
    """
    try:
        with seeded(outputs.device, 0), torch.enable_grad():
            first, second = (
                leaves_of(at.terms(outputs.clone().requires_grad_(), batch)[0]) for _ in range(2)
            )
    except Exception:  # which is raised again where it is the loss that is measured
        return
    seen = at.facts.first_look
    ours = {id(theta) for theta in thetas}
    beside = [leaf for key, leaf in second.items() if key in first and key not in ours]
    if beside and (own := names_among(live, beside)):
        raise ValueError(
            f"the loss uses parameters of your own model ({own}), not those that are measured in, "
            "so what depends on them would count as a constant. Compute it from the model that "
            "forward= is given, Problem(..., forward=lambda model, batch: ...), and return it with "
            "the outputs; ObjectiveHessian adds weight decay"
        )
    numbers = sum(leaf.numel() for leaf in beside)
    seen.loss = [f"parameters of the loss held fixed: {numbers} numbers"] * bool(beside)
    if ours & first.keys():  # such as in what a hook stores
        seen.loss.append(BESIDE_OUTPUTS)
        seen.loss_beside_outputs = True  # so that its halves are not those of the outputs


def notes_on(at: Evaluation, sizes: Sequence[int], at_point: Sequence[str]) -> list[str]:
    """What has to be said of the model and the loss, where they are evaluated.

    Args:
        at: what is known of them.
        sizes: the numbers of examples in batches.
        at_point: what was seen at one point.
    """
    seen = at.facts.first_look
    notes = [*at.network.notes, *(seen.model or ()), *(seen.loss or ()), *_on_batches(at, sizes)]
    notes += [seen.training] if seen.training else []
    if at.facts.in_double.needed:
        notes.append("run in float64 also where the model says float32")
    notes += at_point
    if at.seed is not None:
        notes.append(f"random numbers of the model fixed by seed {at.seed}, one draw a batch")
    if at.autocast is not None:
        notes.append(f"model and loss run under autocast to {at.autocast}")
    return notes


def _on_batches(at: Evaluation, sizes: Sequence[int]) -> list[str]:
    """How the numbers depend on the batches."""
    if not sizes:
        return []
    notes, seen = [], at.facts.first_look
    listed = ", ".join(map(str, sizes[:8])) + ", ..." * (len(sizes) > 8)
    split = f"how the data is split, here into batches of {listed} examples"
    if at.mode == "train" and at.network.has_batch_statistics:
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


def mixes_examples(
    at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch, cut: Callable[[Batch], Batch]
) -> bool:
    """Whether an example's outputs depend on its batch, in a way that is not known anyway.

    The first half of the batch is tried alone; ``False`` also where that cannot be done.
    """
    known = at.mode == "train" and at.network.has_batch_statistics
    if known or at.seed is not None:
        return False
    half = len(batch) // 2
    if not half or outputs.ndim == 0 or len(outputs) != len(batch):
        return False
    with suppress(Exception):  # of whatever a model says to half of a batch
        for whole in (None, cut):  # where it seems so, it may be that too much was cut
            rows = batch if whole is None else whole(batch)
            alone = at.outputs(theta, rows.examples(0, half)).detach()
            if alone.shape != outputs[:half].shape or _same(alone, outputs[:half], at):
                return False
        return True
    return False


def training_note(at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch) -> str:
    """What to say where no mode was asked for, if the model is another one in train mode."""
    if at.mode == "train":
        return ""
    said = "measured in mode='eval', because no mode= was given"
    training = replace(at, mode="train", seed=at.seed or 0)
    try:
        others = training.outputs(theta, batch).detach()
    except Exception as error:  # of whatever a model says in train mode
        what = str(error).strip().partition("\n")[0]
        return f"{said}; in mode='train' the model raises {type(error).__name__}: {what}"
    if others.shape == outputs.shape and _same(others, outputs, at):
        return ""
    try:
        here, there = (_loss(mode, theta, batch) for mode in (at, training))
    except Exception:  # which the measurement raises again
        return f"{said}; in mode='train', in which models are trained, the outputs are others"
    return (
        f"{said}; on the first batch the loss is {here:.4g} in it, and {there:.4g} in "
        "mode='train', in which models are trained"
    )


def _loss(at: Evaluation, theta: Tensor, batch: Batch) -> float:
    with at.network.undone():  # what hooks store, for the loss
        total, count = at.terms(at.outputs(theta, batch), batch)
    return total.item() / (count if at.criterion.average else 1.0)


def _same(a: Tensor, b: Tensor, at: Evaluation) -> bool:
    tolerance = AGREEMENT if at.autocast is None else ROUNDED_AGREEMENT
    difference = (a - b).double().norm()
    return bool(difference <= tolerance * b.double().norm() or (a == b).all())
