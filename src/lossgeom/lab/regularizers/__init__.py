"""Regularisers, one in each file: a strength that gives a function of objectives."""

from lossgeom.lab.regularizers.crop_and_flip import crop_and_flip
from lossgeom.lab.regularizers.dropout import dropout
from lossgeom.lab.regularizers.hessian_trace import HessianTrace, hessian_trace
from lossgeom.lab.regularizers.hold import NotPositiveError, hold
from lossgeom.lab.regularizers.input_gradient import input_gradient
from lossgeom.lab.regularizers.jacobian_norm import JacobianNorm, jacobian_norm
from lossgeom.lab.regularizers.label_smoothing import label_smoothing
from lossgeom.lab.regularizers.mixup import mixup
from lossgeom.lab.regularizers.sharpness import WarmSharpness, sharpness
from lossgeom.lab.regularizers.weight_decay import weight_decay

REGULARIZERS = {
    "weight_decay": weight_decay,
    "label_smoothing": label_smoothing,
    "mixup": mixup,
    "crop_and_flip": crop_and_flip,
    "dropout": dropout,
    "input_gradient": input_gradient,
    "jacobian_norm": jacobian_norm,
    "hessian_trace": hessian_trace,
    "sharpness": sharpness,
}
