"""A lower bound on the Jacobian of whatever fits, along training.

MacDonald, Valmadre and Lucey (arXiv:2305.14683, Theorem 5.1) show why a model that comes to fit its
data must get a large input-output Jacobian, and with it, so they argue, a large sharpness: two
inputs that are near to each other and have targets that are far apart leave no choice. With
ell = max_i sqrt(KL_i), the Jacobian norm of a softmax model is at least

    max_ij (|y_i - y_j| - 2 ell) / |x_i - x_j| - max_i V_i

where V_i is how much the Jacobian varies on a ball round x_i. Balls of that radius cover the
support with high probability, if that is convex. Label smoothing by a contracts the distances of
targets to 1 - a of what they were.

Nobody seems to have put numbers in. That is done here where every number is certified: uniform
points of an interval, a class whose probability is known, and a local variation that
``local_variation_upper`` bounds.

On images the theorem is silent: by its formula, balls that cover a cube of 64 dimensions round 500
points have a radius of 7.6, and its diameter is 8. They are here for what becomes of the bound
without V, which is no theorem: where labels are not smoothed, the softmax saturates at every image,
so that the norm there goes to 0, and all of the slope is between them.

What follows was fixed on seeds 100 to 103, before seeds 10, 11, ... were run, which are those of
the study. Seen there:

- At the end, the bound is 0.64 to 0.66 of the Jacobian norm, for the smoothing where it is least.
- The rank correlation of bound and loss is -0.89 to -0.99: for a short time in a run the loss falls
  in the mean, but not at the worst example, which the bound is about.
- The bound at the end, by 1 - a and by that without smoothing, is 1.06 to 1.13 for the smoothing
  where that is farthest from 1, the Jacobian norm 0.85 to 0.92.
- On images without smoothing, the norm ends at 0.02 to 0.03, and the bound without V at 1.0.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.sharpening_lower_bound import claims, run, task
from lossgeom.lab.studies.sharpening_lower_bound.config import PAPER, Config
from lossgeom.recording.metric_figures import Panel, Quantity, Trajectories

LOSSES = tuple(Quantity(run.named(run.LOSS, each), f"KL, {each}") for each in task.TASKS)
ON_INTERVAL = (
    Quantity(run.JACOBIAN, "largest Jacobian norm"), Quantity(run.BOUND, "bound of Theorem 5.1"),
)  # fmt: skip
ON_IMAGES = (
    Quantity(run.named(run.JACOBIAN, task.IMAGES), "largest Jacobian norm"),
    Quantity(run.named(run.BOUND, task.IMAGES), "separation of targets alone, no theorem"),
)

STUDY = Study(
    name="sharpening_lower_bound",
    title="A lower bound on the Jacobian as the loss falls",
    source=claims.THEOREM,
    Config=Config,
    paper=PAPER,
    grid=lambda config: {"task": task.TASKS, "label_smoothing": config.label_smoothing},
    folder="{task}-smoothing{label_smoothing}-seed{seed}",
    run=run.run,
    steps=lambda planned: planned.study.steps,
    claims=claims.claims,
    summary=claims.summary,
    figure=Trajectories(
        columns="label_smoothing",
        colour="label_smoothing",
        panels=(
            Panel(run.LOSS, "KL from targets", log=True, lines=LOSSES),
            Panel(run.JACOBIAN, "on the interval", lines=ON_INTERVAL),
            Panel(run.named(run.JACOBIAN, task.IMAGES), "on images", lines=ON_IMAGES),
        ),
    ),
)
