"""Random second-order regression models: sharpening, the edge of stability, and divergence.

Agarwala, Pedregosa and Pennington (arXiv:2210.04860) find that sharpening and the edge of stability
are generic: models with random residuals z, Jacobians J and second derivatives Q have them, and no
structure of neural networks is needed. That curvature accelerates at a rate set by the variance of
z, and the phase diagram, are derived here after the paper's abstract, in :mod:`lossgeom.quadratic`.
All is in rescaled units: the learning rate is 1, curvature is the largest eigenvalue of J J^T, and
the edge of stability is at 2.

What follows was fixed on seeds 100 and 101, before any other was run. Shares had been expected in a
range closed at 1, and Student's interval went beyond: ranges of shares are open upwards, shares of
runs have binomial intervals, and whether curvature rises is one of them, since that was fixed
before seeds 10, 11, ... were run, which are those of the study. Seen at first with D = 20 and
P = 40: at a = 0.5 and lambda_0 = 1.5, 0.76 of the runs end in the band from 1.9 to 2.001, and those
that passed the edge at 1.975; the acceleration is 1.00 times its prediction, give or take 0.02 for
a seed of 8000 models.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.random_quadratic import claims, run
from lossgeom.lab.studies.random_quadratic.config import PAPER, Config

STUDY = Study(
    name="random_quadratic",
    title="Random second-order regression: sharpening, the edge of stability, divergence",
    source=claims.ABSTRACT,
    Config=Config,
    paper=PAPER,
    run=run.run,
    steps=lambda _: len(run.STAGES),
    claims=claims.claims,
    summary=claims.summary,
)
