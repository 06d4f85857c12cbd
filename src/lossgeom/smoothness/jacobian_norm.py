"""Spectral norms of the input-output Jacobian."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.batches import Batch
from lossgeom.problem import NonFiniteError, Problem

Outputs = Literal["logits", "softmax"]
OUTPUTS: tuple[Outputs, ...] = ("logits", "softmax")
CHUNK_NUMBERS = 2**22  # of the C x B x D block of Jacobians that is held at a time


def jacobian_norms(problem: Problem, outputs: Outputs = "logits") -> Float[Tensor, " N"]:
    r"""Spectral norm of the input-output Jacobian at every example, in eval mode.

    .. math:: \|J f(x_i)\|_2 = \sqrt{\lambda_{\max}(J_i J_i^\top)}, \quad J_i \in R^{C \times D}

    Exact: the C rows of all Jacobians of a chunk of examples come from one batched vector-Jacobian
    product, and the norm from the C x C Gram matrix, in float64. Of the softmaxed model, the Gram
    matrix is A J J^T A with :math:`A = \mathrm{diag}(p) - p p^\top`.

    Cost: one forward pass and C backward passes through the model, batched; a chunk holds
    C x B x D numbers, at most 2^22 of them unless one example alone needs more.

    Args:
        problem: model and data; the loss plays no part, and the mode is always eval. The outputs
            of an example are flattened to C numbers, its inputs to D.
        outputs: of the model as it is (``"logits"``), or after a softmax over C (``"softmax"``).

    Returns:
        The norms in the order of the data, in units of output per unit of input.

    Raises:
        TypeError: if the model takes several inputs.
        ValueError: if outputs is neither, the inputs are not floating point, the outputs are not
            one row per example, the outputs of one example depend on another, or a softmax is
            asked of one output.
        NonFiniteError: where an output or its Jacobian is NaN or infinite.

    Source: MacDonald et al., arXiv:2305.14683, sections 3 and 6.

    >>> from torch import nn
    >>> model = nn.Linear(2, 2, bias=False)
    >>> model.weight.data = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    >>> data = [(torch.ones(2, 2), torch.tensor([0, 1]))]
    >>> jacobian_norms(Problem(model, "cross_entropy", data))
    tensor([4., 4.])
    """
    if outputs not in OUTPUTS:
        raise ValueError(f"expected outputs to be one of {OUTPUTS}, got {outputs!r}")
    problem = problem.in_mode("eval")
    norms = problem.over_batches(lambda batch: _batch_norms(problem, batch, outputs))
    return torch.cat(norms).to(problem.theta)


def _batch_norms(problem: Problem, batch: Batch, outputs: Outputs) -> Float[Tensor, " B"]:
    inputs = batch.input
    if not inputs.is_floating_point():
        raise ValueError(f"expected floating-point inputs to differentiate in, got {inputs.dtype}")
    _check_independent(problem, batch)
    first = _outputs(problem, batch.examples(0, 1))
    numbers = first.shape[1] * inputs[0].numel()
    chunk = max(1, CHUNK_NUMBERS // numbers)
    starts = range(0, len(batch), chunk)
    pieces = [batch.examples(start, start + chunk) for start in starts]
    return torch.cat([_chunk_norms(problem, piece, outputs) for piece in pieces])


def _outputs(problem: Problem, batch: Batch) -> Float[Tensor, "B C"]:
    outputs = problem.outputs(problem.theta, batch)
    if outputs.ndim == 0 or len(outputs) != len(batch.input):
        raise ValueError(
            f"expected one row of outputs per example, got outputs of shape "
            f"{tuple(outputs.shape)} for {len(batch.input)} examples"
        )
    if not torch.isfinite(outputs).all():
        raise NonFiniteError("the output of the model is NaN or infinite at these parameters")
    return outputs.reshape(len(outputs), -1)


def _chunk_norms(problem: Problem, batch: Batch, kind: Outputs) -> Float[Tensor, " B"]:
    inputs = batch.input.detach().requires_grad_()
    outputs = _outputs(problem, batch.with_input(inputs.clone()))
    if not outputs.requires_grad:
        return torch.zeros(len(outputs), dtype=torch.float64, device=outputs.device)
    B, C = outputs.shape
    if kind == "softmax" and C == 1:
        raise ValueError("expected two or more outputs for a softmax, which is constant for one")
    one_hot = torch.eye(C, dtype=outputs.dtype, device=outputs.device)
    (J,) = torch.autograd.grad(
        outputs, inputs, one_hot[:, None, :].expand(C, B, C), is_grads_batched=True
    )
    if not J.isfinite().all():
        raise NonFiniteError("the input-output Jacobian is NaN or infinite at these parameters")
    rows = J.reshape(C, B, -1).transpose(0, 1)
    scale = rows.abs().amax((1, 2), keepdim=True)
    rows = rows / torch.where(scale > 0, scale, 1)  # so that squares neither vanish nor overflow
    gram = (rows @ rows.transpose(1, 2)).double()
    if kind == "softmax":
        A = _softmax_jacobian(outputs.detach().double())
        gram = A @ gram @ A
    largest: Tensor = torch.linalg.eigvalsh(gram)[:, -1]
    return largest.clamp(min=0).sqrt() * scale.flatten().double()


def _softmax_jacobian(logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C C"]:
    """diag(p) - p p^T, with p (1 - p) as a sum over the other classes so as not to cancel."""
    p = logits.softmax(dim=1)
    others = p[:, :, None] * p[:, None, :]
    others.diagonal(dim1=1, dim2=2).zero_()
    return torch.diag_embed(others.sum(2)) - others


def _check_independent(problem: Problem, batch: Batch) -> None:
    """Summing over examples separates their Jacobians only if they do not depend on each other."""
    few = batch.examples(0, 8)
    inputs = few.input.detach().requires_grad_()
    outputs = _outputs(problem, few.with_input(inputs.clone()))
    if len(inputs) == 1 or not outputs.requires_grad:
        return
    uneven = torch.arange(1.0, outputs.shape[1] + 1).cos().to(outputs)
    (gradient,) = torch.autograd.grad((outputs[::2] @ uneven).sum(), inputs, materialize_grads=True)
    if gradient[1::2].nan_to_num(0).any():
        raise ValueError(
            "expected the outputs of one example to depend on its own inputs alone, but they "
            "depend on other examples in the batch"
        )
