"""What is hung into the graphs of a layer, to see when they go."""

import weakref


class Sentinel:
    pass


def hung_into(layer):
    """References to one for each graph that the layer's output gets from now on."""
    sentinels = []

    def hang(module, inputs, output):
        if output.grad_fn is not None:
            sentinel = Sentinel()
            output.grad_fn.metadata["sentinel"] = sentinel
            sentinels.append(weakref.ref(sentinel))

    layer.register_forward_hook(hang)
    return sentinels
