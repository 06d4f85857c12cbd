"""Random networks of several widths, and the eigenvalues and top eigenspaces of their E[M]."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lossgeom.lab.studies._stages import Stage, run_stages
from lossgeom.lab.studies._study import SeedRun
from lossgeom.lab.studies.random_two_layer.config import FEWER, Config
from lossgeom.lab.studies.random_two_layer.network import Network, random_network, row_space
from lossgeom.linalg import eigenspace_overlap
from lossgeom.recording.drawings import save_drawing
from lossgeom.recording.for_report import ForReport, Prediction, Spectra
from lossgeom.recording.record import Record

OTHER = 1000  # added to a seed for a network that has nothing to do with its own
DRAWN = 2  # times C: eigenvalues in the figure


def run(run: SeedRun[Config], record: Record) -> None:
    """Draw a network of each width, and decompose its output Hessian."""
    record.describe(ForReport(predictions=("ratios",), spectra=("spectra",)))
    run_stages(stages(run.study), run, record)


def stages(study: Config) -> dict[str, Stage]:
    """One for each width, one with fewer inputs, and the figure of ratios."""
    return {
        **{f"width-{n}": partial(at_width, n) for n in study.widths},
        "fewer_inputs": fewer_inputs,
        "ratios": ratios,
    }


def decomposed(
    study: Config, n: int, d: int, seed: int
) -> tuple[Network, Float[Tensor, " n"], Float[Tensor, "n C_minus_1"]]:
    """A network, the eigenvalues of its E[M] from the largest, and the first C - 1 eigenvectors."""
    found = random_network(n, d, study.outputs, study.samples, seed)
    values, vectors = torch.linalg.eigh(found.output_hessian())
    return found, values.flip(0), vectors.flip(1)[:, : study.outputs - 1]


def at_width(n: int, run: SeedRun[Config], record: Record) -> dict[str, float]:
    """The spectrum and the top C - 1 eigenspace at a width.

    Returns:
        The ratio of the C-th eigenvalue to the one before (``"value"``), what it would be with
        independent masks (``"predicted"``), and the same ratio one eigenvalue earlier
        (``"earlier"``); the overlap of the eigenspace with the row space of W_2 without the
        direction of equal outputs (``"overlap"``), without that of one output (``"one_output"``),
        and with the same of another network (``"other"``).
    """
    study, C = run.study, run.study.outputs
    found, values, U = decomposed(study, n, study.inputs, run.seed)
    predicted = torch.linalg.eigvalsh(found.with_independent_masks()).flip(0)
    save_spectrum(record, study, n, values)
    equal, one = torch.ones(C), torch.eye(C)[0]
    other = random_network(n, 1, C, 1, run.seed + OTHER)
    return {
        "value": ratio(values, C - 1),
        "predicted": ratio(predicted, C - 1),
        "earlier": ratio(values, C - 2),
        "overlap": overlap(U, row_space(found.second, equal)),
        "one_output": overlap(U, row_space(found.second, one)),
        "other": overlap(U, row_space(other.second, equal)),
    }


def save_spectrum(record: Record, study: Config, n: int, values: Float[Tensor, " n"]) -> None:
    """Add the largest eigenvalues at a width to those of narrower networks, for the figure."""
    narrower = record.load_arrays("spectra")
    arrays = {} if narrower is None else narrower[0]
    arrays[f"width{n}_values"] = values[: DRAWN * study.outputs].clone()
    drawing = Spectra(
        matrices={f"width{m}": f"width {m}" for m in study.widths if m <= n},
        column="E[M]", row="first layer", marked=study.outputs - 1, marked_as="C - 1",
    )  # fmt: skip
    save_drawing(record, "spectra", drawing, arrays)


def overlap(U: Float[Tensor, "n k"], V: Float[Tensor, "n k"]) -> float:
    """The overlap of two whole spaces."""
    return eigenspace_overlap(U, V)[-1].item()


def ratio(values: Float[Tensor, " n"], i: int) -> float:
    """The eigenvalue after the first i by the last of these."""
    return float(values[i] / values[i - 1])


def fewer_inputs(run: SeedRun[Config], _: Record) -> dict[str, float]:
    """The overlap at the largest width with fewer inputs."""
    study = run.study
    found, _values, U = decomposed(study, study.widths[-1], study.inputs // FEWER, run.seed)
    return {"value": overlap(U, row_space(found.second, torch.ones(study.outputs)))}


def ratios(run: SeedRun[Config], record: Record) -> dict[str, float]:
    """Draw the ratios over the width; the value is that of the largest."""
    widths = run.study.widths
    rows = {row["metric"]: row for row in record.rows()}
    found = [[rows[f"width-{n}"][name] for n in widths] for name in ("value", "predicted")]
    measured, predicted = torch.tensor(found, dtype=torch.float64)
    x = torch.tensor(widths, dtype=torch.float64)
    labels = "width n", "eigenvalue C by eigenvalue C - 1", "with independent masks, first seed"
    drawing = Prediction("The gap after C - 1 eigenvalues of E[M]", *labels, log_x=True)
    arrays = {"x": x, "y": measured[:, None], "line_x": x.clone(), "line_y": predicted}
    save_drawing(record, "ratios", drawing, arrays)
    return {"value": measured[-1].item()}
