"""Jacobian norm and sharpness with batch normalisation, and the norm at the edge of stability.

With batch normalisation a model in training is not the model in use. MacDonald, Valmadre and Lucey
(arXiv:2305.14683, appendix A.1) compare the input-output Jacobian in eval mode, with running
statistics, with the Hessian in train mode, with those of the batch. They add (section 5) that the
Jacobian norm need not stop growing where sharpness is held at the edge of stability.

Here networks are trained by full-batch gradient descent with batch normalisation and without, each
at a learning rate at which no run reaches 2 / lr and at one at which runs do, for several label
smoothings. Of runs at the edge, sharpness is also measured in eval mode, in the second half of
training, and the Jacobian norm with the statistics of the batches in place of running ones: that of
train mode, but for what a single example changes of the statistics. Runs that diverge are left out;
those that count as held at the edge have, since sharpness first was 2 / lr, a median within a
quarter of it.

The configuration was chosen on seed 100, and all that follows was fixed on it, and on seed 101 for
the edge, before seeds 10, 11, ... were run, which are those of the study. It is a tanh network, for
with gelu and batch normalisation sharpness did not rise. Seen there:

- Running statistics are those of the initial model at first. In eval mode the Jacobian norm starts
  at 0.05 times that with the statistics of the batches, and gets to within 1 % of it after some
  eighty steps: its rise is in part that of the running statistics. Sharpness in eval mode is then
  1.3 times that in train mode, which is the one that is held at 2 / lr.
- Below the edge, the rank correlation of norm and sharpness along runs is 0.97 without batch
  normalisation and 0.91 with it. Over label smoothings it is 1 and 0.8.
- At the edge, without batch normalisation, the mean softmax Jacobian norm grows by a third in the
  run in which it grows most, and that of logits by a tenth; with batch normalisation neither does.

On the six seeds of the study the rank correlation along runs with batch normalisation is 0.33 to
0.96, 0.7 or more in two of them, and the softmax Jacobian norm grows by 10 to 38 %: these two
statements are left open, and all others are shown. Since then, a run that reaches the edge at its
last measurement has no part in the correlation of the first control, which it had made unknown.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.batch_norm import claims, run
from lossgeom.lab.studies.batch_norm.config import KINDS, PAPER, Config
from lossgeom.recording.metric_figures import Outcome, Panel, Strengths, Sweep, Trajectories

STUDY = Study(
    name="batch_norm",
    title="Jacobian norm and sharpness with batch normalisation, and at the edge of stability",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"kind": tuple(KINDS), "label_smoothing": config.label_smoothing},
    folder="{kind}-smoothing{label_smoothing}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.steps,
    claims=claims.claims,
    summary=claims.summary,
    glossary="Sharpness is the largest eigenvalue of the Hessian of the loss in the parameters; at "
    "the edge of stability it is 2 / lr. The Jacobian norm is the spectral norm of the Jacobian of "
    "the outputs in the inputs, in the mean over examples, and the softmax Jacobian norm that of "
    "their softmax. In train mode, batch normalisation uses the statistics of the batch, and in "
    "eval mode running ones, which it has gathered in training.",
    figure=Trajectories(
        columns="label_smoothing",
        colour="kind",
        panels=(
            Panel(run.LOSS.name, "loss - label entropy", log=True),
            Panel(run.SHARPNESS.name, "sharpness\n(train mode)", log=True, threshold="2/lr"),
            Panel(run.JACOBIAN.name, "mean Jacobian norm\n(eval mode)"),
            Panel(run.SOFTMAX_JACOBIAN.name, "mean softmax\nJacobian norm"),
        ),
    ),
    sweep=Sweep(
        columns=(Strengths("label_smoothing", "label smoothing"),),
        lines="kind",
        rows=(
            Outcome(run.SHARPNESS.name, "largest sharpness", log=True, of="largest"),
            Outcome(run.JACOBIAN.name, "largest mean\nJacobian norm", of="largest"),
        ),
    ),
)
