"""Losses whose Hessian in the outputs is zero, which makes Gauss-Newton matrices zero."""

from __future__ import annotations

import torch

from lossgeom.autodiff.loss_at_outputs import LossAtOutputs
from lossgeom.batches import Batch
from lossgeom.problem import Problem


def note_if_linear(problem: Problem) -> None:
    """Put a note on the problem, if its loss has no curvature here in the outputs of any batch."""

    def curved(batch: Batch) -> bool:
        with torch.no_grad():
            outputs = problem.outputs(problem.theta, batch)
        loss = LossAtOutputs.of(problem, outputs, batch)
        u = torch.arange(1.0, loss.outputs.numel() + 1).cos().to(loss.outputs)
        return bool(loss.curve(u.view_as(loss.outputs)).any())

    curves = problem.ranks.together(lambda: any(problem.local.over_batches(curved)))
    if any(problem.ranks.gathered(curves)):
        return
    problem.cache.notes.append(
        f"the loss {problem.criterion.name!r} has no curvature in the outputs here (it is linear "
        "in them, at least piecewise), so the Gauss-Newton matrix is zero, and all curvature is in "
        "the residual term; of a model that puts out log-probabilities, measure the cross-entropy"
    )
