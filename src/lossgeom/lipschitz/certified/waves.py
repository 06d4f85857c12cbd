"""Sine and cosine, with the ranges of their values and slopes on intervals."""

from __future__ import annotations

import math

from torch import Tensor, cos, sin

from lossgeom.lipschitz.certified.activations import Activation, Elementwise, Monotone


def _wave(function: Elementwise, crest: float) -> Monotone:
    """A sine that is shifted to have a crest at a point."""

    def of_finite(z: Tensor) -> Tensor:  # an interval without end has all crests and troughs
        return function(z.nan_to_num(math.nan, 0.0, 0.0))

    breaks = ((crest, 1.0), (crest + math.pi, -1.0))
    return Monotone(of_finite, breaks, period=2 * math.pi)


_SINE, _COSINE = _wave(sin, math.pi / 2), _wave(cos, 0.0)
_MINUS_SINE = _wave(lambda z: -sin(z), -math.pi / 2)
_MINUS_COSINE = _wave(lambda z: -cos(z), math.pi)

SINE = Activation(_SINE, _COSINE, _MINUS_SINE)
COSINE = Activation(_COSINE, _MINUS_SINE, _MINUS_COSINE)
