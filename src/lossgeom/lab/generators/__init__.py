"""Tasks on generated distributions, one in each file: settings and a seed that give all of it."""

from lossgeom.lab.generators._student import student
from lossgeom.lab.generators._task import ManifoldTask
from lossgeom.lab.generators.digits_decoder import digits_decoder
from lossgeom.lab.generators.sine_implicit import sine_implicit
from lossgeom.lab.generators.spectral_gan import spectral_gan
from lossgeom.lab.generators.tanh_surface import tanh_surface

GENERATORS = {
    "tanh_surface": tanh_surface,
    "sine_implicit": sine_implicit,
    "spectral_gan": spectral_gan,
    "digits_decoder": digits_decoder,
}
