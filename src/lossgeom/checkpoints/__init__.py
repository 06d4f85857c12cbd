"""Weights from files that others have written, without running what is in them."""

from lossgeom.checkpoints.loading import load_checkpoint, read_checkpoint, sha256
from lossgeom.checkpoints.weights import CheckpointError
