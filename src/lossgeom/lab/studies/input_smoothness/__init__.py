"""Flat minima of SGD and the smoothness of the model in its input.

Ma and Ying (arXiv:2105.13462) call a minimum stable for SGD if the noise of the batches does not
drive it away. That bounds the gradients in the parameters on the data, the more the larger the
learning rate and the smaller the batch. Parameters of the first layer multiply with the input, so
gradients in the input are bounded, too. In their scatter plot, trained networks lie on one
increasing cloud of g_W and g_x, the seminorms in the parameters and in the input, and larger
learning rates and smaller batches are to the lower left.

It is tried here on a grid of learning rates and batch sizes. Each run ends where it interpolates:
at the first measurement with a training loss below ``interpolation``, the same for all, since the
seminorms grow while the loss falls. A run that does not get there, or diverges, is left out of all
statements but the inequality, which holds everywhere, and the report lists it.

All that follows was fixed on seeds 100 to 103, before any other was run; that the inequality is
judged by the worst of all seeds, and the rest by the share of seeds, before seeds 10, 11, ... were
run, which are those of the study. Seen there:

- Spearman's correlation of g_W and g_x is .99 for k = 1, .94 to .97 for k = 2 and .89 for k = 3;
  that of g_x and the test loss is .77 to .98.
- For k = 2, points leave the cloud at a learning rate of .8. The inequality ties g_x to gradients
  in the weights of the first layer, and there those are a small part of g_W: of the sum of fourth
  powers they make .1 to .3 up to .4, but .01 to .06 at .8 (seed 100).
- At .8, three of four runs with the smallest batch diverge, and the fourth loses all of its units.
  All others interpolate, after 500 to 5,000 steps. At .8, the batch size matters less: the rank
  correlation with it is .41, at smaller learning rates .94 or more.
- The full batch makes no noise. There the learning rate matters by the edge of stability: up to .2,
  runs end with a sharpness of 6.7 to 7.8; at .4 and .8, with about 2 / lr.
"""

from lossgeom.lab.studies._network import build_with_signs
from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.input_smoothness import claims, run
from lossgeom.lab.studies.input_smoothness.config import PAPER, Config
from lossgeom.lab.studies.input_smoothness.measures import G_W, G_X, LOSS, ORDERS, TEST_LOSS
from lossgeom.recording.metric_figures import (
    Pair,
    Panel,
    Quantity,
    Scatter,
    Trajectories,
)

IN_PARAMETERS = {k: Quantity(G_W[k].name, f"g_W, in the parameters, k = {k}") for k in ORDERS}
IN_INPUT = {k: Quantity(G_X[k].name, f"g_x, in the input, k = {k}") for k in ORDERS}

STUDY = Study(
    name="input_smoothness",
    title="Flat minima of SGD and smoothness in the input",
    source=claims.PAPER_B,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"lr": config.lr, "batch_size": config.batch_size},
    folder="lr{lr}-batch{batch_size}-seed{seed}",
    run=run.run,
    data=build_with_signs,
    steps=lambda run: run.study.steps,
    claims=claims.claims,
    summary=claims.summary,
    figure=Trajectories(
        columns="batch_size",
        colour="lr",
        panels=(
            Panel(LOSS.name, "loss", log=True, threshold="interpolation"),
            Panel(TEST_LOSS.name, "test loss", log=True),
        ),
    ),
    scatter=Scatter(
        colour="lr",
        size="batch_size",
        caption="Seeds are drawn together; the claims compare the runs of one seed.",
        panels=(
            *(Pair(IN_PARAMETERS[k], IN_INPUT[k]) for k in ORDERS),
            Pair(IN_INPUT[1], Quantity(TEST_LOSS.name, "test loss")),
        ),
    ),
)
