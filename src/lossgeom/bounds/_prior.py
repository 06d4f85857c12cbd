"""The mean of a prior, and what it must not depend on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.bounds.bound import Assumption
from lossgeom.problem import Problem
from lossgeom.problem.model_copy import unwrapped

Prior = nn.Module | Mapping[str, Tensor] | Tensor
AS_IN_PRIOR = Assumption("what the model holds fixed is as it is in the prior", "checked")
UNKNOWN = Assumption(
    "what the model holds fixed, such as statistics of BatchNorm, does not depend on the examples",
    "declared",
)


def prior_mean(problem: Problem, prior: Prior) -> tuple[Float[Tensor, " P"], list[Assumption]]:
    """The parameters of a prior in the order of theta, and what is known of the rest of it.

    Raises:
        TypeError, ValueError: if these are not parameters of the problem's model, or if what is
            held fixed in it is not the prior's.
    """
    network = problem.network
    own = network.module.state_dict()
    named = {alias for aliases in network.aliases for alias in aliases}
    fixed = [name for name, held in own.items() if name not in named and held.is_floating_point()]
    known: list[str] = []
    state = unwrapped(prior)[0].state_dict() if isinstance(prior, nn.Module) else prior
    if isinstance(state, Tensor):
        mean = state.detach()
    elif isinstance(state, Mapping):
        missing = [name for name in network.names if name not in state]
        if missing:
            raise ValueError(
                f"expected a prior with all parameters of the model, got none for {missing[:3]}"
            )
        mean = torch.cat([state[name].detach().reshape(-1) for name in network.names])
        known = [name for name in fixed if name in state]
        changed = [name for name in known if not torch.equal(state[name].to(own[name]), own[name])]
        if changed:
            raise ValueError(
                f"what the model holds fixed is not as in the prior ({', '.join(changed[:3])}), so "
                "it depends on the examples, and there is no bound: use a norm without running "
                "statistics, or freeze them in training. Where they come from other examples, give "
                "as prior the parameters alone, as a vector"
            )
    else:
        raise TypeError(
            "expected as prior the model before its training, its state dict, or a vector like "
            f"problem.theta; got {type(prior).__name__}"
        )
    mean = mean.to(problem.theta)
    if mean.shape != problem.theta.shape:
        raise ValueError(
            f"expected a prior of shape {tuple(problem.theta.shape)}, got {tuple(mean.shape)}"
        )
    held = AS_IN_PRIOR if set(fixed) == set(known) else UNKNOWN
    return mean, [held] if fixed else []
