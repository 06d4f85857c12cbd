"""Models, one in each file: settings and a seed that give a module."""

from lossgeom.lab.models.gpt import gpt
from lossgeom.lab.models.lenet5 import lenet5
from lossgeom.lab.models.mlp import mlp
from lossgeom.lab.models.resnet14 import resnet14
from lossgeom.lab.models.resnet18 import resnet18
from lossgeom.lab.models.vgg11 import vgg11

MODELS = {
    "mlp": mlp,
    "lenet5": lenet5,
    "vgg11": vgg11,
    "resnet14": resnet14,
    "resnet18": resnet18,
    "gpt": gpt,
}
