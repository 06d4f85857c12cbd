"""Theorems: numbers in, a bound out, with all that it rests on."""

from lossgeom.bounds._training import Epoch
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.bounds.covering import Covered, covering_radius
from lossgeom.bounds.delta_good import DeltaGood, Product, PushForward
from lossgeom.bounds.intrinsic_dimension import IntrinsicDimension, intrinsic_dimension
from lossgeom.bounds.kl_inverse import bernoulli_kl, kl_inverse
from lossgeom.bounds.latents import Cube, Gaussian, Sphere
from lossgeom.bounds.pac_bayes import PacBayes, pac_bayes
from lossgeom.bounds.posterior import Posterior
