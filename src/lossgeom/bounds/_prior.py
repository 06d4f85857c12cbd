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
    """The parameters of a prior in the order of theta, and what is known of what is held fixed.

    Raises:
        TypeError, ValueError: if these are not parameters of the problem's model, or if what is
            held fixed in it is not the prior's.
    """
    network = problem.network
    own = network.module.state_dict()
    named = {alias for aliases in network.aliases for alias in aliases}
    fixed = [name for name, held in own.items() if name not in named and held.is_floating_point()]
    state = unwrapped(prior)[0].state_dict() if isinstance(prior, nn.Module) else prior
    known: list[str] = []
    if isinstance(state, Mapping):
        if missing := [name for name in network.names if name not in state]:
            raise ValueError(
                f"expected a prior with all parameters of the model, got none for {missing[:3]}"
            )
        known = [name for name in fixed if name in state]
        if changed := [n for n in known if not torch.equal(state[n].to(own[n]), own[n])]:
            raise ValueError(
                f"what the model holds fixed is not as in the prior ({', '.join(changed[:3])}), so "
                "it depends on the examples, and there is no bound: use a norm without running "
                "statistics, or freeze them in training. Where they come from other examples, give "
                "as prior the parameters alone, as a vector"
            )
        state = torch.cat([state[name].reshape(-1) for name in network.names])
    if not isinstance(state, Tensor):
        raise TypeError(
            "expected as prior the model before its training, its state dict, or a vector like "
            f"problem.theta; got {type(prior).__name__}"
        )
    mean, shape = state.detach().to(problem.theta), tuple(problem.theta.shape)
    if mean.shape != shape:
        raise ValueError(f"expected a prior of shape {shape}, got {tuple(mean.shape)}")
    return mean, [AS_IN_PRIOR if fixed == known else UNKNOWN] if fixed else []
