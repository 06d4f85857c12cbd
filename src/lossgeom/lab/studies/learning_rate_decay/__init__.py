"""A large learning rate that decays, a small constant one, and what two papers' bounds see of it.

MacDonald, Valmadre and Lucey (arXiv:2305.14683, appendix D) hold that a large initial learning rate
that then decays generalises better than a small one because it keeps the input-output Jacobian
small; Lee et al. said so of the Jacobian of the outputs in the parameters, and called it implicit
Jacobian regularisation. Here networks start at the same point, see the same batches and take as
many steps: at a small and at a large constant rate, at the large one until half-time and then at
the small one, and along a cosine from the large to the small one.

What is comparable is the small constant rate and those that decay, since these end at the same
rate with the same batch size. What Ma and Ying (arXiv:2105.13462) say of the gradients follows from
these two numbers and so is the same for all three, while theorem 6.1 of paper A depends on the
largest Jacobian norm: all else in it, but for the local variation of the Jacobian, which is not
measured, belongs to the data. Of gradients in the input they say more with the norm of the first
layer, which is measured, and so has seen the decay; a note has this. It is all said of the squared
error, without weight decay, at a point that is fitted and that SGD is stable at, which is not
checked; our batches are those of reshuffled epochs, and the bound is for independent ones.

What is not comparable is how far training gets in as many steps. With a cross-entropy that is
fitted, the small rate is behind, and its logits are still small. With weight decay, large rates
shrink them again, the more the larger rate times decay. Hence the same runs without weight decay,
of which the papers' statement is claimed, too.

All that follows was fixed on seed 100, before seeds 10, 11, ... were run, which are those of the
study. Seen there:

- With weight decay, the gap is 0.145 at the small rate, 0.111 at the large one and 0.115 where it
  decays; the Jacobian norms are 18.9, 15.0 and 16.1. At the large rate it is 23 after a tenth of
  the steps, and falls; at the small one it rises to the end.
- Without, it is the other way round: 0.158, 0.189 and 0.180, and 21, 33 and 32.
- With the squared error, training losses are 0.022, 0.001 and 0.003, and both the Jacobian norm
  (1.04, 1.27, 1.23) and the gap (0.033, 0.036, 0.036) are smaller at the small rate, which fits
  less, and has the larger test loss.
- So the smaller Jacobian norm has the smaller gap in all pairs.
- The trace is a tenth of what the final rate promises, g_x a sixteenth.
"""

from lossgeom.lab.studies._solution import GAP, JACOBIAN, JACOBIAN_MAX, LOSS, SHARPNESS, TEST, TRAIN
from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies._sweep import GLOSSARY
from lossgeom.lab.studies.learning_rate_decay import claims, run
from lossgeom.lab.studies.learning_rate_decay.config import (
    CONSTANT,
    DECAYED,
    OBJECTIVES,
    PAPER,
    Config,
)
from lossgeom.recording.metric_figures import Outcome, Panel, Strengths, Sweep, Trajectories

STUDY = Study(
    name="learning_rate_decay",
    title="Decay of the learning rate and the Jacobian norm",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=lambda _: {"objective": OBJECTIVES, "schedule": (*CONSTANT, *DECAYED)},
    folder="{objective}-{schedule}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.steps,
    claims=claims.claims,
    summary=claims.summary,
    glossary=GLOSSARY,
    figure=Trajectories(
        columns="objective",
        colour="schedule",
        panels=(
            Panel(TRAIN + LOSS, "training loss", log=True),
            Panel(TEST + LOSS, "test loss", log=True),
            Panel(JACOBIAN.name, "Jacobian norm\nin the input", log=True),
            Panel(run.PARAMETER_JACOBIAN.name, "Jacobian norm\nin the parameters", log=True),
        ),
    ),
    sweep=Sweep(
        columns=(Strengths("schedule", "learning rate"),),
        rows=(
            Outcome(SHARPNESS.name, "sharpness", log=True),
            Outcome(JACOBIAN_MAX.name, "largest\nJacobian norm", log=True),
            Outcome(GAP, "gap", log=True),
        ),
        lines="objective",
        caption="Losses have units of their own: compare points of one colour.",
    ),
)
