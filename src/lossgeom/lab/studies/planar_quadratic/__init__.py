"""The planar second-order regression model: the phase plane, and where descent ends.

Agarwala, Pedregosa and Pennington (arXiv:2210.04860) find that a model with quadratic outputs
sharpens until it reaches the edge of stability, and that in two dimensions curvature then ends at a
value slightly below it. Their abstract says that much: the limit 2 - eps (2 - E) / 4, which is
2 - eps / 2 in the symmetric case E = 0, is derived in :mod:`lossgeom.quadratic.edge`. All is in
rescaled units: the learning rate is 1, and the edge of stability at T(0) = 2.

Starts are drawn around nominal ones, by a seed. What follows was fixed on seeds 100 and 101, before
any other was run; that statements about all starts are judged by the worst of all, and no longer by
its mean over seeds, before seeds 10, 11, ... were run, which are those of the study. Seen at first:
the largest relative difference from the predicted distance is 0.017 for E = 0 and eps <= 0.01, and
0.032 for E from -4 to 1.5 at eps = 0.01; E moves by 5e-14 in 10,000 steps. Orders in eps are fitted
where runs forget their starts, at eps <= 0.02.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.planar_quadratic import claims, run
from lossgeom.lab.studies.planar_quadratic.config import PAPER, Config

STUDY = Study(
    name="planar_quadratic",
    title="Second-order regression in the plane: where descent ends at the edge of stability",
    source=claims.ABSTRACT,
    Config=Config,
    paper=PAPER,
    run=run.run,
    steps=lambda _: len(run.STAGES),
    claims=claims.claims,
    summary=claims.summary,
)
