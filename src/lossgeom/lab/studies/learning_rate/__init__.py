"""Constant learning rates, and what they do to sharpness, the Jacobian norm and the gap.

MacDonald, Valmadre and Lucey (arXiv:2305.14683, figure 3) train ResNet18 on CIFAR-10 with SGD at
constant learning rates, with a line for each batch size: a larger learning rate gives a smaller
sharpness, a smaller input-output Jacobian and a smaller generalisation gap.

It is tried where every run has long fitted its examples when it ends: with batches so small that a
hundred epochs are enough at the smallest learning rate, too. The configuration was chosen on seeds
100 to 102, and all that follows was fixed on them, before seeds 10, 11, ... were run, which are
those of the study. Seen there:

- Sharpness, Jacobian norm and gap fall with the learning rate at batch sizes 25 and 50, with a rank
  correlation of -0.9 or -1 each. With batches of 125 or more, a hundred epochs at a learning rate
  of 0.03 are too few: the training loss is 4 to 10 times that at 0.1, and the gap smaller.
- So both go with the gap: the rank correlation is 0.99 for either, and that of the Jacobian norm is
  not larger than that of sharpness. That is in the paper's figure, too, whose point about sharpness
  are weight decay and regularisers.
- At a learning rate of 0.3, runs with batches of 20 or fewer lose all units and learn nothing.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies._sweep import GLOSSARY, ROWS, scatter, steps, train_and_measure
from lossgeom.lab.studies.learning_rate import claims
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
    run=train_and_measure,
    steps=steps,
    claims=claims.claims,
    summary=claims.summary,
    glossary=GLOSSARY,
    sweep=Sweep((Strengths("lr", "learning rate", log=True),), ROWS, lines="batch_size"),
    scatter=scatter(colour="lr", size="batch_size"),
)
