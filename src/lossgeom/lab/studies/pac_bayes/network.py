"""The network at its initialisation and where SGD ends, and the data with real or random labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim import SGD

from lossgeom.lab.models import mlp
from lossgeom.lab.studies._network import Examples, NetworkSettings, build_with_pixels
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.pac_bayes.config import Config
from lossgeom.lab.training import batch_of_step, optimize

REAL, RANDOM = "real", "random"
DEVIATION, HIDDEN_BIAS = 0.04, 0.1  # of the initialisation, as Dziugaite and Roy have it
LOSS = nn.BCEWithLogitsLoss()


def data(run: SeedRun[Config]) -> tuple[Examples, Examples]:
    """Images to train and to test on, with target 1 for some classes, or drawn like coins."""
    _, found = build_with_pixels(run.study.network, run.seed)
    generator = torch.Generator().manual_seed(run.seed)

    def labelled(examples: Examples) -> Examples:
        inputs, digits = examples
        ones = torch.isin(digits, torch.tensor(run.study.ones))
        if run.place["labels"] == RANDOM:
            ones = torch.randint(2, ones.shape, generator=generator)
        return inputs, ones.to(inputs).unsqueeze(1)

    return labelled(found.train), labelled(found.test)


def initialised(settings: NetworkSettings, image: Tensor, seed: int) -> nn.Module:
    """The network with one output, at weights that no data has touched."""
    layers = mlp(image.numel(), 1, settings.widths, settings.activation, seed)
    generator = torch.Generator().manual_seed(seed)
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    for layer in linear:
        nn.init.trunc_normal_(
            layer.weight, std=DEVIATION, a=-2 * DEVIATION, b=2 * DEVIATION, generator=generator
        )
        nn.init.constant_(layer.bias, 0.0 if layer is linear[-1] else HIDDEN_BIAS)
    return nn.Sequential(nn.Flatten(), *layers)


def trained(run: SeedRun[Config], model: nn.Module, examples: Examples) -> Iterator[int]:
    """Train the network in place with SGD and momentum, on reshuffled batches."""
    study = run.study
    per_epoch = -(-len(examples[0]) // study.batch_size)
    return optimize(
        model, LOSS, batch_of_step(examples, study.batch_size, seed=run.seed),
        optimizers=[SGD(model.parameters(), study.lr, study.momentum)],
        steps=study.epochs * per_epoch,
    )  # fmt: skip
