"""What a first batch shows of a model and its loss: what would be wrong, or has to be said."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lossgeom.batches import Batch
from lossgeom.problem.evaluation import Evaluation
from lossgeom.problem.examples import AGREEMENT, ROUNDED_AGREEMENT
from lossgeom.problem.forward import check_arguments
from lossgeom.problem.model_checks import leaves_of_loss, notes_on_loss, probe
from lossgeom.problem.sum_and_count import is_sum_of_terms

Cut = Callable[[Batch], Batch]

OWN_FUNCTION = vars(torch.autograd.Function)["apply"].__func__.__code__
BESIDE_OUTPUTS = (
    "the loss depends on the parameters other than through the outputs, as one does that reads "
    "what a hook stores: a Hessian has all of it, Gauss-Newton and Fisher matrices the part that "
    "goes through the outputs"
)


class FirstLook:
    """What is found out once of a model in a mode, and its loss, from the first batches.

    Args:
        known: of an earlier look.
    """

    def __init__(self, known: dict[str, Any] | None = None) -> None:
        self._known = dict(known or {})

    def over(self) -> FirstLook:
        """What is known, with the model taken as looked at."""
        return FirstLook({"model": [], **self._known})

    def take(
        self, at: Evaluation, thetas: tuple[Tensor, Tensor], batch: Batch, live: nn.Module, cut: Cut
    ) -> None:
        """Look at what is not known yet.

        Args:
            at: the model and its loss.
            thetas: two leaves with the same numbers.
            batch: the one at hand.
            live: the user's model.
            cut: tells which tensors of a batch have examples as rows.

        Raises:
            TypeError, ValueError: for what would make every measurement wrong.
        """
        left = {"model", "loss", "sum", "others", "training"} - self._known.keys()
        if not left or (left == {"sum"} and len(batch) < 2):  # of one, nothing is seen
            return
        theta = thetas[0].detach()
        with at.network.undone():
            outputs = self._look_at_model(at, thetas, batch, live)
            if outputs.isnan().any():  # of which nothing else can be seen
                return
            self._look_at_loss(at, thetas, outputs, batch, live)
        if "others" not in self._known:
            self._known["others"] = depends_on_others(at, theta, outputs, batch, cut)
        if "training" not in self._known:
            self._known["training"] = training_note(at, theta, outputs, batch)

    def _look_at_model(
        self, at: Evaluation, thetas: tuple[Tensor, Tensor], batch: Batch, live: nn.Module
    ) -> Tensor:
        """The outputs, of which it is found out, if need be, that they are a function of theta."""
        if "model" in self._known:
            return at.outputs(thetas[0].detach(), batch).detach()
        if at.forward is None:
            check_arguments(at.network.module, batch)
        with OpenedContexts(thetas[0].device, at.autocast) as contexts:
            outputs, notes = probe(lambda theta: at.plain_outputs(theta, batch), thetas, live)
        self._known["model"] = notes + contexts.notes
        return outputs

    def _look_at_loss(
        self,
        at: Evaluation,
        thetas: tuple[Tensor, Tensor],
        outputs: Tensor,
        batch: Batch,
        live: nn.Module,
    ) -> None:
        """Find out what the loss is a function of, once it can be evaluated."""
        if "loss" not in self._known:
            try:
                leaves = leaves_of_loss(lambda leaf: at.terms(leaf, batch)[0], outputs, thetas)
            except Exception:  # which is raised again where it is the loss that is measured
                return
            beside = [leaf for leaf in leaves if not any(leaf is theta for theta in thetas)]
            self._known["loss"] = notes_on_loss(beside, live)
            if len(beside) < len(leaves):  # such as in what a hook stores
                self._known["loss"].append(BESIDE_OUTPUTS)
                self._known["sum"] = None  # its halves are not those of the outputs
        if "sum" not in self._known and (at.criterion.known or len(batch) > 1):
            self._known["sum"] = at.criterion.known or is_sum_of_terms(at, outputs, batch)

    @property
    def training(self) -> str | None:
        """How the model is another one in train mode, if it is."""
        note: str | None = self._known.get("training")
        return note

    @property
    def loss_beside_outputs(self) -> bool:
        """Whether the loss depends on the parameters other than through the outputs."""
        return BESIDE_OUTPUTS in self._known.get("loss", ())

    def notes(self, at: Evaluation, sizes: Sequence[int]) -> list[str]:
        """What has to be said, with the numbers of examples in batches."""
        notes = [*self._known.get("model", ()), *self._known.get("loss", ())]
        if not sizes:
            return notes
        listed = ", ".join(map(str, sizes[:8])) + ", ..." * (len(sizes) > 8)
        split = f"how the data is split, here into batches of {listed} examples"
        if at.batch_statistics:
            notes.append(f"BatchNorm uses the statistics of each batch, of {listed} examples")
        if self._known.get("others"):
            notes.append(
                "the outputs of an example depend on the others in its batch, and so the loss "
                f"depends on {split}"
            )
        if self._known.get("sum") is False:
            notes.append(
                f"the loss {at.criterion.name!r} is no sum over examples: it depends on {split}"
            )
        return notes


class OpenedContexts(TorchFunctionMode):
    """Notices contexts that a model opens itself, around what is computed from its parameters.

    Args:
        device: of the parameters.
        autocast: the type that is asked for.
    """

    def __init__(self, device: torch.device, autocast: torch.dtype | None) -> None:
        TorchFunctionMode.__init__(self)
        self.notes: list[str] = []
        self._kind, self._autocast = device.type, autocast
        self._unseen = {"autocast", "no_grad"}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if "autocast" in self._unseen and torch.is_autocast_enabled(self._kind):
            dtype = torch.get_autocast_dtype(self._kind)
            if dtype != self._autocast:
                self._unseen.remove("autocast")
                self.notes.append(
                    f"the model opens torch.autocast itself: what is in it is rounded to {dtype}"
                )
        if "no_grad" in self._unseen and not torch.is_grad_enabled() and _computed(func, args):
            self._unseen.remove("no_grad")
            self.notes.append(
                "the model opens torch.no_grad itself: what it computes of its parameters in there "
                "counts as a constant"
            )
        return result


def _computed(func: Any, args: Any) -> bool:
    """Whether numbers are made of something that can be differentiated, and is not by its owner."""
    if getattr(func, "__name__", "") in ("__get__", "detach", "detach_", "size", "dim"):
        return False
    parts = [part for arg in args for part in (arg if isinstance(arg, (tuple, list)) else [arg])]
    differentiable = any(isinstance(part, Tensor) and part.requires_grad for part in parts)
    return differentiable and not _in_own_function()


def _in_own_function() -> bool:
    """Whether this is called in the forward of an autograd.Function, which has its backward."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is OWN_FUNCTION:
            return True
        frame = frame.f_back
    return False


def depends_on_others(
    at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch, cut: Cut
) -> bool:
    """Whether an example's outputs depend on its batch, in a way that is not known anyway.

    The first half of the batch is tried alone; ``False`` also where that cannot be done.
    """
    if at.seed is not None or at.batch_statistics:
        return False
    half = len(batch) // 2
    if not half or outputs.ndim == 0 or len(outputs) != len(batch):
        return False

    def others(batch: Batch) -> bool:
        alone = at.outputs(theta, batch.examples(0, half)).detach()
        return alone.shape == outputs[:half].shape and not _same(alone, outputs[:half], at)

    with suppress(Exception):  # of whatever a model says to half of a batch
        return others(batch) and others(cut(batch))
    return False


def training_note(at: Evaluation, theta: Tensor, outputs: Tensor, batch: Batch) -> str | None:
    """What to say where no mode was asked for, if the model is another one in train mode."""
    if at.mode == "train":
        return None
    said = "measured in mode='eval', because no mode= was given"
    training = replace(at, mode="train", seed=at.seed or 0)
    try:
        others = training.outputs(theta, batch).detach()
    except Exception as error:  # of whatever a model says in train mode
        what = str(error).strip().partition("\n")[0]
        return f"{said}; in mode='train' the model raises {type(error).__name__}: {what}"
    if others.shape == outputs.shape and _same(others, outputs, at):
        return None
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
