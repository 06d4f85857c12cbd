"""The model at the parameters of a problem, in float64 and eval mode, and its inputs."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.batches import Batch
from lossgeom.lipschitz.certified.graph import Graph
from lossgeom.lipschitz.certified.tracing import traced
from lossgeom.problem import NoBatchesError, NonFiniteError, Problem, checked_problem
from lossgeom.problem.agreement import EXACT, agree_everywhere
from lossgeom.problem.double import in_double
from lossgeom.problem.evaluation import call_model, squeezes
from lossgeom.problem.isolation import at_home, measuring
from lossgeom.problem.model_copy import deep_copy
from lossgeom.problem.model_facts import InDouble
from lossgeom.problem.nearby import drawn

FEW = 4  # examples that are compared with what they are alone
CHUNK = 64  # examples that are compared at a time


def all_inputs(problem: Problem) -> Float[Tensor, "N ..."]:
    """The inputs of all examples, in float64."""
    evaluated = checked_problem(problem).in_mode("eval")

    def inputs(batch: Batch) -> Tensor:
        tensor = batch.input
        if not tensor.is_floating_point():
            raise ValueError(f"expected floating-point inputs to move in, got {tensor.dtype}")
        return evaluated.in_examples(batch).input.double()

    batches = evaluated.over_batches(inputs)
    if not batches:  # of this process's share
        raise NoBatchesError
    shapes = sorted({tuple(batch.shape[1:]) for batch in batches})
    if len(shapes) > 1:
        raise ValueError(
            f"expected inputs of one shape in all batches, got examples of {shapes}; measure "
            "those of one shape at a time"
        )
    return torch.cat(batches)


class FrozenModel(nn.Module):
    """A model as a function of its inputs, flat or not, with one flat row of outputs for each.

    Attributes:
        module: the model, a copy.
        batch: the batch whose input is replaced.
        forward_of: how the model is called, or ``None``.
        undone: puts back what its hooks write.
        cudnn: whether it may be used.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.module = _frozen_module(problem)
        self.batch = problem.first_batch()
        self.forward_of = problem.evaluation.forward
        self.undone = problem.network.undone
        self.cudnn = problem.network.cudnn
        self.training = False
        self._in_double = InDouble()

    def forward(self, inputs: Float[Tensor, "B ..."]) -> Float[Tensor, "B C"]:
        """The outputs of the model."""
        n = len(inputs)
        with self.undone(), at_home(inputs.device, self.cudnn):
            outputs = self._in_double(self._called, inputs)
            if n == 1 and outputs.shape[:1] != (1,):
                twice = partial(self._in_double, self._called, torch.cat([inputs, inputs]))
                outputs = outputs[None] if squeezes(outputs.shape, twice) else outputs
        if outputs.shape[:1] != (n,):
            raise ValueError(
                f"expected one row of outputs per example, got outputs of shape "
                f"{tuple(outputs.shape)} for {n} examples"
            )
        return outputs.reshape(n, -1)

    def _called(self, inputs: Tensor) -> Tensor:
        shaped = inputs.reshape(len(inputs), *self.batch.input.shape[1:])
        batch = self.batch.with_tensor(self.batch.input, shaped)
        return call_model(self.module, batch, self.forward_of)


def frozen_model(problem: Problem) -> FrozenModel:
    """The model of a problem, whose examples must be what they are alone.

    Raises:
        ValueError: if the outputs of one example depend on others.
        NonFiniteError: where outputs are NaN or infinite.
    """
    model = FrozenModel(problem)
    few = model.batch.input[:FEW].double()
    with measuring(few.device), torch.device(few.device), torch.no_grad():
        outputs = finite(model(few))
        alone = torch.cat([model(one) for one in torch.split(few, 1)])
    if not agree_everywhere(alone, outputs, EXACT):
        raise ValueError(
            "expected the outputs of one example to depend on its own inputs alone, but they "
            "depend on other examples in the batch"
        )
    return model


def _frozen_module(problem: Problem) -> nn.Module:
    def copied(module: nn.Module) -> nn.Module:
        return deep_copy(module).double().requires_grad_(False)

    module: nn.Module = problem.in_mode("eval").network(problem.theta.detach(), copied, "eval")
    return module


def graph_of(problem: Problem, inputs: Float[Tensor, "N ..."]) -> Graph:
    """The model as a graph of layers, compared with the model itself on all inputs and on others.

    Raises:
        TypeError: if the model cannot be traced, or does something that no bound is known for.
        NonFiniteError: where parameters or outputs are NaN or infinite.
    """
    if problem.evaluation.forward is not None:
        raise TypeError(
            "expected a problem without forward=, because the model itself is traced; wrap what "
            "forward does in a module"
        )
    model = frozen_model(problem)
    undone = problem.network.undone()
    with measuring(inputs.device), torch.device(inputs.device), torch.no_grad(), undone:
        with in_double(inputs.dtype):  # for tensors that the model makes on its way
            graph = traced(_frozen_module(problem), tuple(inputs.shape[1:]))
        for part in torch.split(inputs, CHUNK):
            for x in (part, _elsewhere(part)):
                if not agree_everywhere(graph(x).flatten(1), finite(model(x)), EXACT):
                    raise TypeError(
                        "the layers that torch.fx has seen do not compute what the model does, "
                        "because of hooks or of work in place; remove them for a certified bound"
                    )
    return graph


def _elsewhere(inputs: Tensor) -> Tensor:
    """Random inputs of the same size, where other units are active."""
    return drawn(inputs) * inputs.square().mean().sqrt().clamp(min=1)


def finite(outputs: Tensor) -> Tensor:
    """Outputs at the examples, or an error where they are NaN or infinite."""
    if not outputs.isfinite().all():
        raise NonFiniteError("the output of the model is NaN or infinite at these parameters")
    return outputs
