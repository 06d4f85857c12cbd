"""Arithmetic as it is written, whatever the caller has switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import RLock
from typing import Any

import torch

EXACT = ("ieee", "none")
ONE_AT_A_TIME = RLock()  # of threads, because what a measurement switches belongs to the process


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Without autocast, TF32 and the like, and inference tensors; in one thread at a time."""
    with ONE_AT_A_TIME, ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast(device.type, enabled=False))
        for backend in _backends(device):
            if backend.fp32_precision not in EXACT:
                stack.callback(setattr, backend, "fp32_precision", backend.fp32_precision)
                backend.fp32_precision = "ieee"
        yield


def _backends(device: torch.device) -> list[Any]:
    """What has a setting of its own for products in float32."""
    if device.type == "cuda":
        cudnn: Any = torch.backends.cudnn
        return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    mkldnn: Any = torch.backends.mkldnn
    return [mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
