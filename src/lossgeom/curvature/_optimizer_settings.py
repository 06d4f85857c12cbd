"""Settings and state of a live optimiser, in the order of a problem's flat parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from lossgeom.problem import Problem
from lossgeom.problem.model_copy import unwrapped

Entry = Callable[[Tensor, dict[str, Any], dict[str, Any]], Tensor]


def flat(problem: Problem, optimizer: Optimizer, entry: Entry) -> Float[Tensor, " P"]:
    """Collect one number for each parameter, ``entry(parameter, its group, its state)``.

    Raises:
        TypeError: if it is not an optimiser.
        ValueError: if it does not update one of the problem's parameters.
    """
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"expected a torch optimiser, got {type(optimizer).__name__}")
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    model = unwrapped(problem.model)[0]
    # without what torch.compile puts into the names
    theirs = {name.replace("_orig_mod.", ""): p for name, p in model.named_parameters()}
    pieces = []
    for name in problem.network.names:
        parameter = theirs.get(name)
        if parameter is None or id(parameter) not in groups:
            raise ValueError(
                f"expected the optimiser to update every parameter of the problem, but {name} is "
                "not among its parameters; make it with this model's parameters, or measure in "
                "those that it has with Problem(..., parameters=...)"
            )
        value = entry(parameter, groups[id(parameter)], optimizer.state.get(parameter, {}))
        pieces.append(value.detach().to(problem.theta).expand(parameter.shape).reshape(-1))
    return torch.cat(pieces)
