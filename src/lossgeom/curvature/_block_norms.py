"""Frobenius norms of layers' Gauss-Newton blocks."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lossgeom.curvature.best_kronecker import Rows
from lossgeom.curvature.gauss_newton import GaussNewton
from lossgeom.curvature.kronecker import KroneckerFactors
from lossgeom.curvature.layer_rows import LayerRows
from lossgeom.estimate import Estimate
from lossgeom.linalg import frobenius_norm
from lossgeom.linalg.probes import exact_estimate
from lossgeom.problem import Problem

EXACT = 2048  # rows of a matrix up to which its norm is taken from it
PIECE_BYTES = 64 * 2**20  # of gradients that are formed at once


def block_norms(
    problem: Problem, rows: Rows, factors: Sequence[KroneckerFactors], matvecs: int, seed: int
) -> list[Estimate]:
    """Take the norms of blocks that are small or have few columns, and estimate the others."""
    small = [len(own.outputs) * len(own.inputs) <= EXACT for own in factors]
    blocks = rows.mean(_block, small)
    found = []
    for own, block, is_small in zip(factors, blocks, small, strict=True):
        mine = (part for part in rows.kept or () if part.layer.name == own.name)
        parts = [part for kept in mine for part in _parts(kept)]
        columns = sum(part.gradients[..., 0, 0].numel() for part in parts)
        if is_small:
            found.append(exact_estimate(float(block.norm()), 0))
        elif rows.kept is not None and columns <= EXACT and problem.ranks.size == 1:
            found.append(exact_estimate(_gram_norm(parts) / rows.divisor, 0))
        else:
            A = GaussNewton(problem.with_parameters(glob.escape(own.parameters[0])))
            found.append(frobenius_norm(A, matvecs=matvecs, seed=seed))
    return found


def _block(rows: LayerRows, wanted: bool) -> Tensor:
    if not wanted:
        return rows.inputs.new_zeros(())
    parts = (part.flat() for part in _parts(rows))
    return torch.stack([Z.T @ Z for Z in parts]).sum(0)


def _gram_norm(parts: Sequence[LayerRows]) -> float:
    """The norm of Z^T Z as that of Z Z^T, from one pair of parts at a time."""
    total = 0.0
    for i, part in enumerate(parts):
        total += float(_inner_products(part, part).square().sum())
        total += 2 * sum(float(_inner_products(part, b).square().sum()) for b in parts[:i])
    return math.sqrt(total)


def _inner_products(a: LayerRows, b: LayerRows) -> Tensor:
    """Multiply all gradients G of a part by those of another, and do not form those of rank one."""
    if a.inputs.shape[1] > 1:
        return a.flat() @ b.flat().T
    of_outputs = torch.einsum("kasm,lbsm->kalb", a.gradients, b.gradients)
    return of_outputs * (a.inputs[:, 0] @ b.inputs[:, 0].T)[:, None]


def _parts(rows: LayerRows) -> Iterator[LayerRows]:
    """Cut rows so that their gradients take little memory when they are formed."""
    x, g = rows.inputs, rows.gradients
    size = max(1, PIECE_BYTES // (8 * len(g) * x.shape[2] * g.shape[3]))
    for inputs, gradients in zip(torch.split(x, size), torch.split(g, size, 1), strict=True):
        yield replace(rows, inputs=inputs, gradients=gradients)
