"""Jacobians in the weights of Linear layers, from those in what the layers put out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.autodiff.linearized import Linearized
from lossgeom.autodiff.variables import Parameters
from lossgeom.batches import Batch
from lossgeom.problem import Problem
from lossgeom.smoothness._linear_weights import Names, hooked, inputs_of, linear_layers, modules_of
from lossgeom.smoothness.outputs import Outputs, chosen
from lossgeom.trust.trial import Trial, tried
from lossgeom.trust.ways import pulled, random_cotangents


@dataclass(frozen=True, eq=False)
class LayerOutputs:
    r"""A model of Linear layers as a function of shifts s of what they put out.

    Each is called as :math:`z = W x + b + s \sqrt{\|x\|^2 + 1}` (without the 1 if it has no bias).
    With u the gradient in z, that in W is :math:`u x^\top` and that in b is u. So the Jacobian in
    the shifts has the Gram matrix, and the norms, of that in all weights and biases.

    Attributes:
        problem: in eval mode, in the weights and biases of these layers and nothing else.
        outputs: which of them.
        layers: names of the layers.
    """

    problem: Problem
    outputs: Outputs
    layers: Names

    def at(self, batch: Batch) -> Linearized:
        """The outputs of a batch with their graph from the shifts."""
        layers = modules_of(self.problem, self.layers)
        widths = [layer.out_features for layer in layers]
        leaf = self.problem.theta.new_zeros(len(batch), sum(widths), requires_grad=True)
        shifts = dict(zip(layers, torch.split(leaf, widths, dim=1), strict=True))

        def shifted(layer: Any, args: tuple[Tensor], z: Tensor) -> Tensor:
            shift: Tensor = shifts[layer] * _lengths(layer, args[0].detach())
            return z + shift

        with hooked(layers, shifted):
            found = self.problem.outputs(self.problem.theta, batch)
        return Linearized.of(leaf, chosen(self.problem, self.outputs, found, batch))


def _lengths(layer: Any, x: Float[Tensor, "B m"]) -> Float[Tensor, "B 1"]:
    """Of x, and of the 1 that a bias is multiplied with."""
    constant = x.new_full((len(x), 1), float(layer.bias is not None))
    lengths: Tensor = torch.linalg.vector_norm(torch.cat([x, constant], 1), dim=1, keepdim=True)
    return lengths


def layer_outputs(problem: Problem, outputs: Outputs, batch: Batch) -> LayerOutputs | None:
    """The function, for models that are nothing but such layers and what has no parameters."""
    layers = tried(problem, batch, _alone)
    return LayerOutputs(problem, outputs, layers) if layers else None


def _alone(trial: Trial) -> Names:
    """All layers, where every parameter is a weight or bias of one, used nowhere else."""
    problem, few = trial.problem, trial.batch
    places = linear_layers(problem)
    if not _cover(problem, list(places)):
        return ()
    shapes = problem.network.shapes
    for place, calls in zip(places.values(), inputs_of(problem, places, few), strict=True):
        if [x.shape for x in calls] != [(len(few), shapes[place][1])]:
            return ()
    return tuple(places) if _same_lengths(trial, tuple(places)) else ()


def _cover(problem: Problem, layers: Sequence[str]) -> bool:
    """Whether every parameter belongs to these layers, with all of theirs among them."""
    used = [(module, name) for module, name, _ in problem.network.slots]
    own = {
        (module, name)
        for module in modules_of(problem, tuple(layers))
        for name in ("weight", "bias")
        if getattr(module, name) is not None
    }
    return len(used) == len(problem.network.names) and set(used) == own


def _same_lengths(trial: Trial, layers: Names) -> bool:
    """Whether gradients of examples along random cotangents are as long in shifts as in theta."""
    problem, few = trial.problem, trial.batch
    point = LayerOutputs(problem, lambda f, _: f, layers).at(few)
    if point.constant:
        return False
    u = random_cotangents(problem, few)
    of_rows = torch.linalg.vector_norm(point.pull(u), dim=1)
    parameters = Parameters(problem.network.names)
    lengths = [
        pulled(problem, parameters, few.examples(i, i + 1), u[None, i : i + 1])[0][0].norm()
        for i in range(len(few))
    ]
    return trial.agree(of_rows, torch.stack(lengths))
