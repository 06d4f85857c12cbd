"""What small changes of the inputs can do: attacks, and certificates against all of them."""

from lossgeom.adversarial.certified_radius import certified_radius
from lossgeom.adversarial.logit_change import LogitChange, logit_change
from lossgeom.adversarial.robustness import Robustness, robustness
