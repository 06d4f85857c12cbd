"""Networks trained from several initialisations, and the eigenspaces of their first layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.curvature import Hessian, kronecker_factors
from lossgeom.lab.datasets import Dataset
from lossgeom.lab.studies._network import NetworkSettings, build, build_with_pixels, in_chunks
from lossgeom.lab.studies._stages import Stage, run_stages
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.eigenspace_overlap.config import Config
from lossgeom.lab.training import sgd
from lossgeom.linalg import (
    EigenPairs,
    eigenspace_overlap,
    energy_along,
    random_numbers,
    random_overlap,
    top_eigenpairs,
)
from lossgeom.metrics import Accuracy
from lossgeom.problem import Problem
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import ForReport, Prediction
from lossgeom.recording.record import Record

Build = Callable[[NetworkSettings, int], tuple[nn.Module, Dataset]]

FIRST_LAYER = "1.weight"  # after the module that flattens images
MODELS = 100  # the seeds of models are so many times that of the study, and the next ones


def run(run: SeedRun[Config], record: Record) -> None:
    """Train the networks of each kind, and compare them in pairs."""
    kinds = stages(run.study)
    record.describe(ForReport(predictions=tuple(kinds)))
    run_stages(kinds, run, record)


def stages(study: Config) -> dict[str, Stage]:
    """One for each kind of network; the narrowest comes with centred inputs, too."""
    narrow = {m: replace(study.network, widths=(m,), activation="leaky_relu") for m in study.narrow}
    least = min(narrow)
    kinds: dict[str, tuple[NetworkSettings, int, Build]] = {
        **{f"narrow-{m}": (settings, 2 * m, build_with_pixels) for m, settings in narrow.items()},
        "wide": (study.network, study.pairs, build_with_pixels),
        "centred": (narrow[least], 2 * least, build),
    }
    return {name: partial(compare, name, *kind) for name, kind in kinds.items()}


@dataclass(frozen=True, eq=False)
class FirstLayer:
    """The Hessian of a trained network in the weights of its first layer.

    Attributes:
        exact: its top eigenpairs.
        decoupled: those of E[M] (x) E[x x^T].
        along: how far each eigenvector lies along the mean input.
        live: how many directions of the outputs come with the first direction of the inputs,
            among the largest eigenvalues of the decoupled Hessian, before one comes with the
            second.
    """

    exact: EigenPairs
    decoupled: EigenPairs
    along: Float[Tensor, " k"]
    live: int


def first_layer(problem: Problem, k: int) -> FirstLayer:
    """Take the k largest eigenpairs and the factors of the first layer."""
    problem = problem.with_parameters(FIRST_LAYER)
    exact = top_eigenpairs(Hessian(problem), k)
    (factors,) = kronecker_factors(problem)
    sigma, mu = (torch.linalg.eigvalsh(of).flip(0) for of in (factors.outputs, factors.inputs))
    return FirstLayer(
        exact,
        factors.matrix.top_eigenpairs(k),
        along=energy_along(exact.vectors, factors.mean_input),
        live=int((sigma * mu[0] > sigma[0] * mu[1]).sum()),
    )


def trained(model: nn.Module, data: Dataset, study: Config, seed: int) -> bool:
    """Train a network in place by SGD; whether that came to its end."""
    steps = study.epochs * math.ceil(len(data.train[0]) / study.batch_size)
    training = partial(sgd, lr=study.lr, batch_size=study.batch_size, steps=steps, seed=seed)
    *_, last = training(model, "cross_entropy", data.train)
    return bool(last == steps)


def compare(
    name: str,
    settings: NetworkSettings,
    k: int,
    build: Build,
    run: SeedRun[Config],
    record: Record,
) -> dict[str, float]:
    """Train networks of a kind, and compare the top eigenspaces of each two.

    Returns:
        Of the mean overlap over pairs: where it is largest (``"peak"``), what it is there
        (``"value"``), and that by what it is at the end (``"fall"``) and by that of random spaces
        (``"multiple"``); the same multiple for a model's space and a random one (``"random"``); the
        mean number of live directions (``"live"``), the mean energy along the mean input up to the
        peak (``"along"``), and the largest difference from the decoupled overlap up to there
        (``"off"``); the mean accuracy on test data (``"accuracy"``). Only ``"value"``, as NaN, if
        training diverges or an eigenpair is not found.
    """
    study, (_, data) = run.study, build(settings, run.seed)
    seeds = range(MODELS * run.seed, MODELS * run.seed + study.models)
    models = [build(settings, seed)[0] for seed in seeds]
    if not all(trained(m, data, study, seed) for m, seed in zip(models, seeds, strict=True)):
        return {"value": math.nan}
    batches = in_chunks(data.train, settings.chunk)
    layers = [first_layer(Problem(m, "cross_entropy", batches), k) for m in models]
    if not all(layer.exact.converged.all() for layer in layers):
        return {"value": math.nan}
    overlaps = overlaps_of_pairs([layer.exact for layer in layers])
    decoupled = overlaps_of_pairs([layer.decoupled for layer in layers]).mean(0)
    mean, V = overlaps.mean(0), layers[0].exact.vectors
    peak, baseline = int(mean.argmax()), random_overlap(k, len(V))
    save(record, name, overlaps, decoupled, len(V))
    noise = torch.randn(V.shape, generator=random_numbers(run.seed))
    random = eigenspace_overlap(V, torch.linalg.qr(noise).Q)
    on_test = [Accuracy()(Problem(m, "cross_entropy", [data.test])).value for m in models]
    numbers: dict[str, float | Tensor] = {
        "value": mean[peak],
        "peak": peak + 1,
        "fall": mean[peak] / mean[-1],
        "multiple": mean[peak] / baseline[peak],
        "random": random[peak] / baseline[peak],
        "live": sum(layer.live for layer in layers) / len(layers),
        "along": torch.stack([layer.along for layer in layers])[:, : peak + 1].mean(),
        "off": (mean - decoupled)[: peak + 1].abs().max(),
        "accuracy": sum(on_test) / len(on_test),
    }
    return {name: float(number) for name, number in numbers.items()}


def overlaps_of_pairs(spaces: Sequence[EigenPairs]) -> Float[Tensor, "pairs k"]:
    """The overlaps of each two of some spaces."""
    pairs = combinations((space.vectors for space in spaces), 2)
    return torch.stack([eigenspace_overlap(U, V) for U, V in pairs])


def save(
    record: Record,
    name: str,
    overlaps: Float[Tensor, "pairs k"],
    decoupled: Float[Tensor, " k"],
    n: int,
) -> None:
    """Save the overlaps of all pairs over k, for the figure, with what the decoupling gives."""
    x = torch.arange(1, len(decoupled) + 1, dtype=torch.float64)
    title = f"{name.replace('-', ', width ')} (random: k / {n})"
    labels = "eigenvectors k", "overlap of two models", "of their decoupled Hessians, first seed"
    drawing = Prediction(title, *labels, log_x=False)
    arrays = {"x": x, "y": overlaps.T.contiguous(), "line_x": x.clone(), "line_y": decoupled}
    save_drawing(record, name, drawing, arrays)
