"""Losses as sums of terms and their number, and the likelihoods that they belong to."""

from lossgeom.losses.as_loss import LossLike, as_loss
from lossgeom.losses.criteria import ELEMENTWISE
from lossgeom.losses.loss import Loss, NonFiniteError
