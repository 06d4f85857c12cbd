"""A module as a pure function of one flat parameter vector."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from lossgeom.distributed import Ranks
from lossgeom.linalg import ONE_AT_A_TIME
from lossgeom.problem.batch_norm import buffers_kept
from lossgeom.problem.isolation import (
    ModuleState,
    at_home,
    hooks_undone,
    random_state,
    seeded,
)
from lossgeom.problem.model_copy import AtRest, private_copy
from lossgeom.problem.model_facts import Mode
from lossgeom.problem.recomputation import Checkpoints, placed
from lossgeom.problem.sharded import SPREADING, whole_model

Call = Callable[[nn.Module], Any]
NO_CUDNN = "recurrent layers measured without cuDNN, which has no second derivatives"


class RandomModelError(ValueError):
    """A model draws random numbers, and no seed fixes them."""


@dataclass(frozen=True, eq=False)
class Network:
    """A private copy of a module, evaluated at any flat vector of its trainable parameters.

    The user's module is copied once and never touched again. Each parameter has one place in the
    flat vector, however many modules share it. Hooks are part of the copy and called as ever; what
    they write is put back, and so are buffers, after every evaluation.

    Attributes:
        module: the copy.
        theta: where the parameters were.
        names, shapes: of the parameters that theta holds, in order.
        aliases: all names of each, of those that modules share.
        slots: every module and name that a parameter has a place at, and which one it is.
        held: every module and name whose value is held fixed, with the value.
        frozen_names: of the parameters that theta does not hold.
        cudnn: whether it may be used.

    >>> network = Network.of(nn.Linear(2, 1))
    >>> network.names, network.theta.shape
    (('weight', 'bias'), torch.Size([3]))
    """

    module: nn.Module
    theta: Float[Tensor, " P"]
    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    aliases: tuple[frozenset[str], ...]
    slots: tuple[tuple[nn.Module, str, int], ...]
    held: tuple[tuple[nn.Module, str, Tensor], ...]
    frozen_names: tuple[str, ...]
    cudnn: bool
    _notes: tuple[str, ...]
    _state: ModuleState

    @classmethod
    def of(
        cls,
        model: nn.Module,
        parameters: str | Sequence[str] | None = None,
        dtype: torch.dtype | None = None,
    ) -> Network:
        """Copy a model.

        Args:
            model: any module; torch.compile and data-parallel wrappers are taken off.
            parameters: patterns of the names of the trainable parameters that theta holds, such as
                ``"encoder.*"``; all of them by default.
            dtype: to measure in, see :func:`lossgeom.problem.model_copy.private_copy`.

        Raises:
            TypeError: if it is not a module, or its parameters are complex or sharded.
            ValueError: if it has no trainable parameter or lazy ones, or cannot be copied, or a
                pattern matches none.
        """
        module, theta, notes = private_copy(model, dtype)
        state, modules = ModuleState(module), list(module.modules())
        trainable = {n: p for n, p in module.named_parameters() if p.requires_grad}
        if sum(p.numel() for p in trainable.values()) == 0:
            raise ValueError(
                "the model has no trainable parameters: expected at least one with "
                "requires_grad=True"
            )
        cudnn = not (theta.is_cuda and any(isinstance(m, nn.RNNBase) for m in modules))
        notes += [] if cudnn else [NO_CUDNN]
        place = {id(p): i for i, p in enumerate(trainable.values())}
        named = list(module.named_parameters(remove_duplicate=False))
        network = cls(
            module,
            theta,
            tuple(trainable),
            tuple(p.shape for p in trainable.values()),
            tuple(frozenset(n for n, q in named if q is p) for p in trainable.values()),
            slots=tuple(
                (part, name, place[id(p)])
                for part in modules
                for name, p in part._parameters.items()
                if id(p) in place
            ),
            held=(),
            frozen_names=tuple(n for n, _ in module.named_parameters() if n not in trainable),
            cudnn=cudnn,
            _notes=tuple(notes),
            _state=state,
        )
        for p in trainable.values():
            if type(p) is nn.Parameter:
                p.__class__ = AtRest
        return network if parameters is None else network.restricted(theta, parameters)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on what is different from the user's module."""
        held = [f"parameters held fixed: {len(self.frozen_names)}"] * bool(self.frozen_names)
        padding = "the padding row of an embedding has no gradient: what reads it sees a constant"
        return (*self._notes, *held, *[padding] * bool(self.without_gradient().any()))

    def restricted(self, theta: Float[Tensor, " P"], patterns: str | Sequence[str]) -> Network:
        """The same function of some of the parameters, the others held where theta has them."""
        chosen = self.matching(patterns)
        if not any(self.shapes[i].numel() for i in chosen):
            raise ValueError(f"parameters={patterns!r} matches only parameters without numbers")
        place = {i: new for new, i in enumerate(chosen)}
        with torch.inference_mode(False):
            pieces = [piece.detach().clone() for piece in self.split(theta)]
            part = torch.cat([pieces[i].reshape(-1) for i in chosen])
        held = ((module, name, pieces[i]) for module, name, i in self.slots if i not in place)
        others = (name for i, name in enumerate(self.names) if i not in place)
        return replace(
            self,
            theta=part,
            names=tuple(self.names[i] for i in chosen),
            shapes=tuple(self.shapes[i] for i in chosen),
            aliases=tuple(self.aliases[i] for i in chosen),
            slots=tuple((m, name, place[i]) for m, name, i in self.slots if i in place),
            held=(*self.held, *held),
            frozen_names=(*self.frozen_names, *others),
        )

    def matching(self, patterns: str | Sequence[str]) -> list[int]:
        """Places of the parameters that one of the patterns matches, under any of their names."""
        chosen: set[int] = set()
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            found = {
                i
                for i, names in enumerate(self.aliases)
                if any(fnmatchcase(name, pattern) for name in names)
            }
            if not found:
                fixed = any(fnmatchcase(name, pattern) for name in self.frozen_names)
                raise ValueError(
                    f"expected parameters={pattern!r} to match trainable parameters, it matches "
                    f"{'only such as are held fixed' if fixed else 'none'}; there are "
                    f"{', '.join(self.names)}"
                )
            chosen |= found
        return sorted(chosen)

    def without_gradient(self) -> Bool[Tensor, " P"]:
        """Places in theta without a gradient, whatever the loss: padding rows of embeddings."""
        blocked = [torch.zeros(shape, dtype=torch.bool) for shape in self.shapes]
        for module, _, place in self.slots:
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                blocked[place][module.padding_idx] = True
        return torch.cat([flags.reshape(-1) for flags in blocked]).to(self.theta.device)

    def constants(self) -> Iterator[Tensor]:
        """The parameters that theta does not hold."""
        yield from self.module.parameters()
        yield from (value for _, _, value in self.held)

    def split(self, vector: Shaped[Tensor, " P"]) -> list[Tensor]:
        """Cut a flat vector into tensors of the parameters' shapes."""
        pieces = vector.split_with_sizes([shape.numel() for shape in self.shapes])
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def __call__(
        self,
        theta: Float[Tensor, " P"],
        call: Call,
        mode: Mode,
        seed: Sequence[int] | None = None,
        watched: bool = True,
    ) -> Any:
        """What ``call(module)`` returns with the module's parameters at theta.

        Args:
            theta: the parameters.
            call: what is done with the module.
            mode: of its modules.
            seed: fixes what it draws at random.
            watched: whether draws of random numbers are looked for, where there is no seed.

        Raises:
            RandomModelError: if it draws random numbers, as Dropout in train mode does, without a
                seed that fixes them.
        """
        device = self.theta.device
        with ONE_AT_A_TIME, self._ready(mode, self.split(theta)):
            if seed is not None:
                with seeded(device, *seed):
                    return call(self.module)
            before = random_state(device) if watched else None
            outputs = call(self.module)
            if watched and random_state(device) != before:
                raise RandomModelError(
                    f"the model drew random numbers in mode={mode!r}, so its loss is not a "
                    "function of the parameters; fix them with Problem(..., seed=0), measure in "
                    "mode='eval', or remove what is random (dropout, noise, stochastic depth). If "
                    "it draws none, another thread does, of the generators of the process: let it "
                    "wait while this one measures"
                )
            return outputs

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Put back what modules keep of their calls, and what hooks write, at the outermost end.

        Everything that is called inside still sees it, such as a loss of what a hook stores.
        """
        if (state := self._state).active:
            yield
            return
        state.active = True
        try:
            with hooks_undone(state.hooks):
                yield
        finally:
            state.active = False
            for own, before in state.attributes:
                own.clear()
                own.update(before)
            if state.inside is not None:
                state.inside.put_back()

    @contextmanager
    def _ready(self, mode: Mode, pieces: Sequence[Tensor]) -> Iterator[None]:
        """Be ready to be called at parameters in their shapes; buffers may be written to."""
        values = [*((part, name, pieces[place]) for part, name, place in self.slots), *self.held]
        again = partial(self._ready, mode)
        checkpoints = Checkpoints(self.module, len(self._state.hooks), self.slots, again)
        with ExitStack() as stack:
            stack.enter_context(self.undone())
            if any(module._buffers for module in self.module.modules()):
                stack.enter_context(buffers_kept(self.module))
            stack.enter_context(placed(values))
            stack.enter_context(at_home(self.theta.device, self.cudnn))
            stack.enter_context(checkpoints.active())
            training = mode == "train"
            if any(own.get("training") is not training for own, _ in self._state.attributes):
                self.module.train(training)
            yield


def gathered(model: nn.Module, ranks: Ranks) -> nn.Module:
    """The model, or a copy with all of its parameters, where processes may have a part each."""
    return whole_model(model, ranks) if SPREADING & sys.modules.keys() else model
