"""Progressive sharpening, the edge of stability, and what label smoothing does to them.

MacDonald, Valmadre and Lucey (arXiv:2305.14683, figure 1) train with full-batch gradient descent
and find that more label smoothing lets the input-output Jacobian grow less, and with it the
sharpness. Cohen et al. (2021) find that sharpness rises until it reaches 2 / lr and is held there.
Both are tried here on real data: every smoothing is trained at a learning rate at which the edge
is reached, and at a small one at which it is not, for the same training time lr * step.

The configuration was chosen on seeds 100 to 102, and what follows was fixed on them, before seeds
10, 11, ... were run, which are those of the study. It had been a relu network at lr = 0.5, whose
sharpness went to twice 2 / lr and then fell far below it. Seen on the pilot seeds:

- Without smoothing the digits are soon fitted, the Hessian of a saturated cross-entropy vanishes,
  and sharpness falls again, to less than a tenth of 2 / lr. Hence smoothings start at 0.1.
- Sharpness rises from 0.07 times 2 / lr, is 1.4 to 3 times that for ten to sixty steps, and 0.77 to
  1.2 times from then on. Within a quarter of it are 0.80 to 0.92 of the measurements since it first
  was there, of those at the small learning rate 0.05 to 0.27.
- At the small learning rate, sharpness gets about as large with smoothings of 0.1 and 0.3, and less
  with more: the rank correlation is -0.9 or -1.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.progressive_sharpening import claims, run
from lossgeom.lab.studies.progressive_sharpening.config import PAPER, Config
from lossgeom.recording.metric_figures import Panel, Trajectories

STUDY = Study(
    name="progressive_sharpening",
    title="Progressive sharpening and the edge of stability under label smoothing",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {
        "lr": (config.lr, config.small_lr),
        "label_smoothing": config.label_smoothing,
    },
    folder="lr{lr}-smoothing{label_smoothing}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.rhythm(run.place["lr"])[0],
    claims=claims.claims,
    summary=claims.summary,
    figure=Trajectories(
        columns="lr",
        colour="label_smoothing",
        panels=(
            Panel(run.LOSS.name, "loss - label entropy", log=True),
            Panel(run.SHARPNESS.name, "sharpness", log=True, threshold="2/lr"),
            Panel(run.JACOBIAN.name, "largest softmax\nJacobian norm", log=True),
        ),
    ),
)
