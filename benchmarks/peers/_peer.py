"""The form of a competitor: one function for each thing that is measured."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from torch import Tensor

from benchmarks.cases import Case
from benchmarks.input_output import InputOutput

Product = Callable[[Tensor], Tensor]
Build = Callable[[Case], Product]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Eigenpairs.

    Attributes:
        values: (k,), in any order.
        vectors: (P, k).
        products: how many were taken, where the competitor says so.
    """

    values: Tensor
    vectors: Tensor
    products: int | None = None


@dataclass(frozen=True, eq=False)
class Quadrature:
    """A spectral density as nodes and weights, a row for each probe.

    Attributes:
        nodes: (r, m).
        weights: of the nodes, which sum to 1 in each row.
        outliers: how many positive eigenvalues are counted exactly, and are no part of the probes.
        products: how many were taken, where it is not one for each node.
    """

    nodes: Tensor
    weights: Tensor
    outliers: int = 0
    products: int | None = None


@dataclass(frozen=True)
class Steps:
    """The solver has to be told how many steps to take; it is given the fewest that are right.

    Attributes:
        first: to try, for k pairs.
        products: that n steps take, for k pairs.
    """

    first: Callable[[int], int]
    products: Callable[[int, int], int]


@dataclass(frozen=True)
class Choices:
    """Settings of which the fastest is used.

    Attributes:
        values: what they are.
        words: to say of one.
    """

    values: tuple[Any, ...]
    words: Callable[[Any], str] = str


@dataclass(frozen=True, eq=False)
class Peer:
    """A competitor.

    Attributes:
        name: of the competitor.
        package: that it is in, as the package index calls it; none for a recipe.
        module: to import.
        install: the command that installs it.
        hessian: a case -> v -> H v, for flat vectors.
        gauss_newton: a case -> v -> G v.
        block: a case -> V -> H V, for V of shape (P, k).
        top: (case, k, setting) -> the k largest eigenpairs of H.
        jacobian: (function, setting) -> the spectral norms of all examples, (N,).
        setting: how the setting of ``top`` or ``jacobian`` is found.
        density: (case, probes, steps, range of the spectrum) -> quadrature.
        notes: on how it was used, for the table.
    """

    name: str
    package: str | None = None
    module: str | None = None
    install: str = ""
    hessian: Build | None = None
    gauss_newton: Build | None = None
    block: Build | None = None
    top: Callable[[Case, int, Any], Pairs] | None = None
    jacobian: Callable[[InputOutput, Any], Tensor] | None = None
    setting: Steps | Choices = Choices((None,))
    density: Callable[[Case, int, int, tuple[float, float]], Quadrature] | None = None
    notes: str = ""

    @property
    def available(self) -> bool:
        """Whether it can be imported."""
        return self.module is None or importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """The version of its package, where it has one."""
        return version(self.package) if self.package else ""


def column_by_column(product: Product) -> Product:
    """Make a product with a block for a competitor that has none."""
    import torch

    return lambda V: torch.stack([product(v) for v in V.unbind(1)], dim=1)
