"""Weight decay, and why it makes a sharper solution with a smaller Jacobian.

DOCSTORY
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies._sweep import ROWS, scatter
from lossgeom.lab.studies.weight_decay import claims, run
from lossgeom.lab.studies.weight_decay.config import PAPER, Config
from lossgeom.recording.metric_figures import Outcome, Strengths, Sweep

STUDY = Study(
    name="weight_decay",
    title="Weight decay, sharpness, Jacobians and generalisation",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"lr": config.lr, "weight_decay": config.weight_decay},
    folder="lr{lr}-decay{weight_decay}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.recipe(run.place).steps(run.study.network.examples),
    claims=claims.claims,
    summary=claims.summary,
    sweep=Sweep(
        (Strengths("weight_decay", "weight decay", log=True),),
        (Outcome(claims.TRAIN + claims.LOSS, "training loss", log=True), *ROWS),
        lines="lr",
    ),
    scatter=scatter(colour="weight_decay", size="lr"),
)
