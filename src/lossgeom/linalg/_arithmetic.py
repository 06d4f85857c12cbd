"""Arithmetic as it is written, whatever the caller has switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch.backends import cudnn


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Without autocast, without TF32 and the like, and without inference tensors."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        precision = torch.get_float32_matmul_precision()
        if precision != "highest":
            stack.callback(torch.set_float32_matmul_precision, precision)
            torch.set_float32_matmul_precision("highest")
        if device.type == "cuda":
            stack.enter_context(
                cudnn.flags(cudnn.enabled, cudnn.benchmark, cudnn.deterministic, allow_tf32=False)
            )
        yield
