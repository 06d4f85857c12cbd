"""Arithmetic as it is written, whatever the caller has switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """Without autocast, which would round products to 8 bits, and without inference tensors."""
    with torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        yield
