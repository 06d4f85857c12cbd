"""The top eigenspace of a random two-layer network's output Hessian, over its width.

Wu et al. (arXiv:2010.04261) prove the structure of the top eigenspace of random two-layer networks:
for Gaussian inputs and weights, as the width n goes to infinity, the ratio of the C-th to the
(C - 1)-th eigenvalue of the first layer's E[M] goes to 0, and the space of the first C - 1
eigenvectors becomes the row space of W_2 without the direction of equal outputs, W_2^T {a : a
orthogonal to (1, ..., 1)}. The wording is ours; the proof was not read. The reason: the softmax's
Hessian A has A 1 = 0, and with masks D that are independent coin tosses E[D B D] = B/4 + diag(B)/4,
B = W_2^T E[A] W_2, of which the diagonal part is O(C/n) relative to the outliers.

What follows was fixed on seeds 100 to 102, before any other was run. Seen there, at widths 50, 200
and 800: ratios of .60 to .75, .18 to .36 and .09 to .14, for .59 to .71, .17 to .33 and .07 to .09
with independent masks; overlaps of .971 to .982, .995 to .996 and .9976 to .9978. Of a wide
network, what the overlap lacks of 1 is 2.3 to 3.0 times as much with a quarter of the inputs, and
hardly changes with the width: .9979 at width 2000. So the limit of the overlap is 1 only if the
number of inputs grows, too.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.random_two_layer import claims, run
from lossgeom.lab.studies.random_two_layer.config import PAPER, Config

STUDY = Study(
    name="random_two_layer",
    title="The top eigenspace of random two-layer networks",
    source=claims.WU,
    Config=Config,
    paper=PAPER,
    run=run.run,
    steps=lambda run: len(run.study.widths) + 2,
    claims=claims.claims,
    summary=claims.summary,
)
