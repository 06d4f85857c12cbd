"""The outliers of the Hessian: how many they are, and whether they are the Gauss-Newton matrix's.

The ansatz of MacDonald, Valmadre and Lucey (arXiv:2305.14683, section 3) argues from the Jacobian
to the sharpness by way of the Gauss-Newton matrix G. Its premise is that the outliers of the
Hessian H = G + residual are those of G, throughout training. Papyan (arXiv:1811.07062) and Sagun et
al. (arXiv:1611.07476) count about as many as there are classes C; G has the more reason for C - 1,
since no loss of softmaxed outputs changes along (1, ..., 1).

Both statements are tried at initialisation, in mid-training and at the end, on real labels and on
the same labels shuffled. Shuffling cannot act on G at initialisation, because labels do not enter
the curvature of cross-entropy in the outputs; there it acts through the residual alone.

All that follows was fixed on seeds 100 to 103, before any other was run; that numbers of outliers
are judged by the share of seeds, and the rest by the median over seeds, before seeds 10, 11, ...
were run, which are those of the study. Seen there:

- At initialisation G has C - 1 outliers, beyond a gap of 16 to 20. H has none with real labels,
  where the residual is as large as G, and C - 1 with shuffled ones, where it is smaller.
- In mid-training, at an accuracy of 0.9, H has C - 1 with real labels and none with shuffled ones.
- At the end H and G agree, but nothing is left of the gap after C - 1, with either labels.
- Where H has C - 1 outliers, they lie beyond a gap of 1.9 to 2.5; where it has not, its largest gap
  is at most 1.5, after the second to fourth eigenvalue at the end. Hence GAP. Without it, a bulk
  would have outliers up to wherever its largest gap happens to be. What stands alone in a smoothed
  density cannot be counted instead: the largest few of any heavy tail do.

The statements are kept as the papers make them, also where these seeds had them fail.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.gauss_newton_outliers import claims, run
from lossgeom.lab.studies.gauss_newton_outliers.config import PAPER, Config
from lossgeom.recording.metric_figures import Panel, Trajectories

STUDY = Study(
    name="gauss_newton_outliers",
    title="The outliers of the Hessian and those of the Gauss-Newton matrix",
    source=f"{claims.MACDONALD}; {claims.PAPYAN}",
    Config=Config,
    paper=PAPER,
    grid=lambda _: {"labels": ("real", "shuffled")},
    folder="{labels}-seed{seed}",
    run=run.run,
    steps=lambda run: run.study.steps,
    claims=claims.claims,
    summary=claims.summary,
    figure=Trajectories(
        colour="labels",
        panels=(
            Panel("loss", "loss", log=True),
            Panel("accuracy", "accuracy"),
            Panel("outliers", "outliers of\nthe Hessian", threshold="C - 1"),
            Panel("overlap", "overlap of\neigenspaces"),
            Panel("difference", "largest relative\ndifference", log=True),
        ),
    ),
)
