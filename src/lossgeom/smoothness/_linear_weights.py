"""Norms of gradients in parameters, those in the weights of Linear layers never multiplied out."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.autodiff.variables import Leaves, Parameters
from lossgeom.batches import Batch
from lossgeom.problem import Problem
from lossgeom.smoothness._example_gradients import power_norms, reduced_gradients
from lossgeom.trust.trial import Trial, tried
from lossgeom.trust.ways import finite, pulled, random_cotangents

Names = tuple[str, ...]


def parameter_norms(
    problem: Problem, batch: Batch, orders: Sequence[int], memory_budget: int
) -> Float[Tensor, "B C r"]:
    """The l_2k norm of the gradient of every output in the parameters, for each order k.

    The gradient in the weight of a layer z = W x is u x^T with the gradient u in z, and its norm
    that of u times that of x. So such weights are left out of what is differentiated in, and the
    layers' outputs are put in their place, if a few examples show that this is right.
    """
    layers, rest = tried(problem, batch, _left_out)
    if not layers:
        parameters = Parameters(problem.network.names)
        return reduced_gradients(
            problem, parameters, batch, lambda G: power_norms(G, orders), memory_budget
        )
    held = problem.cached(_holding, rest)
    widths = [layer.out_features for layer in modules_of(problem, layers)]
    sizes = [held.theta.numel(), *widths]

    def norms(rows: Tensor) -> Tensor:
        parts = [power_norms(part, orders) for part in torch.split(rows, sizes, dim=1)]
        return torch.stack(parts, 2).flatten(1)

    found = reduced_gradients(held, Factored(rest, layers), batch, norms, memory_budget)
    return _joined(found, _input_norms(problem, layers, batch, orders), orders)


def _holding(problem: Problem, rest: Names) -> Problem:
    """In the rest of the parameters only."""
    return problem.with_parameters([glob.escape(name) for name in rest])


def _joined(
    u: Float[Tensor, "B C rl"], x: Float[Tensor, "B r l"], orders: Sequence[int]
) -> Float[Tensor, "B C r"]:
    """Norms of whole gradients from those of their parts."""
    parts = finite(u.reshape(*u.shape[:2], *x.shape[1:]) * x[:, None])
    whole = [
        power_norms(parts[:, :, place].flatten(0, 1), [k])[:, 0] for place, k in enumerate(orders)
    ]
    return torch.stack(whole, 1).reshape(*u.shape[:2], -1)


@dataclass(frozen=True)
class Factored:
    """Parameters, and what some layers put out.

    Attributes:
        names: of the parameters that are left.
        layers: names of those whose weights are left out.
    """

    names: Names
    layers: Names

    @property
    def name(self) -> tuple[str, Names]:
        """Tells them from others."""
        return "parameters and layers", (*self.names, *self.layers)

    @property
    def shared(self) -> tuple[bool, ...]:
        """All examples share the parameters."""
        return (True, *(False for _ in self.layers))

    def at(self, problem: Problem, batch: Batch) -> Leaves:
        """The parameters, and shifts of what the layers put out."""
        zeros, layers = problem.theta.new_zeros, modules_of(problem, self.layers)
        return (problem.theta, *(zeros(len(batch), layer.out_features) for layer in layers))

    def outputs(self, problem: Problem, leaves: Leaves, batch: Batch) -> Tensor:
        """Of the model, at parameters and shifts."""
        theta, *shifts = leaves
        layers = modules_of(problem, self.layers)
        shift = dict(zip(layers, shifts, strict=True))
        with hooked(layers, lambda layer, args, z: z + shift[layer]):  # noqa: ARG005
            return problem.outputs(theta, batch)


def modules_of(problem: Problem, layers: Names) -> list[Any]:
    """The layers themselves, of which a problem at later parameters has a copy of its own."""
    return [problem.network.module.get_submodule(name) for name in layers]


@contextmanager
def hooked(layers: Sequence[nn.Linear], hook: Any) -> Iterator[None]:
    with ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(hook).remove)
        yield


@torch.no_grad()
def inputs_of(problem: Problem, names: Iterable[str], batch: Batch) -> list[list[Tensor]]:
    """What each layer is called with, call after call."""
    layers = modules_of(problem, tuple(names))
    calls: dict[nn.Module, list[Tensor]] = {layer: [] for layer in layers}

    def note(layer: nn.Module, args: Any, z: Any) -> None:
        calls[layer].append(args[0].clone() if args else z.new_zeros(0))

    with hooked(layers, note):
        problem.outputs(problem.theta, batch)
    return list(calls.values())


def _input_norms(
    problem: Problem, layers: Names, batch: Batch, orders: Sequence[int]
) -> Float[Tensor, "B r l"]:
    """Norms of what the layers are called with, after ones for the other parameters."""
    norms = [power_norms(x, orders) for (x,) in inputs_of(problem, layers, batch)]
    return torch.stack([torch.ones_like(norms[0]), *norms], 2)


def _left_out(trial: Trial) -> tuple[Names, Names]:
    """Names of layers to treat so, and of the parameters that are left; at least one is."""
    problem, few = trial.problem, trial.batch
    places = linear_layers(problem)
    shapes, names = problem.network.shapes, problem.network.names
    for part in (few, few.examples(0, 1)):  # of which one may have as many rows by accident
        for layer, calls in zip(list(places), inputs_of(problem, places, part), strict=True):
            if [x.shape for x in calls] != [(len(part), shapes[places[layer]][1])]:
                del places[layer]
    if len(places) == sum(shape.numel() > 0 for shape in shapes):
        del places[min(places, key=lambda layer: shapes[places[layer]].numel())]
    rest = tuple(name for place, name in enumerate(names) if place not in places.values())
    if places and _agree(trial, places, rest):
        return tuple(places), rest
    return (), names


def linear_layers(problem: Problem) -> dict[str, int]:
    """Linear layers with a weight of their own, and its place among the parameters."""
    slots = problem.network.slots
    users = Counter(place for _, _, place in slots)
    label = {module: name for name, module in problem.network.module.named_modules()}
    return {
        label[module]: place
        for module, name, place in slots
        if name == "weight" and users[place] == 1 and type(module).forward is nn.Linear.forward
    }


def _agree(trial: Trial, places: dict[str, int], rest: Names) -> bool:
    """Whether u x^T is all of the gradient in each of these weights, on a random cotangent."""
    problem, few = trial.problem, trial.batch
    held = _holding(problem, rest)
    u = random_cotangents(problem, few)[None]
    (whole,) = pulled(problem, Parameters(problem.network.names), few, u)[0]
    pieces = problem.network.split(whole)
    _, *shifts = pulled(held, Factored(rest, tuple(places)), few, u)[0]
    inputs = [x for (x,) in inputs_of(problem, places, few)]
    return all(
        trial.agree(g.T @ x.to(g), pieces[place])
        for g, x, place in zip(shifts, inputs, places.values(), strict=True)
    )
