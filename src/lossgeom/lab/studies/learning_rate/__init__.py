"""Constant learning rates, and what they do to sharpness, the Jacobian norm and the gap.

MacDonald, Valmadre and Lucey (arXiv:2305.14683, figure 3) train ResNet18 on CIFAR-10 with SGD at
constant learning rates, with a line for each batch size: a larger learning rate gives a smaller
sharpness, a smaller input-output Jacobian and a smaller generalisation gap. DOCSTORY
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies._sweep import ROWS, scatter
from lossgeom.lab.studies.learning_rate import claims, run
from lossgeom.lab.studies.learning_rate.config import PAPER, Config
from lossgeom.recording.metric_figures import Strengths, Sweep

STUDY = Study(
    name="learning_rate",
    title="Learning rates, sharpness, Jacobians and generalisation",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"batch_size": config.batch_size, "lr": config.lr},
    folder="batch{batch_size}-lr{lr}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.recipe(run.place).steps(run.study.network.examples),
    claims=claims.claims,
    summary=claims.summary,
    sweep=Sweep((Strengths("lr", "learning rate", log=True),), ROWS, lines="batch_size"),
    scatter=scatter(colour="lr", size="batch_size"),
)
