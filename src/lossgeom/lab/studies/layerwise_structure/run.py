"""Training, and the structure of every layer where it ends."""

from __future__ import annotations

import math
from functools import partial
from statistics import median

import torch

from lossgeom.curvature import LayerStructure, layer_structure
from lossgeom.lab.studies._network import CLASSES, build_with_pixels, in_chunks
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies._training import train
from lossgeom.lab.studies.layerwise_structure.config import (
    BATCH_NORM,
    CENTRED,
    FEW,
    LAYERS,
    LENET5,
    MLP,
    Config,
)
from lossgeom.lab.training import sgd
from lossgeom.metrics import Accuracy, Loss
from lossgeom.problem import Problem
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import ForReport, HeatMap, Prediction
from lossgeom.recording.record import Record
from lossgeom.recording.tracker import Tracker

MAPPED = ((MLP, "fc1"), (CENTRED, "fc1"), (MLP, "fc2"), (BATCH_NORM, "fc2"))
ROWS, COLUMNS = CLASSES - 1, 5  # of a map


def run(run: SeedRun[Config], record: Record) -> None:
    """Train a network with SGD, and take its layers apart."""
    study, name = run.study, run.place["network"]
    model, data = build_with_pixels(study.network_of(name), run.seed, name == BATCH_NORM)
    inputs, targets = data.train
    if name == CENTRED:
        inputs = inputs - inputs.mean(0)
    batches = in_chunks((inputs, targets), study.network.chunk)
    problem = Problem(model, "cross_entropy", batches, mode="eval")
    tracker = Tracker(problem, [Loss(), Accuracy()], record, study.every)
    record.update(data=data.scaling)
    record.describe(ForReport(predictions=tuple(array_name(name, each) for each in LAYERS[name])))
    steps = study.steps_of(name)
    training = partial(
        sgd, model, "cross_entropy", (inputs, targets),
        lr=study.lr, batch_size=study.batch_size, steps=steps, seed=run.seed,
    )  # fmt: skip
    ended = train(model, record, training, steps=steps, every=study.every, at_step=tracker)
    if ended == "finished":
        at_end = problem.refreshed()
        save_layers(at_end.take(study.measured) if name == LENET5 else at_end, run, record)
    record.finish(ended)


def array_name(network: str, layer: str) -> str:
    """The name under which a record holds a layer."""
    return f"{network}-{layer}"


def save_layers(problem: Problem, run: SeedRun[Config], record: Record) -> None:
    """Save what the claims are made of and the report draws."""
    network = run.place["network"]
    found = layer_structure(problem, run.study.pairs, errors=network == MLP, seed=run.seed)
    for layer, own in zip(LAYERS[network], found, strict=True):
        if (network, layer) in MAPPED:
            save_map(own, network, layer, record)
        k = torch.arange(1, len(own.overlap) + 1)
        labels = "number of eigenvectors k", "overlap of eigenspaces", "random spaces"
        drawing = Prediction(f"{network}: {layer}", *labels, log_x=False)
        arrays = {"x": k, "y": own.overlap[:, None], "line_x": k.clone(), "line_y": own.baseline}
        save_drawing(record, array_name(network, layer), drawing, arrays, **numbers_of(own))


def numbers_of(own: LayerStructure) -> dict[str, float]:
    """The numbers of a layer; of the first few eigenvectors, the median."""
    errors = own.errors.errors if own.errors else {}
    decoupling, best = (errors[of].value if errors else math.nan for of in ("decoupling", "best"))
    return {
        "overlap": median(own.overlap[:FEW].tolist()),
        "overlap_of_one": float(own.overlap[0]),
        "overlap_of_classes": float(own.overlap[CLASSES - 2]),
        "rank_one": median(own.rank_one_energy[:FEW].tolist()),
        "along_mean": median(own.mean_input_energy[:FEW].tolist()),
        "input_ratio": own.input_ratio,
        "mean_alignment": own.mean_alignment,
        "outliers": own.outliers.count if own.outliers else math.nan,
        "excess": decoupling / best if best else math.nan,
    }


def save_map(own: LayerStructure, network: str, layer: str, record: Record) -> None:
    """Save how the first eigenvectors divide among those of the inputs."""
    labels = "eigenvector of E[x xᵀ]", "eigenvector of the Hessian", "energy", "energy"
    drawing = HeatMap(f"{network}: {layer}", *labels, marks={})
    energy = own.maps[1][:ROWS, :COLUMNS]
    rows, columns = (torch.arange(1, n + 1) for n in energy.shape)
    arrays = {"x": columns, "y": rows, "energy": energy}
    save_drawing(record, f"map-{array_name(network, layer)}", drawing, arrays)
