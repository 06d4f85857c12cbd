"""Weights from files that others have written, without running what is in them."""

from lossgeom.checkpoints.loading import (
    CheckpointError,
    load_checkpoint,
    read_checkpoint,
    sha256,
)
