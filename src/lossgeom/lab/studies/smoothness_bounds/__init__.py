"""Bounds on error and attacks from how flat a minimum of SGD is, beside what is measured.

Ma and Ying (arXiv:2105.13462) conclude from the stability of a minimum for SGD that the model is
smooth in its input near the examples, and from that, that it generalises and withstands attacks.
Their bounds depend on the learning rate and the batch size. What the theorems say exactly could not
be found; the bounds here are derived in their way, for a sample's Voronoi cells: with the masses of
the cells or, by the moment of gradients that flatness controls, for cells of any masses.

Networks learn a function on a curve of which all is known, so that every number in the bounds is
certified. SGD starts from sharp networks, with each learning rate and batch size, and ends where
it interpolates. There, errors and attacks on new inputs are held to their bounds, and the trace of
the Hessian to what the settings of SGD allow. Then the number of examples grows, and paper B's
bound is compared with theorem 6.1 of MacDonald et al. (arXiv:2305.14683), which does without cells.

What follows was fixed on seeds 100 to 103, before seeds 10, 11, ... were run, which are those of
the study. Seen on these:

- With batches of one, the trace is 0.47 to 0.92 of what the settings allow at one learning rate or
  another. It falls by a half to four fifths from the smallest learning rate to the largest.
- Errors are below 0.15 of their bounds, and attacks 0.3 to 0.7 of theirs. Attacks hardly differ
  between runs, since the target has to be as steep as it is; their bound falls in three of four.
- Theorem 6.1 falls with a power of the number of examples between -1.3 and -1.7, since the local
  variation in it falls, too; paper B's bound with one of -0.1 to -0.8 for cells of any masses. With
  the masses of the cells it falls with -0.5 to -1.3, and is the smallest of the three throughout.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.smoothness_bounds import claims, run
from lossgeom.lab.studies.smoothness_bounds.config import PAPER, Config

STUDY = Study(
    name="smoothness_bounds",
    title="Flatness, and what it promises of error and attacks",
    source=f"{claims.PAPER_B}; {claims.PAPER_A}",
    Config=Config,
    paper=PAPER,
    run=run.run,
    steps=lambda planned: len(run.stages(planned.study)),
    claims=claims.claims,
    summary=claims.summary,
)
