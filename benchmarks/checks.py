"""Checks of results, with bounds that all competitors were told before they ran."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers import Pairs, Quadrature
from benchmarks.plain import hessian_product

PRODUCT = 1e-3  # relative to the norm of the product in float64
VALUE = 1e-3  # relative to the eigenvalue, or the norm, in float64
RESIDUAL = 1.01e-3  # of 1e-3 asked for, and room for rounding
MASS = 1e-3
TOP_NODE = 2e-2  # relative to the largest eigenvalue
TRACE = 5.0  # standard errors
FEWEST = 9  # eigenvalues, of which the number has to be accurate


def _verdict(right: bool, **numbers: float) -> dict[str, object]:
    return {"status": "right" if right else "wrong", **numbers}


def product(right: Tensor, found: Tensor) -> dict[str, object]:
    """The relative error of a product."""
    error = ((found.double() - right).norm() / right.norm()).item()
    return _verdict(error <= PRODUCT, error=error)


def pairs(case: Case, right: Tensor, found: Pairs) -> dict[str, object]:
    """The worst relative error of the eigenvalues, and the worst relative residual."""
    values, order = found.values.double().sort(descending=True)
    error = ((values - right).abs() / right.abs()).max().item()
    fresh = case.copy()
    residual = max(
        _residual(fresh, value.item(), found.vectors[:, i])
        for value, i in zip(values, order.tolist(), strict=True)
    )
    spent = {} if found.products is None else {"products": found.products}
    return _verdict(
        error <= VALUE and residual <= RESIDUAL, error=error, residual=residual, **spent
    )


def _residual(case: Case, value: float, vector: Tensor) -> float:
    v = (vector / vector.norm()).to(case.dtype)
    Hv = hessian_product(case, v)
    return float((Hv.double() - value * v.double()).norm()) / abs(value)


def norms(right: Tensor, found: Tensor) -> dict[str, object]:
    """The worst relative error of any example."""
    error = ((found.double() - right).abs() / right).max().item()
    return _verdict(error <= VALUE, error=error)


def in_tail(P: int, values: Tensor, found: Quadrature) -> Tensor:
    """How many of the largest eigenvalues but one each probe sees, over how many there are."""
    limit = values[-2:].mean().item()
    nodes, weights = found.nodes.double().nan_to_num(-math.inf), found.weights.double()
    return P * (weights * (nodes > limit)).sum(1) / (len(values) - 1)


def probes_for(outliers: int, accuracy: float) -> int:
    """How many probes every number of nine or more eigenvalues takes to be so accurate, relatively.

    In a probe each eigenvalue has a weight of variance 2, an outlier that is taken out has none. So
    the standard error of a number N is the root of 2 (N - outliers) / probes, for N = 2 x outliers
    the largest part of N.
    """
    worst = max(FEWEST, 2 * outliers)
    return math.ceil(2 * (worst - outliers) / (accuracy * worst) ** 2)


def density(
    P: int, values: Tensor, forms: Tensor, accuracy: float, found: Quadrature
) -> dict[str, object]:
    """Weights that sum to one, the largest eigenvalues among the nodes, and the right trace."""
    nodes, weights = found.nodes.double().nan_to_num(-math.inf), found.weights.double()
    mass = (weights.sum(1) - 1).abs().max().item()
    largest = abs(nodes.max().item() / values[0].item() - 1)
    error = abs(in_tail(P, values, found).mean().item() - 1)
    traces = P * torch.where(weights > 0, weights * nodes, 0.0).sum(1)
    spread = forms.std().item() * math.sqrt(1 / len(traces) + 1 / len(forms))
    off = abs((traces.mean() - forms.mean()).item()) / spread
    right = mass <= MASS and largest <= TOP_NODE and error <= 3 * accuracy and off <= TRACE
    return _verdict(
        right,
        error=error,
        top_node=largest,
        mass=mass,
        trace_in_standard_errors=off,
        products=nodes.numel() if found.products is None else found.products,
    )
