"""A look at a model and its loss on a first batch, for what would be wrong or has to be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.batches import Batch
from lossgeom.losses.graphs import graph_nodes, leaves_of, with_bytes
from lossgeom.problem.agreement import (
    ALONE,
    REORDERED,
    agree,
    agree_everywhere,
    has_nan,
    under,
)
from lossgeom.problem.batch_norm import has_batch_statistics
from lossgeom.problem.evaluation import Evaluation, check_arguments
from lossgeom.problem.examples import in_examples
from lossgeom.problem.isolation import Noticing
from lossgeom.problem.model_facts import GraphBytes, Key
from lossgeom.problem.own_loss import look_at_loss, names_among
from lossgeom.problem.recomputation import bytes_of_parts, check_alone
from lossgeom.problem.remembered import facts_of

WRITES = (
    "the model writes to its parameters when it is called, so its loss is no function of them; "
    "bring them to where they belong after each step of training, not in forward"
)
LARGE = 10**6  # parameters of a model that is looked at on a few examples
FEW = 4  # such examples
FEWEST = 2  # whose graph shows by itself what each of them saves
AGAIN = 5  # examples that are evaluated twice, or half: an odd number, which tears pairs apart
TORCH: Any = torch._C  # which knows whether a lazy clone has memory of its own by now


def look_at(
    at: Evaluation, theta: Float[Tensor, " P"], batch: Batch, live: nn.Module, check: bool
) -> None:
    """Look at what is not known yet of a model in a mode, and of its loss.

    Of a large model, a few examples are enough where it runs on these; and so they are of one that
    an earlier problem has looked at, as long as neither shows anything to say. A large one with a
    known loss that is not to be checked is evaluated once, on half of a small batch.

    Args:
        at: the model and its loss.
        theta: where to evaluate them.
        batch: the one at hand.
        live: the user's model.
        check: whether a large model is evaluated a second time, to see that it is a function.

    Raises:
        TypeError, ValueError: for what would make every measurement wrong.
    """
    seen = at.facts.first_look
    known = at.criterion.known or seen.loss_beside_outputs or seen.is_sum is not None
    untold = not known and len(batch) > 1  # of one example, nothing is seen
    if None not in (seen.model, seen.loss, seen.mixed, seen.training) and not untold:
        return
    large, unsaid = theta.numel() > LARGE, seen.training
    nothing: list[bool] = []  # was there to say of all examples
    if not large and len(batch) > FEW:
        nothing = facts_of(live, at, batch).known(Key(look_at), list)
    again = check or not (large and at.criterion.known)
    few = FEW if again or seen.training is None else min(FEW, (len(batch) + 1) // 2)
    if len(batch) > few and (large or nothing):
        with suppress(Exception):  # whatever the model says to fewer examples
            _look(at, theta, batch.examples(0, few), live, f"{few} examples", again)
            if large or not (seen.mixed or seen.training):
                return
            seen.mixed, seen.training = None, unsaid
    _look(at, theta, batch, live, "the first batch", again)
    if seen.mixed is False and not seen.training:
        nothing.append(True)


def _look(
    at: Evaluation,
    own: Float[Tensor, " P"],
    batch: Batch,
    live: nn.Module,
    which: str,
    again: bool,
) -> None:
    """Look at a model and its loss on some examples, which are the ones said."""
    seen = at.facts.first_look
    with torch.inference_mode(False):
        theta = torch._lazy_clone(own.detach())  # memory of its own once the model writes to it
    thetas = [theta.detach().requires_grad_() for _ in range(2)]
    with at.network.undone():
        if seen.model is None:
            outputs, notes = _checked_outputs(at, thetas[: 1 + again], batch, live)
            if (
                not TORCH._is_cow_tensor(theta)
                and not torch.equal(theta, own)
                and ((theta != own) & ~own.isnan()).any()
            ):
                raise ValueError(WRITES)
            seen.model = notes
        else:
            outputs = at.outputs(theta, batch).detach()
        if has_nan(outputs):  # of which nothing else can be seen
            return
        if at.criterion.known:
            seen.loss = seen.loss or []
        else:
            look_at_loss(at, thetas, outputs, batch, live)
    if seen.mixed is None:
        seen.mixed = mixes_examples(at, theta, outputs, batch)
    if seen.training is None:
        seen.training = training_note(at, theta, outputs, batch, which)


def _checked_outputs(
    at: Evaluation, thetas: Sequence[Tensor], batch: Batch, live: nn.Module
) -> tuple[Tensor, list[str]]:
    """Evaluate a model, once or twice, to find what makes it no function of theta.

    Again on a few examples, where these have the outputs that they have in the batch.

    Args:
        at: the model.
        thetas: two leaves with the same numbers, or one to evaluate it once.
        batch: its inputs.
        live: the user's model, whose parameters must not be used.

    Returns:
        The outputs, and notes on what was switched in the evaluation, or is by the model.

    Raises:
        TypeError: if the inputs of the batch are not arguments of the model, or not known.
        ValueError: if the model keeps state from call to call, reaches tensors that require
            gradients other than through its parameters.
    """
    try:
        with Noticing(thetas[0].device.type, at.autocast) as noticed:
            if len(batch) <= FEWEST and at.criterion.known:
                first, saved = with_bytes(at.outputs, thetas[0], batch)
                with suppress(Exception):  # of the loss, which the measurement raises again
                    at.facts.first_look.graph = graph_bytes(at, first, saved, batch)
            else:
                first = at.outputs(thetas[0], batch)
            before, first = leaves_of(first), first.detach()
            leaves: Mapping[int, Tensor] = {  # which no call makes
                key: leaf for key, leaf in before.items() if isinstance(leaf, nn.Parameter)
            }
            same = True
            if len(thetas) > 1:
                second, same = _again(at, thetas[1], batch, first)
                leaves = leaves_of(second)
    except TypeError:
        if at.forward is None:
            check_arguments(at.network.module, batch)
        raise
    # what a call makes for itself, such as coordinates to differentiate in, is another each time
    beside = [leaf for key, leaf in leaves.items() if key in before]
    kept = id(thetas[0]) in leaves  # of the first call, in the second one
    if kept or not same:
        raise ValueError(
            "two evaluations of the model at the same parameters and inputs differ, so its loss is "
            "not a function of the parameters; remove what it keeps from call to call"
        )
    if beside:
        own = names_among(live, beside)
        raise ValueError(
            "the model uses tensors that require gradients and are not reached as parameters of "
            "its modules (kept in a list, or by a function that holds the module); make them "
            "parameters of a module, or detach them"
            + f". They are {own} of your own model: use the model that forward= is given"
            * bool(own)
        )
    check_alone(leaves)
    return first, noticed.notes


def graph_bytes(
    at: Evaluation, outputs: Tensor, saved: Mapping[int, int], batch: Batch
) -> GraphBytes:
    """What the graph of a loss saves, where that of the outputs has saved this."""
    (total, _), of_loss = with_bytes(at.terms, outputs, batch)
    convolutions = any("Convolution" in node.name() for node in graph_nodes(total))
    parts, nbytes = bytes_of_parts(total), sum({**saved, **of_loss}.values())
    return GraphBytes(len(batch), nbytes, tuple(parts), outputs.nbytes, convolutions)


def _again(at: Evaluation, theta: Tensor, batch: Batch, first: Tensor) -> tuple[Tensor, bool]:
    """Evaluate a model a second time, and tell whether the outputs are those of the first."""
    tolerance, n = under(at.autocast, REORDERED), min(AGAIN, len(batch) // 2 | 1)  # odd
    if _alone_should_agree(at, first, batch):
        with suppress(Exception):  # of whatever a model says to a part of a batch
            part = batch.examples(0, n)
            few = at.outputs(theta, part).detach()
            if agree_everywhere(few, first[:n], tolerance, among=first) and not has_nan(few):
                at.facts.first_look.mixed = False
                second = at.outputs(theta, part)  # what is kept may be told by its size
                return second, agree_everywhere(second, few, tolerance, among=first)
    second = at.outputs(theta, batch)
    return second, agree_everywhere(second, first, tolerance)


def _alone_should_agree(at: Evaluation, outputs: Tensor, batch: Batch) -> bool:
    """Whether examples alone have their outputs in the batch, unless the model mixes examples."""
    mixed = at.mode == "train" and has_batch_statistics(at.network.module)
    rows = outputs.ndim > 0 and len(outputs) == len(batch) > 1
    return rows and not mixed and at.seed is None


def mixes_examples(at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch) -> bool:
    """Whether an example's outputs depend on its batch, in a way that is not known anyway.

    A few examples are tried alone, or the first half; ``False`` also where that cannot be done.
    """
    half = len(batch) // 2
    if not _alone_should_agree(at, outputs, batch):
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
    if _same(others, outputs, at):
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


def _same(found: Tensor, expected: Tensor, at: Evaluation) -> bool:
    """Whether outputs agree, infinite ones included."""
    return torch.equal(found, expected) or agree(found, expected, under(at.autocast, ALONE))


def _loss(at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch) -> float:
    with at.network.undone():
        if not at.criterion.known:  # but may read what hooks store
            outputs = at.outputs(theta, batch)
        total, count = at.terms(outputs, batch)
    return total.item() / (count if at.criterion.average else 1.0)
