"""Points on a generated surface of few dimensions, with a smooth function to regress."""

import importlib
from typing import Any

from lossgeom.lab.datasets._dataset import TEST, Dataset, Options, regressed
from lossgeom.messages.wording import unknown


def manifold(
    examples: int = 500, seed: int = 0, task: str = "tanh_surface", **options: Any
) -> Dataset:
    """Points on a generated surface of few dimensions, with a smooth function to regress.

    They are a sample of a task of :mod:`lossgeom.lab.generators`, of which nothing is unknown.

    Scaling: none; inputs are (N, D) and targets (N, 1) in float32, as the task makes them, on a
    surface of two dimensions by default. There are 1,000 more examples to test on.

    Args:
        examples: to train on.
        seed: of the task and of the sample.
        task: its name; the ones that learn digits need the extra ``lab``, and a few seconds.
        **options: ``input_scale`` and ``target_scale`` of :class:`Options`; there are no labels.

    Raises:
        ValueError: for no examples, an unknown task, or options that are for labels.

    Source: MacDonald, Valmadre and Lucey, arXiv:2305.14683, section 4, for data that a smooth
    generator makes.

    >>> manifold(examples=50).train[0].shape
    torch.Size([50, 16])
    """
    tasks = importlib.import_module("lossgeom.lab.generators").GENERATORS  # which import this room
    if task not in tasks:
        raise ValueError(unknown("task", task, tasks))
    if examples < 1:
        raise ValueError(f"expected 1 example or more to train on, got {examples}")
    _, x, y = tasks[task](seed=seed).sample(examples + TEST, seed)
    x, y = x.float(), y.float()
    train, test = ((x[rows], y[rows]) for rows in (slice(examples), slice(examples, None)))
    return regressed(train, test, f"none; the task {task}", Options(**options))
