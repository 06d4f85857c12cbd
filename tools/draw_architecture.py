"""Draw docs/images/architecture.svg: how data flows, and which room stands on which.

python tools/draw_architecture.py
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

PICTURE = Path(__file__).parent.parent / "docs/images/architecture.svg"

# What is handed on, and the room that makes it.
FLOW = [
    ("model, loss,\nbatches", "yours"),
    ("Problem", "problem"),
    ("matrix,\nnorms", "curvature,\nsmoothness"),
    ("eigenvalues,\ntraces", "linalg"),
    ("Estimate", "metrics"),
    ("Record", "recording"),
    ("page", "report"),
]

# The floors of the house. A room imports only from floors above its own.
FLOORS = [
    {"messages": "what a user is told: errors, names, results in a line"},
    {
        "estimate": "a number and how good it is",
        "batches": "data in any form",
        "distributed": "several processes",
    },
    {"linalg": "matrices, and no networks", "losses": "a sum and a count"},
    {"problem": "model, loss and data at one point; leaves no trace"},
    {
        "autodiff": "the linearised model; recorded products",
        "checkpoints": "weights from files that run nothing",
    },
    {"trust": "are these derivatives right? may this short cut be taken?"},
    {
        "curvature": "Hessian, Gauss-Newton, Fisher, tangent kernel",
        "smoothness": "the model as a function of its input",
    },
    {
        "lipschitz": "lower estimates and certified bounds",
        "quadratic": "second-order regression models",
    },
    {"adversarial": "attacks and certified radii", "stability": "2/lr and its relatives"},
    {"bounds": "what theorems promise: a value and all that it rests on"},
    {"metrics": "one quantity a file: a Problem in, an Estimate out"},
    {"recording": "folders of runs and studies: rows, arrays and claims; when they are written"},
    {
        "plot": "figures, of records and of results",
        "mirrors": "where else rows are written",
    },
    {"integrations": "Lightning, Trainer, Accelerate"},
    {"lab": "data sets, models, training, and the studies that judge papers"},
    {"report": "pages, from records alone"},
    {"cli": "the commands: list, run, report, measure, doctor"},
]

INK, QUIET, PAPER, ACCENT = "#1d2733", "#5b6775", "#eef2f6", "#cfe0f1"
WIDTH, ROW, GAP = 12.0, 0.62, 0.14


def box(axes: Axes, left: float, bottom: float, width: float, height: float, colour: str) -> None:
    """Draw a rounded box."""
    style = "round,pad=0,rounding_size=0.07"
    axes.add_patch(
        FancyBboxPatch((left, bottom), width, height, boxstyle=style, fc=colour, ec=QUIET, lw=0.8)
    )


def draw_flow(axes: Axes, top: float) -> None:
    """Draw what is handed on, from left to right, with who makes it below."""
    width = (WIDTH - 0.42 * (len(FLOW) - 1)) / len(FLOW)
    for i, (what, room) in enumerate(FLOW):
        left = i * (width + 0.42)
        box(axes, left, top - 0.85, width, 0.85, ACCENT)
        middle = left + width / 2
        axes.text(
            middle, top - 0.425, what, ha="center", va="center", color=INK, size=8, weight="bold"
        )
        axes.text(middle, top - 0.98, room, ha="center", va="top", color=QUIET, size=8.5)
        if i:
            axes.annotate(
                "",
                xy=(left - 0.03, top - 0.425),
                xytext=(left - 0.39, top - 0.425),
                arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.2},
            )


def draw_floors(axes: Axes, top: float) -> None:
    """Draw the floors, one below the other, each as wide as the picture."""
    for floor, rooms in enumerate(FLOORS):
        width = (WIDTH - GAP * (len(rooms) - 1)) / len(rooms)
        bottom = top - (floor + 1) * (ROW + GAP)
        for i, (room, holds) in enumerate(rooms.items()):
            left = i * (width + GAP)
            box(axes, left, bottom, width, ROW, PAPER)
            middle = left + width / 2
            axes.text(
                middle,
                bottom + 0.42,
                room,
                ha="center",
                va="center",
                color=INK,
                size=9.5,
                weight="bold",
            )
            axes.text(middle, bottom + 0.17, holds, ha="center", va="center", color=QUIET, size=8.5)


def main() -> None:
    """Write the picture."""
    mpl.rcParams.update({"svg.hashsalt": "lossgeom", "font.size": 10})
    height = len(FLOORS) * (ROW + GAP)
    figure, axes = plt.subplots(figsize=(WIDTH * 0.82, (height + 3.1) * 0.82))
    axes.text(0, height + 2.5, "Data flows one way", color=INK, size=13, weight="bold")
    draw_flow(axes, height + 2.25)
    axes.text(
        0,
        height + 0.2,
        "A room imports only from the rooms above it",
        color=INK,
        size=13,
        weight="bold",
    )
    draw_floors(axes, height)
    axes.set(xlim=(-0.1, WIDTH + 0.1), ylim=(-0.1, height + 2.9), aspect="equal")
    axes.axis("off")
    figure.savefig(PICTURE, bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
