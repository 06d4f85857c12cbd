"""The mean of a prior, and what a model holds fixed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.problem import Problem
from lossgeom.problem.model_copy import unwrapped

Prior = nn.Module | Mapping[str, Tensor] | Tensor
COUNTER = "num_batches_tracked"  # of BatchNorm, which changes no output


def held_fixed(problem: Problem) -> dict[str, Tensor]:
    """The parameters that theta does not hold, and all buffers, by all of their names."""
    network = problem.network
    named = {alias for aliases in network.aliases for alias in aliases}
    now = {id(module._parameters[name]): value for module, name, value in network.held}
    parts = _named(network.module).items()
    return {name: now.get(id(part), part).detach() for name, part in parts if name not in named}


def differing(here: Mapping[str, Tensor], there: Mapping[str, Tensor]) -> list[str]:
    """The names of what is not the same in two models, or is in one of them alone."""

    def same(name: str) -> bool:
        return (
            name in here and name in there and torch.equal(there[name].to(here[name]), here[name])
        )

    return [name for name in {**here, **there} if not same(name)]


def prior_mean(problem: Problem, prior: Prior) -> Float[Tensor, " P"]:
    """The parameters of a prior in the order of theta.

    Raises:
        TypeError, ValueError: if these are not parameters of the problem's model, if what is held
            fixed in it is not the prior's, or if it has the prior's parameters itself.
    """
    state = _named(unwrapped(prior)[0]) if isinstance(prior, nn.Module) else prior
    if isinstance(state, Mapping):
        mean = _mean(problem, state)
    elif isinstance(state, Tensor):
        mean = state.detach().to(problem.theta)
    else:
        raise TypeError(
            "expected as prior the model before its training, its state dict, or a vector like "
            f"problem.theta; got {type(prior).__name__}"
        )
    if mean.shape != (shape := tuple(problem.theta.shape)):
        raise ValueError(f"expected a prior of shape {shape}, got {tuple(mean.shape)}")
    if torch.equal(mean, problem.theta):
        raise ValueError(
            "the prior has the parameters that the model has now: expected those from before its "
            "training, such as copy.deepcopy(model) made then"
        )
    return mean


def _named(module: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers of a module that matter."""
    found = dict[str, Tensor](module.named_parameters(remove_duplicate=False))
    found |= module.named_buffers(remove_duplicate=False)
    return {name: part for name, part in found.items() if name.rpartition(".")[2] != COUNTER}


def _mean(problem: Problem, state: Mapping[str, Tensor]) -> Float[Tensor, " P"]:
    network = problem.network
    if missing := [name for name in network.names if name not in state]:
        raise ValueError(
            f"expected a prior with all parameters of the model, got none for {missing[:3]}"
        )
    known = {*network.module.state_dict(), *_named(network.module)}
    if others := [name for name in state if name not in known]:
        raise ValueError(f"expected a prior of the same model, got {others[:3]}, which it has not")
    for name, shape in zip(network.names, network.shapes, strict=True):
        if state[name].shape != shape:
            raise ValueError(
                f"expected a prior with {name} of shape {tuple(shape)}, got "
                f"{tuple(state[name].shape)}"
            )
    held = {name: part for name, part in held_fixed(problem).items() if name in state}
    if changed := differing(held, {name: state[name] for name in held}):
        raise ValueError(
            f"what the model holds fixed is not as in the prior ({', '.join(changed[:3])}), so it "
            "may depend on the examples, and there is no bound: leave out parameters=, so that all "
            "that were trained are searched, and use a norm of single examples, such as LayerNorm, "
            "or freeze its statistics in training. Where what is held does not depend on the "
            "examples, give as prior the parameters alone, as a vector"
        )
    parts = (state[name].detach().reshape(-1).to(problem.theta) for name in network.names)
    return torch.cat([*parts])
