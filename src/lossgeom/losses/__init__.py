"""Losses as sums of terms and their number, and the likelihoods that they belong to."""

from lossgeom.losses.loss import (
    ELEMENTWISE,
    Loss,
    LossLike,
    NonFiniteError,
    as_loss,
    checked_terms,
)
