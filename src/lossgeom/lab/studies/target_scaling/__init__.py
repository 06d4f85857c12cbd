"""Targets that are further apart make a network steeper, and sharpen it more.

By theorem 5.1 of MacDonald et al. (arXiv:2305.14683) a network that fits its targets has a Jacobian
of at least their distance over that of the inputs, less its local variation. Label smoothing, which
they use, brings targets closer together. Here one-hot targets are multiplied with factors instead,
on both sides of those without any, and networks are trained on squared errors, far below the edge
of stability.

Some of it has to be so. Of a network without biases and with L layers of relu units, the one with
all weights times c^(1/L) fits targets times c; its Jacobian norm is c times as large, and its
Gauss-Newton matrix c^(2 - 2/L) times. What is trained starts from the same weights whatever the
targets are, so that neither has to happen: for small targets the weights hardly move, and then
sharpness does not change at all. Of a linear model the Jacobian norm is affine in the scale once it
has converged, and sharpness the same number for all, which is a control. The other one moves all
targets by a vector, which makes them as long, but no further apart. The loss has the same scale as
its targets squared, and so has its Hessian's residual part: sharpness is that of the whole Hessian,
and how much a run sharpens is the largest over the first.

All that follows was fixed on seeds 100 to 102, before seeds 10, 11, ... were run, which are those
of the study. Seen there, from the scale 1/4 to 4:

- The Jacobian norm at the end is larger with a power of the scale of 1.18 to 1.25; networks sharpen
  1.1 times at the smallest and about 7 times at the largest, which is a power of .60 to .69.
- With shifted targets the Jacobian norm falls, and sharpness starts at 5 for the largest shift, by
  the residual part, and is below 2 as soon as the shift is fitted.
- The Jacobian norm of the linear model is larger with a power of .72.
"""

from lossgeom.lab.studies._growth import PANELS, steps
from lossgeom.lab.studies._solution import JACOBIAN_MAX, SHARPNESS
from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.target_scaling import claims, run
from lossgeom.lab.studies.target_scaling.config import KINDS, PAPER, Config
from lossgeom.recording.metric_figures import Outcome, Strengths, Sweep, Trajectories

STUDY = Study(
    name="target_scaling",
    title="Targets further apart: a larger Jacobian and more sharpening",
    source=f"{claims.PAPER_A}, theorem 5.1 and section 5",
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"kind": KINDS, "target_scale": config.target_scales},
    folder="{kind}-targets{target_scale}-seed{seed}",
    run=run.run,
    steps=steps,
    claims=claims.claims,
    summary=claims.summary,
    glossary="Sharpness is the largest eigenvalue of the Hessian of the loss in the parameters. "
    "How much a network sharpens is its largest value along a run over its first. The Jacobian "
    "norm is the spectral norm of the Jacobian of the outputs in the inputs, the largest over "
    "examples. A power p of the scale is p times the change of its logarithm. Scaled targets are "
    "multiplied, shifted ones all moved by one vector; the linear model has no hidden layers.",
    figure=Trajectories(columns="kind", colour="target_scale", panels=PANELS),
    sweep=Sweep(
        columns=(Strengths("target_scale", "scale or length of the targets", log=True),),
        lines="kind",
        rows=(
            Outcome(JACOBIAN_MAX.name, "largest\nJacobian norm", log=True),
            Outcome(SHARPNESS.name, "largest\nsharpness", log=True, of="largest"),
        ),
    ),
)
