"""BatchNorm and its like: statistics of each batch, and running averages that stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lossgeom.batches import Batch


def has_batch_statistics(module: nn.Module) -> bool:
    """Whether a model uses the statistics of each batch in train mode."""
    return any(isinstance(part, _BatchNorm) for part in module.modules())


def lacks_running_statistics(module: nn.Module) -> bool:
    """Whether a model uses the statistics of each batch in eval mode, too."""
    parts = (part for part in module.modules() if isinstance(part, _BatchNorm))
    return any(part.running_mean is None for part in parts)


@contextmanager
def buffers_kept(module: nn.Module) -> Iterator[None]:
    """Let modules write to copies of their buffers, such as running averages."""
    buffers = [(part, dict(part._buffers)) for part in module.modules()]
    fresh: dict[int, Tensor] = {}  # a buffer that modules share stays one
    try:
        for part, own in buffers:
            for name, buffer in own.items():
                if buffer is not None:
                    part._buffers[name] = fresh.setdefault(id(buffer), buffer.clone())
        yield
    finally:
        for part, own in buffers:
            part._buffers.clear()
            part._buffers.update(own)


def explain_too_few(error: ValueError, batch: Batch) -> None:
    """Say which batch is too small for its statistics, if that is what went wrong."""
    if "Expected more than 1 value per channel" in str(error):
        raise ValueError(
            f"batch {batch.index}, of {len(batch)} example{'s' * (len(batch) != 1)}, has too few "
            f"for the batch statistics of BatchNorm in mode='train' ({error}): leave it out, such "
            "as with DataLoader(..., drop_last=True), use larger batches, or measure in "
            "mode='eval'"
        ) from error
