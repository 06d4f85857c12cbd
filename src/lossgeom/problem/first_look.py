"""A look at a model and its loss on a first batch, for what would be wrong or has to be said."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks

from lossgeom.batches import Batch
from lossgeom.problem.agreement import ALONE, ROUNDED, agree_everywhere, of_sums
from lossgeom.problem.batch_norm import has_batch_statistics
from lossgeom.problem.evaluation import Evaluation, check_arguments
from lossgeom.problem.examples import in_examples
from lossgeom.problem.isolation import seeded
from lossgeom.problem.network import leaves_of
from lossgeom.problem.noticing import Noticing
from lossgeom.problem.sum_and_count import is_sum_of_terms

CHECKPOINTING = (
    "activation checkpointing computes parts of the model again after the parameters have been "
    "put back; switch it off to measure (model.gradient_checkpointing_disable() in transformers)"
)
WRITES = (
    "the model writes to its parameters when it is called, so its loss is no function of them; "
    "bring them to where they belong after each step of training, not in forward"
)
LARGE = 10**6  # parameters of a model that is looked at on a few examples
FEW = 4  # such examples, or half of the batch where these are all
AGAIN = 5  # examples that are evaluated twice: an odd number, which tears pairs apart
BESIDE_OUTPUTS = (
    "the loss depends on the parameters other than through the outputs, as one does that reads "
    "what a hook stores: a Hessian has all of it, Gauss-Newton and Fisher matrices the part that "
    "goes through the outputs"
)


def look_at(at: Evaluation, theta: Float[Tensor, " P"], batch: Batch, live: nn.Module) -> None:
    """Look at what is not known yet of a model in a mode, and of its loss.

    Of a large model, a few examples are enough where it runs on these.

    Args:
        at: the model and its loss.
        theta: where to evaluate them.
        batch: the one at hand.
        live: the user's model.

    Raises:
        TypeError, ValueError: for what would make every measurement wrong.
    """
    seen = at.facts.first_look
    known = at.criterion.known or seen.loss_beside_outputs or seen.is_sum is not None
    untold = not known and len(batch) > 1  # of one example, nothing is seen
    if None not in (seen.model, seen.loss, seen.mixed, seen.training) and not untold:
        return
    if theta.numel() > LARGE and len(batch) > 1:
        with suppress(Exception):  # whatever the model says to fewer examples
            few = batch.examples(0, FEW)
            _look(at, theta, few, few.examples(0, len(few) // 2), live)
            return
    _look(at, theta, batch, batch, live)


def _look(
    at: Evaluation, own: Float[Tensor, " P"], batch: Batch, part: Batch, live: nn.Module
) -> None:
    """Look at a model on a part of a batch, and at its loss on all of it."""
    seen = at.facts.first_look
    with torch.inference_mode(False):
        theta = own.detach().clone()  # which the model may write to
    thetas = [theta.detach().requires_grad_() for _ in range(2)]
    with at.network.undone():
        if seen.model is None:
            alone, notes = _checked_outputs(at, thetas, part, live)
            if not torch.equal(theta, own) and ((theta != own) & ~own.isnan()).any():
                raise ValueError(WRITES)
            seen.model = notes
        else:
            alone = at.outputs(theta, part).detach()
        if alone.isnan().any():  # of which nothing else can be seen
            return
        more = part is not batch and not (at.criterion.known and seen.mixed is not None)
        outputs = at.outputs(theta, batch).detach() if more else alone
        if seen.loss is None and at.criterion.known:
            seen.loss = []
        elif seen.loss is None:
            _look_at_loss(at, thetas, outputs, batch, live)
        untold = not at.criterion.known and seen.is_sum is None and len(batch) > 1
        if untold and seen.loss is not None and not seen.loss_beside_outputs:
            adds = is_sum_of_terms(at, outputs, batch)
            seen.is_sum = "cannot tell" if adds is None else adds
    if seen.mixed is None:
        seen.mixed = mixes_examples(at, theta, outputs, batch, alone if more else None)
    if seen.training is None:
        which = "the first batch" if part is batch else f"{len(part)} examples"
        seen.training = training_note(at, theta, alone, part, which)


def _look_at_loss(
    at: Evaluation, thetas: Sequence[Tensor], outputs: Tensor, batch: Batch, live: nn.Module
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
    if beside and (own := _names_among(live, beside)):
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


def _checked_outputs(
    at: Evaluation, thetas: Sequence[Tensor], batch: Batch, live: nn.Module
) -> tuple[Tensor, list[str]]:
    """Evaluate a model twice, to find what makes it something else than a function of theta.

    Again on a few examples, where these have the outputs that they have in the batch.

    Args:
        at: the model.
        thetas: two leaves with the same numbers.
        batch: its inputs.
        live: the user's model, whose parameters must not be used.

    Returns:
        The outputs, and notes on what was switched in the evaluation, or is by the model.

    Raises:
        TypeError: if the inputs of the batch are not arguments of the model, or not known.
        ValueError: if the model keeps state from call to call, reaches tensors that require
            gradients other than through its parameters, or uses activation checkpointing.
    """
    with disable_saved_tensors_hooks(CHECKPOINTING):
        try:
            with Noticing(thetas[0].device.type, at.autocast) as noticed:
                first = at.outputs(thetas[0], batch)
                second, same = _again(at, thetas[1], batch, first)
        except RuntimeError as error:
            if CHECKPOINTING in str(error):
                raise ValueError(CHECKPOINTING) from None
            raise
        except TypeError:
            if at.forward is None:
                check_arguments(at.network.module, batch)
            raise
    before, leaves = leaves_of(first), leaves_of(second)
    # what a call makes for itself, such as coordinates to differentiate in, is another each time
    beside = [leaf for key, leaf in leaves.items() if key in before]
    kept = id(thetas[0]) in leaves  # of the first call, in the second one
    if kept or not same:
        raise ValueError(
            "two evaluations of the model at the same parameters and inputs differ, so its loss is "
            "not a function of the parameters; remove what it keeps from call to call"
        )
    if beside:
        own = _names_among(live, beside)
        raise ValueError(
            "the model uses tensors that require gradients and are not reached as parameters of "
            "its modules (kept in a list, or by a function that holds the module); make them "
            "parameters of a module, or detach them"
            + f". They are {own} of your own model: use the model that forward= is given"
            * bool(own)
        )
    if made := [leaf for leaf in leaves.values() if leaf is not thetas[1]]:
        _check_backward(second, made)
    return first.detach(), noticed.notes


def _again(at: Evaluation, theta: Tensor, batch: Batch, first: Tensor) -> tuple[Tensor, bool]:
    """Evaluate a model a second time, and tell whether the outputs are those of the first."""
    tolerance, n = of_sums(at.autocast), min(AGAIN, len(batch) // 2)
    if len(batch) > FEW and _alone_should_agree(at, first, batch):
        with suppress(Exception):  # of whatever a model says to a part of a batch
            part = batch.examples(0, n)
            few = at.outputs(theta, part)
            if agree_everywhere(few, first[:n], tolerance, among=first) and not few.isnan().any():
                at.facts.first_look.mixed = False
                second = at.outputs(theta, part)  # what is kept may be told by its size
                return second, agree_everywhere(second, few, tolerance, among=first)
    second = at.outputs(theta, batch)
    return second, torch.equal(first, second) or agree_everywhere(second, first, tolerance)


def _alone_should_agree(at: Evaluation, outputs: Tensor, batch: Batch) -> bool:
    """Whether examples alone have their outputs in the batch, unless the model mixes examples."""
    mixed = at.mode == "train" and has_batch_statistics(at.network.module)
    rows = outputs.ndim > 0 and len(outputs) == len(batch) > 1
    return rows and not mixed and at.seed is None


def _check_backward(outputs: Tensor, leaves: list[Tensor]) -> None:
    """Run a backward pass to leaves that the call made, in which checkpoints may be hidden."""
    try:
        torch.autograd.grad(outputs.sum(), leaves, allow_unused=True)
    except RuntimeError as error:  # of something that is not differentiated where one measures
        if "use_reentrant" in str(error):
            raise ValueError(CHECKPOINTING) from None


def _names_among(live: nn.Module, leaves: list[Tensor]) -> str:
    """Names of the parameters of the user's model among some leaves."""
    names = [name for name, p in live.named_parameters() if any(p is leaf for leaf in leaves)]
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def mixes_examples(
    at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch, first: Tensor | None = None
) -> bool:
    """Whether an example's outputs depend on its batch, in a way that is not known anyway.

    A few examples are tried alone, or the first half, of which the outputs may be known; ``False``
    also where that cannot be done.
    """
    half = len(batch) // 2
    if not _alone_should_agree(at, outputs, batch):
        return False
    if (
        first is not None
        and first.shape == outputs[:half].shape
        and _same(first, outputs[:half], at)
    ):
        return False
    for n in (min(AGAIN, half), half):
        with suppress(Exception):  # of whatever a model says to a part of a batch
            for rows_known in (False, True):  # where it seems so, it may be that too much was cut
                whole = in_examples(at, theta, batch, mixed=True) if rows_known else batch
                alone = at.outputs(theta, whole.examples(0, n)).detach()
                if alone.shape != outputs[:n].shape or _same(alone, outputs[:n], at):
                    return False
            return True
    return False


def training_note(at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch, which: str) -> str:
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
        here, there = (
            _loss(mode, theta, found, batch) for mode, found in ((at, outputs), (training, others))
        )
    except Exception:  # which the measurement raises again
        return f"{said}; in mode='train', in which models are trained, the outputs are others"
    return (
        f"{said}; on {which} the loss is {here:.4g} in it, and {there:.4g} in "
        "mode='train', in which models are trained"
    )


def _loss(at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch) -> float:
    with at.network.undone():
        if not at.criterion.known:  # but may read what hooks store
            outputs = at.outputs(theta, batch)
        total, count = at.terms(outputs, batch)
    return total.item() / (count if at.criterion.average else 1.0)


def _same(a: Tensor, b: Tensor, at: Evaluation) -> bool:
    """Whether outputs agree, infinite ones included."""
    tolerance = ALONE if at.autocast is None else ROUNDED
    difference = (a - b).double().norm()
    return bool(difference <= tolerance * b.double().norm() or (a == b).all())
