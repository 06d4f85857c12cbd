"""What every generated task is, and what they are put together from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.bounds import DeltaGood
from lossgeom.lab.models import mlp
from lossgeom.linalg import random_numbers
from lossgeom.lipschitz import Bracket, lipschitz_global, lipschitz_lower
from lossgeom.problem import Problem

DRAWS = 8  # teachers of which one is taken
SEEN_AT = 1000  # points at which they are compared
LARGEST_SEED = 2**31


@dataclass(frozen=True, eq=False)
class ManifoldTask:
    """A regression task on a generated distribution, with nothing about it unknown.

    Inputs are x = g(u) for latent u, and targets are y = f*(x). The modules are in float64, and
    smooth enough for the certified bounds of the library.

    Attributes:
        latent: the distribution of u, of which it is known how well a sample covers it.
        generator: g, a module from (N, d) to (N, D).
        teacher: f*, a module from (N, D) to (N, C).
    """

    latent: DeltaGood
    generator: nn.Module
    teacher: nn.Module

    @property
    def target(self) -> nn.Sequential:
        """The targets as a function of u, f* o g."""
        return nn.Sequential(self.generator, self.teacher)

    @torch.no_grad()
    def sample(
        self, N: int, seed: int = 0
    ) -> tuple[Float[Tensor, "N d"], Float[Tensor, "N D"], Float[Tensor, "N C"]]:
        """Independent latent points, the inputs and the targets that they make, in float64."""
        u = self.latent.sample(N, seed)
        x = self.generator(u)
        return u, x, self.teacher(x)

    def lipschitz(self, N: int = 200, seed: int = 0) -> dict[str, Bracket]:
        """Brackets of the Lipschitz constants of generator, teacher and target, in l2.

        The lower sides are found by ascent from a sample, which may leave the support; the upper
        sides are certified. Both are of the functions on all of their space.

        Args:
            N: points of the sample.
            seed: of the sample and of the ascents.

        Raises:
            TypeError: as :func:`lossgeom.lipschitz_global`.
        """
        u, x, _ = self.sample(N, seed)
        maps = {"generator": (self.generator, u), "teacher": (self.teacher, x)}
        return {
            name: _bracket(module, inputs, seed)
            for name, (module, inputs) in {**maps, "target": (self.target, u)}.items()
        }


def _bracket(module: nn.Module, inputs: Tensor, seed: int) -> Bracket:
    problem = Problem(module, "squared_error", [(inputs, module(inputs).detach())])
    return Bracket.between(lipschitz_lower(problem, seed=seed).value, lipschitz_global(problem))


def linear(weight: Float[Tensor, "C D"], bias: Float[Tensor, " C"] | None = None) -> nn.Linear:
    """A linear layer with given numbers; the global generator is left as it is."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(weight)
    layer.bias = layer.bias if bias is None else nn.Parameter(bias)
    return layer


def linear_layers(net: nn.Sequential) -> list[nn.Linear]:
    """The linear layers among those of a network."""
    return [layer for layer in net if isinstance(layer, nn.Linear)]


def orthonormal(
    rows: int, columns: int, generator: torch.Generator
) -> Float[Tensor, "rows columns"]:
    """Columns of unit length in random directions, at right angles to each other."""
    numbers = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    Q: Tensor = torch.linalg.qr(numbers).Q
    return Q


@torch.no_grad()
def random_teacher(latent: DeltaGood, generator: nn.Module, seed: int) -> nn.Sequential:
    """A random network with 32 tanh units that varies on the support.

    The matrices of its layers have norms 1.5 and 1, which bound its Lipschitz constant. On a
    surface of few dimensions most draws hardly vary, and there would be nothing to learn: the one
    of several is taken whose values differ most.
    """
    x = generator(latent.sample(SEEN_AT, seed))
    seeds = torch.randint(LARGEST_SEED, (DRAWS,), generator=random_numbers(seed, tag=1)).tolist()
    drawn = [mlp(x.shape[1], 1, (32,), "tanh", each).double() for each in seeds]
    for teacher in drawn:
        for layer, norm in zip(linear_layers(teacher), (1.5, 1.0), strict=True):
            layer.weight *= norm / torch.linalg.matrix_norm(layer.weight, 2)
    return max(drawn, key=lambda teacher: teacher(x).std().item())
