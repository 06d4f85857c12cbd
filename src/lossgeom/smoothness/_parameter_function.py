"""The model as a function of its parameters, without those of Linear layers where it can be."""

from __future__ import annotations

import glob
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.autodiff.batch_jacobian import pulled
from lossgeom.autodiff.hooks import hooked, noted
from lossgeom.autodiff.linearized import Linearized
from lossgeom.batches import Batch
from lossgeom.problem import Problem
from lossgeom.problem.nearby import drawn
from lossgeom.smoothness.outputs import Outputs, chosen
from lossgeom.trust.trial import Trial, tried

Places = dict[str, list[int]]  # of the weight of a layer, and of its bias, by the layer's name


@dataclass(frozen=True, eq=False)
class ParameterFunction:
    r"""Outputs as a function of parameters, and of shifts of what some Linear layers put out.

    The layers are called once, as :math:`z = W x + b`, with a vector x for each example. With u the
    gradient in z, that in W is :math:`u x^\top` and that in b is u, so gradients in z say all.

    Attributes:
        problem: in the parameters of no such layer, or in all parameters where there is no other.
        outputs: which of them.
        layers: names of the layers, and whether their bias is among the parameters.
        others: how many numbers the other parameters have. All examples share these, so where
            there are some, examples are linearised one at a time.
        scaled: whether shifts are multiplied by the length of (x, 1), or of x for a layer without
            bias, which gives the Jacobian the norms of that in all weights and biases.
    """

    problem: Problem
    outputs: Outputs
    layers: dict[str, bool]
    others: int
    scaled: bool

    @property
    def modules(self) -> dict[Any, bool]:
        """The layers, of which a problem at later parameters has a copy of its own."""
        model = self.problem.network.module
        return {model.get_submodule(name): bias for name, bias in self.layers.items()}

    @property
    def widths(self) -> list[int]:
        """How many numbers each layer puts out."""
        return [layer.out_features for layer in self.modules]

    def start(self, batch: Batch) -> Float[Tensor, "B D"]:
        """The other parameters, if any, and shifts of zero."""
        theta = self.problem.theta[: self.others].expand(len(batch), -1)
        return torch.cat([theta, theta.new_zeros(len(batch), sum(self.widths))], 1)

    def run(self, leaf: Float[Tensor, "B D"], batch: Batch) -> Tensor:
        """Run the model at such parameters and shifts."""
        theta = leaf[0, : self.others] if self.others else self.problem.theta
        return self.shifted(theta, leaf[:, self.others :], batch)

    def shifted(self, theta: Float[Tensor, " P"], shifts: Tensor, batch: Batch) -> Tensor:
        """Run the model at some parameters and shifts."""
        modules = self.modules
        parts = torch.split(shifts, self.widths, dim=1) if modules else ()
        shift: dict[nn.Module, Tensor] = dict(zip(modules, parts, strict=True))

        def after(layer: nn.Module, args: tuple[Tensor], z: Tensor) -> Tensor:
            if not self.scaled:
                return z + shift[layer]
            x = _with_one(args[0].detach(), modules[layer])
            length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
            return z + shift[layer] * length

        with hooked(list(modules), after):
            return self.problem.outputs(theta, batch)

    def at(self, batch: Batch) -> Linearized:
        """Linearise the outputs of a batch, of one example where there are other parameters."""
        leaf = self.start(batch).requires_grad_()
        return Linearized.of(leaf, chosen(self.problem, self.outputs, self.run(leaf, batch), batch))

    def together(self, batch: Batch, U: Float[Tensor, "m C"]) -> Float[Tensor, "B m D"]:
        """Gradients along cotangents at each example, with the examples apart in one pass."""
        unwatched = self.problem.inside_transforms(seeded=False)  # drawing raises there
        inside, rows = replace(self, problem=unwatched), list[Tensor]()
        batch.each_row(lambda row: rows.append(row) or row)  # type: ignore[func-returns-value]

        def of_example(rows: list[Tensor]) -> Tensor:
            left = iter(rows)
            one = batch.each_row(lambda _: next(left)[None])
            start = inside.start(one)
            _, pull, *_ = torch.func.vjp(lambda leaf: inside.run(leaf, one).reshape(-1), start)
            (gradients,) = torch.func.vmap(pull)(U)
            return torch.flatten(gradients, 1)

        result: Tensor = torch.func.vmap(of_example)(rows)
        return result

    def inputs(self, batch: Batch) -> list[Float[Tensor, "B n"]]:
        """What the layers multiply with their weights and biases."""
        calls = zip(self.calls(batch), self.layers.values(), strict=True)
        return [_with_one(x, bias) for (x,), bias in calls]

    def calls(self, batch: Batch) -> list[list[Tensor]]:
        """What each layer is called with, call after call."""

        def note(module: nn.Module, args: Any, output: Tensor) -> Tensor:  # noqa: ARG001
            return args[0].clone() if args else output.new_zeros(0)

        return noted(self.problem, self.modules, batch, note)


def parameter_function(
    problem: Problem, outputs: Outputs, batch: Batch, *, scaled: bool
) -> ParameterFunction:
    """Leave out the parameters of those layers for which a few examples show that this is right."""
    places = tried(problem, batch, _made_of_inputs)
    return _without(problem, outputs, places, scaled=scaled)


def _without(
    problem: Problem, outputs: Outputs, places: Places, *, scaled: bool
) -> ParameterFunction:
    """Put shifts of what layers put out in the place of their parameters."""
    network, left_out = problem.network, {i for own in places.values() for i in own}
    rest = [i for i, shape in enumerate(network.shapes) if i not in left_out and shape.numel()]
    layers = {name: len(own) > 1 for name, own in places.items()}
    if rest and places:
        problem = problem.with_parameters([glob.escape(network.names[i]) for i in rest])
    others = problem.theta.numel() if rest else 0
    return ParameterFunction(problem, outputs, layers, others, scaled)


def _made_of_inputs(trial: Trial) -> Places:
    """The layers whose gradients are u x^T and u, on a random cotangent."""
    problem, few = trial.problem, trial.batch
    places, network = linear_layers(problem), problem.network
    for part in (few, few.examples(0, 1)):  # of which one may have as many rows by accident
        function = _without(problem, "logits", places, scaled=False)
        for name, calls in zip(list(places), function.calls(part), strict=True):
            if [x.shape for x in calls] != [(len(part), network.shapes[places[name][0]][1])]:
                del places[name]
    if not places:
        return {}
    function = _without(problem, "logits", places, scaled=False)
    leaf = problem.leaf()
    outputs = problem.outputs(leaf, few)
    if not outputs.requires_grad:
        return {}
    u = drawn(outputs)
    gradients = network.split(pulled(outputs, leaf, u))
    shifts = problem.theta.new_zeros(len(few), sum(function.widths), requires_grad=True)
    found = pulled(function.shifted(function.problem.theta, shifts, few), shifts, u)
    parts = torch.split(found, function.widths, dim=1)
    right: Places = {}
    for (name, own), g, x in zip(places.items(), parts, function.inputs(few), strict=True):
        expected = torch.cat([gradients[i].reshape(g.shape[1], -1) for i in own], 1)
        if trial.agree(g.T @ x.to(g), expected):
            right[name] = own
    return right


def runs_together(trial: Trial) -> bool:
    """Whether gradients of several examples in one pass are those of each alone."""
    few = trial.batch
    function = parameter_function(trial.problem, "logits", few, scaled=False)
    points = [function.at(few.examples(i, i + 1)) for i in range(len(few))]
    u = drawn(points[0].outputs[:1])
    alone = torch.cat([point.pull(u) for point in points])
    try:
        return trial.agree(function.together(few, u)[:, 0], alone)
    except Exception:  # of what has no batched form
        return False


def linear_layers(problem: Problem) -> Places:
    """Find Linear layers whose weight is used once, with the places of it and of such a bias."""
    slots = problem.network.slots
    users = Counter(place for _, _, place in slots)
    own = {(module, name): place for module, name, place in slots if users[place] == 1}
    return {
        label: [own[module, name] for name in ("weight", "bias") if (module, name) in own]
        for label, module in problem.network.module.named_modules()
        if type(module).forward is nn.Linear.forward and (module, "weight") in own
    }


def _with_one(x: Float[Tensor, "B n"], bias: bool) -> Float[Tensor, "B m"]:
    return torch.cat([x, torch.ones_like(x[:, :1])], 1) if bias else x
