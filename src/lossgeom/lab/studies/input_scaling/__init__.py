"""Inputs that are closer together, and which mediator then breaks the ansatz.

MacDonald et al. (arXiv:2305.14683) expect a larger Jacobian norm to go with a larger sharpness, by
equation 4: the Gauss-Newton matrix is a sum over layers, and that of each holds the Jacobian of the
layers after it. Inputs that are scaled closer together are an exception (appendix C.2): a network
has to be steeper to tell them apart, and is, yet no sharper. Their explanation, which nobody has
tested, is that the derivative Df_1 of the first layer in its parameters, which is as large as the
inputs, shrinks.

Here networks are trained on squared errors with inputs of three scales, far below the edge of
stability. What keeps the layers' parts of the matrix from growing as the square of the Jacobian
norm is split, exactly, into the tail Jacobians, which lack the layers before them, Df of the
layers, C and their alignment: see ``shortfall`` in ``lab/studies/_growth.py``. A mediator breaks
the ansatz if it is more than half of that.

Some of it has to be so. Inputs times s and weights of the first layer divided by s are the same
network, whose Jacobian norm is 1 / s times as large; only because all networks start with weights
of one size, and a learning rate that does not know of s, need trained ones differ in more than
units. So the first control measures in units of the inputs before they were scaled. And a layer
with biases has a Df of at least the square root of the number of examples, so that Df_1 hardly
shrinks at scales below 1.

All that follows was fixed on seeds 100 to 103, before seeds 10, 11, ... were run, which are those
of the study. Seen there:

- The Jacobian norm grows more with the power .69 to .86 of 1 / scale, and the largest sharpness
  goes with a power of the Jacobian norm of .07 to .21, where the ansatz has 2.
- Df_1 is .62 to .87 of what keeps the first layer's part from growing, but only .08 to .11 of it
  in all layers, as the first layer's part is the smallest. There the tail Jacobians have .8: the
  steepness comes in with the first layers, and the last layer's part does not see it.
"""

from lossgeom.lab.studies._growth import GLOSSARY, PANELS, steps
from lossgeom.lab.studies._solution import JACOBIAN_MAX, SHARPNESS
from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.input_scaling import claims, run
from lossgeom.lab.studies.input_scaling.config import PAPER, Config
from lossgeom.recording.metric_figures import Outcome, Strengths, Sweep, Trajectories

STUDY = Study(
    name="input_scaling",
    title="Inputs closer together: a larger Jacobian without more sharpness",
    source=claims.PAPER_A,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"input_scale": config.input_scales},
    folder="inputs{input_scale}-seed{seed}",
    run=run.run,
    steps=steps,
    claims=claims.claims,
    summary=claims.summary,
    glossary=GLOSSARY,
    figure=Trajectories(colour="input_scale", panels=PANELS),
    sweep=Sweep(
        columns=(Strengths("input_scale", "scale of the inputs", log=True),),
        rows=(
            Outcome(JACOBIAN_MAX.name, "largest\nJacobian norm", log=True),
            Outcome(SHARPNESS.name, "largest\nsharpness", of="largest"),
            Outcome("layer_jacobian_1", "norm of Df_1", log=True),
            Outcome("tail_jacobian_1", "norm of the tail\nJacobian of layer 1", log=True),
        ),
        caption="Because of the biases, the norm of Df_1 is no less than the square root of the "
        "number of examples.",
    ),
)
