"""Batch sizes, at equal epochs and at equal updates, and the local variation of the Jacobian.

DOCSTORY
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies._sweep import ROWS, scatter
from lossgeom.lab.studies.batch_size import claims, run
from lossgeom.lab.studies.batch_size.config import EPOCHS, PAPER, UPDATES, Config
from lossgeom.recording.metric_figures import Strengths, Sweep

STUDY = Study(
    name="batch_size",
    title="Batch sizes, sharpness, Jacobians and generalisation",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {
        "equal": (EPOCHS, UPDATES),
        "lr": config.lr,
        "batch_size": config.batch_size,
    },
    folder="equal-{equal}-lr{lr}-batch{batch_size}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.recipe(run.place).steps(run.study.network.examples),
    claims=claims.claims,
    summary=claims.summary,
    sweep=Sweep(
        tuple(
            Strengths(
                "batch_size", f"batch size, {equal} equal", log=True, where={"equal": (equal,)}
            )
            for equal in (EPOCHS, UPDATES)
        ),
        ROWS,
        lines="lr",
    ),
    scatter=scatter(colour="batch_size", size="lr"),
)
