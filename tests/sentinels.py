"""What is hung into the graphs of a layer, to see when they go."""

import weakref
from types import MethodType


class Sentinel:
    pass


def hung_into(layer):
    """References to one for each graph that the layer's output gets from now on."""
    sentinels, original = [], type(layer).forward

    def forward(self, *args):  # no hook, for what hooks write is put back
        output = original(self, *args)
        if output.grad_fn is not None:
            sentinel = Sentinel()
            output.grad_fn.metadata["sentinel"] = sentinel
            sentinels.append(weakref.ref(sentinel))
        return output

    layer.forward = MethodType(forward, layer)
    return sentinels
