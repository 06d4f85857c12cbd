"""Top eigenspaces of the first layer's Hessian in independently trained networks.

Wu et al. (arXiv:2010.04261) find that the top eigenspaces of layer Hessians of independently
trained models overlap far more than random spaces, and explain it by their decoupling conjecture.
Pixels from 0 to 1 have a large mean, so that E[x x^T] is nearly rank one along E[x], and the top
eigenvectors are u_i (x) E[x] with the eigenvectors u_i of E[M]. With all m of them they span R^m
(x) E[x], whatever the model: the overlap rises to a peak at k = m, or at the number of live
directions before that, whose eigenvalue is above what the second direction of the inputs has. The
peak at m needs narrow networks without dead units, of leaky ReLUs; a usual one has at most C - 1
live directions, for C classes, and none of its peaks is at m.

What follows was fixed on seeds 100 to 102, before any other was run. Seen there, with 4 models:
with m = 6 outputs the overlap is .73 to .85 at k = 5, which is 1.4 to 1.5 times that at k = 12 and
56 to 65 times that of random spaces, and there are 5 to 5.5 live directions; with m = 8 it is .68
to .84 at k = 6 or 7, with 6 to 7 of them. A network with 20 ReLUs has .32 to .37 at k = 8, with
8.25 to 8.5, and .22 to .25 at k = 20. With centred inputs there is no peak: the overlap rises up to
k = 2 m, where it is .39 to .45. That is still 13 times that of random spaces.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.eigenspace_overlap import claims, run
from lossgeom.lab.studies.eigenspace_overlap.config import PAPER, Config

STUDY = Study(
    name="eigenspace_overlap",
    title="Top eigenspaces of independently trained networks",
    source=claims.WU,
    Config=Config,
    paper=PAPER,
    run=run.run,
    steps=lambda run: len(run.study.narrow) + 2,
    claims=claims.claims,
    summary=claims.summary,
)
