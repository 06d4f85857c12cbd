"""Figures of records and results: what is given goes in, and a figure of matplotlib comes out.

Each function takes ``ax``, axes to draw on, which keep their own style, and returns their figure.
Without it, it returns a new figure, which shows itself in a notebook; ``figure.savefig`` writes it
to a file. Nothing of matplotlib's global settings is changed, and pyplot is not imported. Colours
differ in lightness, and lines in their dashes, so that figures can be read in print and by
colour-blind readers. Matplotlib comes with the extra ``plot``.
"""

from lossgeom.plot.jacobians import jacobians
from lossgeom.plot.layers import layers
from lossgeom.plot.spectra import density, spectrum
from lossgeom.plot.trajectories import edge, trajectory

__all__ = ["density", "edge", "jacobians", "layers", "spectrum", "trajectory"]
