r"""The gap, where one of Jacobian norm and sharpness is lowered and the other held.

MacDonald, Valmadre and Lucey (arXiv:2305.14683) find that over trained networks the gap between
test and training loss goes with the norm of the input-output Jacobian, and less with sharpness.
Which of them does it, no correlation says, for what lowers one lowers the other, too; their
reviewers asked for interventions. Here a free run records the curves of both. Then a network is
trained with penalties that hold both on their curves, which is the control, or hold one while the
other is drawn to a multiple of its curve, or move one and leave the other alone:

.. math:: L(\theta) + s \log^2 \frac{q_J(\theta)}{c_t \phi_t}
    + s \log^2 \frac{q_\lambda(\theta)}{c'_t \phi'_t}

with the mean over examples of the squared Frobenius norm of the Jacobian, from 4 random signs of
the outputs, and the curvature along a vector that takes one step of the power method in every step;
see :func:`lossgeom.lab.regularizers.hold`. Factors come in over the first half of training. What a
run ends with is the mean of its measurements in the last fifth, for sharpness oscillates near the
edge of stability, at 38.

A run takes the curves from the free one of its seed where that is over. Else it trains that first
and keeps its record inside its own, with the same numbers, so that runs do not depend on each
other. A run in which a held quantity is more than a tenth off its curve, or a moved one more than a
quarter off its target, or that diverges, is left out of the statements on the gap. The statements
on targets are about all of them.

All that follows was fixed on seeds 100 to 103, before seeds 10, 11, ... were run, which are those
of the study. Seen there:

- What is held is within 5 % of its curve. What is moved to 0.7 of it gets to within 6 % of its
  target, and what is moved to 0.4 of it to within 20 %. Where the Jacobian norm moves alone,
  sharpness is 14 to 30 % below its curve; where sharpness does, the squared norm is 16 to 18 %.
- A squared Jacobian norm of 0.4 times the free one takes 20 to 24 % of the gap away, one of 0.7
  times it 9 or 10 %. A sharpness of 0.4 times the free one takes -1 to 2 % away, one of 0.7 times
  it 0 or 1 %. The free run has the gap of the control, up to 1.4 %.
- A penalty on sharpness alone takes 3 to 8 % away: 0.6 to 1.2 times what it does to the Jacobian
  norm predicts, and 0.14 to 0.3 times what it does to sharpness would, were that the cause.
- The lower Jacobian norm takes 1 to 17 % of the test error away.

On the six seeds of the study a squared norm of 0.4 times the free one takes 15 to 24 % away, one
seed less than the 15 % that were fixed, and in one of them the test error is higher: these two
statements are left open, and all others are shown.

With ``--label-noise 0.4`` the same is asked of labels of which a part is drawn at random, with the
same thresholds, which were not chosen for it. Only labels to train on are: the difference of the
two losses is then no generalisation gap, since they are of different tasks.
"""

from lossgeom.lab.studies._solution import NOISY
from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.jacobian_intervention import claims, run
from lossgeom.lab.studies.jacobian_intervention.config import ARMS, FOLDER, PAPER, Config
from lossgeom.recording.metric_figures import (
    Outcome,
    Pair,
    Panel,
    Quantity,
    Scatter,
    Strengths,
    Sweep,
    Trajectories,
)

JACOBIAN, SHARPNESS = (run.MEAN[name] for name in run.HELD)
AVERAGED = "Means over the last fifth of training."

STUDY = Study(
    name="jacobian_intervention",
    title="What lowers the gap: a smaller Jacobian norm, or less sharpness",
    source=claims.OURS,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"arm": tuple(ARMS)},  # noqa: ARG005
    folder=FOLDER,
    run=run.run,
    steps=lambda run: run.study.steps,
    claims=claims.claims,
    summary=claims.summary,
    glossary="The gap is the loss on the examples to test on, less that on those to train on. "
    + NOISY,
    figure=Trajectories(
        colour="arm",
        panels=(
            Panel(run.TEST_LOSS.name, "test loss"),
            Panel(run.JACOBIAN.name, "squared\nJacobian norm"),
            Panel(run.SHARPNESS.name, "sharpness", threshold="2 (1 + momentum)/lr"),
        ),
    ),
    sweep=Sweep(
        columns=(Strengths("arm", "what is held, and what is moved"),),
        rows=(
            Outcome(run.GAP, "gap"),
            Outcome(JACOBIAN, "squared\nJacobian norm"),
            Outcome(SHARPNESS, "sharpness"),
        ),
        caption=AVERAGED,
    ),
    scatter=Scatter(
        colour="arm",
        caption=AVERAGED,
        panels=(
            Pair(Quantity(JACOBIAN, "squared Jacobian norm"), Quantity(run.GAP, "gap")),
            Pair(Quantity(SHARPNESS, "sharpness"), Quantity(run.GAP, "gap")),
        ),
    ),
)
