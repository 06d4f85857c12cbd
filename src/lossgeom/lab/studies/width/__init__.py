"""Whether wide networks sharpen less, and that models which are linear in their parameters do not.

MacDonald et al. (arXiv:2305.14683, section 5) say why wide networks and kernel machines sharpen
little though their Jacobian norm may grow: the Jacobian of the first layer is in no layer's part of
the Gauss-Newton matrix (equation 4), and nothing else has to grow. They have no experiment for it,
and nobody has tested the explanation.

Here networks of three widths are trained on squared errors, far below the edge of stability, as
torch draws them and in NTK parametrisation, in which they have a limit that is a kernel machine. To
compare, two kinds of models are linear in their parameters: networks that are linearised at their
start, which are machines of the NTK, and random features, of which the last layer alone is trained.
Their Gauss-Newton matrix is the Hessian and never changes, so that they are an exact case. What
keeps the layers' parts from growing as the square of the Jacobian norm, from start to end, is split
as in the study ``input_scaling``; a mediator is the reason if it is more than half of that.

All that follows was fixed on seeds 100 to 102, before seeds 10, 11, ... were run, which are those
of the study. The statements on width are the paper's: no setting was looked for in which they hold.
Seen there:

- As torch draws networks, sharpness at the end is 2.4, 2.5 and 2.6 times that at the start at
  widths of 16, 64 and 256: wider networks sharpen more in two of three seeds.
- In NTK parametrisation none sharpens: outputs are large at the start, and the Jacobian norm falls.
  Sharpness falls at once, with the residual part of the Hessian, the more the narrower the network
  is. Since a quarter of the run it drifts by 40, 5 and 1 %.
- Tail Jacobians that grow less than the whole are 1.1 of what keeps sharpness from growing, Df of
  the layers -.1, as it grows. At a width of 16 it is no different.
"""

from lossgeom.lab.studies._growth import GLOSSARY, PANELS, steps
from lossgeom.lab.studies._solution import JACOBIAN_MAX, SHARPNESS
from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.width import claims, run
from lossgeom.lab.studies.width.config import KINDS, PAPER, Config
from lossgeom.recording.metric_figures import Outcome, Strengths, Sweep, Trajectories

STUDY = Study(
    name="width",
    title="Progressive sharpening of wide networks and of linear models",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"kind": KINDS, "width": config.width},
    folder="{kind}-width{width}-seed{seed}",
    run=run.run,
    steps=steps,
    claims=claims.claims,
    summary=claims.summary,
    glossary=GLOSSARY,
    figure=Trajectories(columns="kind", colour="width", panels=PANELS),
    sweep=Sweep(
        columns=(Strengths("width", "width", log=True),),
        lines="kind",
        rows=(
            Outcome(SHARPNESS.name, "sharpness\nat the end", log=True),
            Outcome(JACOBIAN_MAX.name, "largest\nJacobian norm", log=True),
            Outcome("train_loss", "loss", log=True),
        ),
    ),
)
