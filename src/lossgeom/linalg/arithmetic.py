"""Arithmetic and random numbers that nothing the caller has set or drawn has an influence on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import RLock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

EXACT = ("ieee", "none")
TAG = 0x6C6F7373  # so that nothing else draws the same numbers from the same seed
PERIOD = 1_048_573  # of the numbers in a direction
FEW = 32  # numbers of a vector across the memory
LONG = 2**16  # numbers of a vector that is taken in pieces
PIECE = 2**12  # numbers whose squares are summed in float32: that is right to a unit of rounding
USUAL = 1e-12, 1e15  # lengths of which no square vanishes or overflows in float32
LOWER = (
    "Lower what is in memory at a time: give batches of fewer examples (the loss of all stays what "
    "it is), matrices a smaller memory_budget= (0 keeps nothing between products), solvers fewer "
    "vectors (k=, max_basis=, basis_on='cpu')"
)
CPU = torch.device("cpu")
ONE_AT_A_TIME = RLock()  # of threads, because what a measurement switches belongs to the process


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Switch off autocast, inference tensors, TF32 and the like; let in one thread at a time.

    What is made without a device is made on the CPU, also after ``torch.set_default_device``.
    Kernels and models that ask for TF32 by the older name of its setting are refused by torch where
    it contradicts the newer one, so both are switched. The older ones write the newer, too.

    Raises:
        OutOfMemoryError: of torch, with what to lower, where the device has too little memory.
    """
    cuda: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    mkldnn: Any = torch.backends.mkldnn
    on_gpu = device.type == "cuda"
    backends = (cuda, cudnn.conv, cudnn.rnn) if on_gpu else ()
    backends += (mkldnn.matmul, mkldnn.conv, mkldnn.rnn)
    with ONE_AT_A_TIME, ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.is_autocast_enabled(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        found = [(backend, backend.fp32_precision) for backend in backends]
        if any(precision not in EXACT for _, precision in found):
            for backend, precision in found:
                stack.callback(setattr, backend, "fp32_precision", precision)
            if on_gpu:
                with suppress(RuntimeError):  # the caller has made the two contradict each other
                    before = torch.get_float32_matmul_precision()
                    stack.callback(torch.set_float32_matmul_precision, before)
                    torch.set_float32_matmul_precision("highest")
                with suppress(RuntimeError):
                    stack.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
                    cudnn.allow_tf32 = False
            for backend in backends:
                backend.fp32_precision = "ieee"
        try:
            yield
        except torch.OutOfMemoryError as error:
            if LOWER in str(error):
                raise
            what = ". ".join(str(error).split(". ")[:2])  # how much was asked for is the second
            raise torch.OutOfMemoryError(f"{what}. {LOWER}") from error


def random_numbers(*seeds: int, tag: int = TAG) -> torch.Generator:
    """Return a generator whose numbers are independent of those of ``torch.manual_seed(seed)``.

    A model that was initialised with the same seed would resemble the probes it is measured with.
    """
    if min(seeds, default=0) < 0:
        raise ValueError(f"expected a seed >= 0, got {min(seeds)}")
    state = np.random.SeedSequence([*seeds, tag]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


def some_direction(like: Float[Tensor, ...], generator: torch.Generator) -> Float[Tensor, ...]:
    """Draw normal numbers in the form of a tensor, beyond a million the same ones again.

    A CPU takes as long for a hundred million numbers as a GPU for several products. For a direction
    to compare derivatives along these do as well: their period is prime, so that it lines up with
    no layer's shape.
    """
    n = min(like.numel(), PERIOD)
    few = torch.randn(n, generator=generator, dtype=torch.float32, device="cpu").to(like)
    return few.repeat(-(-like.numel() // max(n, 1)))[: like.numel()].view(like.shape)


def lengths(x: Float[Tensor, " ..."], dim: int = 1) -> Float[Tensor, " ..."]:
    """Euclidean lengths, summed in float64, of numbers whose squares may vanish or overflow."""
    last = dim % x.ndim == x.ndim - 1
    if last and x.shape[-1] >= LONG and x.dtype == torch.float32 and x.device.type == "cpu":
        norms = _of_pieces(x)
        if all(USUAL[0] < norm < USUAL[1] for norm in norms.flatten().tolist()):
            return norms
    few = dim % x.ndim < x.ndim - 1 and x.shape[dim] <= FEW  # where vector_norm is slow
    norms = (
        x.double().square().sum(dim).sqrt()
        if few
        else torch.linalg.vector_norm(x, dim=dim, dtype=torch.float64)
    )
    usual = x.dtype != torch.float64 or not x.numel()
    if usual or bool(((norms > 1e-140) & (norms < 1e140)).all()):
        return norms
    largest = x.abs().amax(dim, keepdim=True)
    largest = torch.where((largest > 0) & largest.isfinite(), largest, 1)
    scaled: Tensor = torch.linalg.vector_norm(x / largest, dim=dim)
    return scaled * largest.squeeze(dim)


def dots(x: Float[Tensor, "j n"], y: Float[Tensor, "m n"]) -> Float[Tensor, "j m"]:
    """Inner products of rows; of long ones on a CPU sums of those of pieces, which round less."""
    n = x.shape[1]
    if n <= LONG or x.device.type != "cpu":
        return (x @ y.T).double()
    count = n // LONG
    a, b = (rows[:, : count * LONG].view(len(rows), count, LONG) for rows in (x, y))
    found = torch.bmm(a.transpose(0, 1), b.permute(1, 2, 0)).double().sum(0)
    return found + (x[:, count * LONG :] @ y[:, count * LONG :].T).double()


def _of_pieces(x: Float[Tensor, "*rows n"]) -> Float[Tensor, "*rows"]:
    """Lengths of pieces and from them of all: on a CPU ten times faster than all in float64."""
    count = x.shape[-1] // PIECE
    whole, rest = x[..., : count * PIECE], x[..., count * PIECE :]
    pieces = torch.linalg.vector_norm(whole.reshape(*x.shape[:-1], count, PIECE), dim=-1)
    if rest.shape[-1]:
        last = torch.linalg.vector_norm(rest, dim=-1, keepdim=True)
        pieces = torch.cat([pieces, last], -1)
    found: Tensor = torch.linalg.vector_norm(pieces, dim=-1, dtype=torch.float64)
    return found
