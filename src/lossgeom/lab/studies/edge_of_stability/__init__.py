"""Optimisers at the edge of stability, each at a threshold of its own.

Cohen et al. (arXiv:2103.00065) find that full-batch gradient descent sharpens until the largest
eigenvalue of the Hessian is at 2 / lr, where steps stop being stable, and stays there; with
momentum at the threshold of momentum, and adaptive optimisers with the eigenvalue of the
preconditioned Hessian (arXiv:2207.14484). Lee and Lee (2026) call the curvature that a step meets,
in parts of what it could bear, its realised edge, which is 1 where the loss no longer falls.

Five optimisers are trained on digits with the squared error, and compared with the threshold that
is read from each while it trains. Gradient descent with a small learning rate, which does not get
to the edge, is the negative control. Muon and sign descent are no linear filters of the gradient
and have no threshold: their realised edge and the curvature along their updates are shown, and
nothing is claimed of them.

The configuration was chosen on seeds 0 and 100 to 103, and what follows was fixed on them, before
seeds 10, 11, ... were run, which are those of the study. Seen on the pilot seeds:

- Nesterov momentum of .9 at lr = .1 diverges for two of four seeds, after sharpness has gone to 1.4
  times the threshold. With a momentum of .7 at lr = .12 all stay.
- Heavy ball converges at the edge: its realised edge is .04 and .35 on two seeds, where that of
  Nesterov momentum is .95 and 1.00. Nothing is claimed of either.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.edge_of_stability import claims, run
from lossgeom.lab.studies.edge_of_stability.config import PAPER, Config
from lossgeom.lab.studies.edge_of_stability.optimizers import OPTIMIZERS
from lossgeom.recording.metric_figures import Panel, Trajectories

STUDY = Study(
    name="edge_of_stability",
    title="Optimisers at the edge of stability, each at its own threshold",
    source=f"{claims.COHEN}; {claims.ADAPTIVE}",
    Config=Config,
    paper=PAPER,
    grid=lambda _: {"optimizer": tuple(OPTIMIZERS)},
    folder="{optimizer}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.steps,
    claims=claims.claims,
    summary=claims.summary,
    figure=Trajectories(
        colour="optimizer",
        panels=(
            Panel(run.EDGE_RATIO.name, "largest eigenvalue\nby threshold", threshold="edge"),
            Panel(run.REALISED_EDGE.name, "realised edge", threshold="edge"),
            Panel(run.UPDATE_CURVATURE.name, "curvature by slope\nof the update", threshold="edge"),
            Panel(run.LOSS.name, "loss", log=True),
        ),
    ),
)
