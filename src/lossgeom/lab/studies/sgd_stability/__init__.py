"""Which minima SGD stays at, and which it ends in.

Ma and Ying (arXiv:2105.13462) call a minimum stable for SGD, with a learning rate and a batch size,
if the second moments of the linearised steps stay bounded; Mulayoff and Michaeli (arXiv:2306.07850)
give the learning rate up to which that is so in closed form. This compares the threshold with the
enumeration of all batches and with populations of SGD where there are few examples; then, at a
minimum at which a network interpolates the digits, with SGD that starts there; then with where SGD
itself ends: at minima whose threshold is just above its own learning rate, which that of full-batch
descent is not.

That second moments grow does not mean that a typical run diverges: rare ones do, and make the mean.
The mean square of plain replicas of SGD therefore falls where theory says that it grows, which is
one of the negative controls. A population whose replicas branch as their squares grow does not.

Andreyev and Beneventano (arXiv:2412.20553) find that batch sharpness is held at 2 / lr. They train
for 150,000 steps; whether it is there after the steps of the quick preset is left to the verdict.

What follows was fixed on seeds 100 to 102, before seeds 10, 11, ... were run, which are those of
the study. Seen on these:

- At 0.9 times their threshold all runs that start 1e-6 off the minimum end as near to it, and at
  1.3 times it they get 0.3 to 0.6 away.
- With batches of 10, thresholds end at 1.01 to 1.12 times the learning rate. With batches of 1 they
  end anywhere from 0.86 to 2.2 times it, and the loss is a hundred times as large; the two batch
  sizes therefore have a claim each.
- Batch sharpness is 0.6 of 2 / lr on average over the runs.
"""

from lossgeom.lab.studies._network import build_with_signs
from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.sgd_stability import claims, run
from lossgeom.lab.studies.sgd_stability.config import PAPER, Config

STUDY = Study(
    name="sgd_stability",
    title="The stability of minima for SGD",
    source=f"{claims.PAPER_B}; {claims.EXACT}",
    Config=Config,
    paper=PAPER,
    run=run.run,
    data=build_with_signs,
    steps=lambda planned: len(run.stages(planned.study)),
    claims=claims.claims,
    summary=claims.summary,
)
