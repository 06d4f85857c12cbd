"""The generalisation bound of Theorem 6.1 with numbers, all of them certified.

MacDonald, Valmadre and Lucey (arXiv:2305.14683, Theorem 6.1) bound how far a network f is from its
target f* on new inputs. Where balls of radius delta round the sample cover the support, as they do
with probability 1 - epsilon,

    E |f(x) - f*(x)| <= ell + delta (Lip(f*) + max_i (|Jf(x_i)| + V_i))

with the error ell on the sample and the local variation V of the Jacobian on the balls. The authors
do not evaluate it. That is done here, on surfaces where everything is known: u is uniform on a
cube, x = g(u) for a generator in closed form or a decoder of digits that was learnt before, and f*
is a network. Students learn f* from N examples. All constants are certified bounds.

There are six forms of it, the first of which is the theorem as it stands, in x, with the Lipschitz
constant of g in delta. The *latent* form is the same of f(g(u)) and f*(g(u)), in the cube. *Local
Lipschitz* has certified Lipschitz constants on the balls in place of those at their centres and of
V. The *difference* is that of f and f*, which is propagated through both at once: its Jacobian at
the sample is small, and with V the bound falls like delta^2. So it does in two more forms, with the
Lipschitz constant of the difference on the balls, and, the tightest, with that of its Jacobian.

The derivatives of f* at the sample go into the last three: these say how far a student is from a
teacher that can be asked, and not from an unknown truth.

What follows was fixed on seed 100, before seeds 10, 11, ... were run, which are those of the study.
Seen there, in two dimensions, with a target of range 0.59 and a true error of 1.4e-4:

- From 200 to 20,000 examples the ambient form falls from 1.98 to 0.21, the latent one from 1.34 to
  0.125, the smooth difference from 0.174 to 0.0015, 11 times the true error. The slopes over delta
  are 1.09 to 1.21 and 2.16 to 2.45, more than 1 and 2: certificates get sharper on smaller balls.
- The latent form is below the range of the target from about 870 examples on, and below the error
  of the best constant from about 20,000 on.
- With 2,000 examples of a cube of 5 dimensions, no form says more than the range of the target.
- On the regularised decoder of digits with 2,000 examples, the latent form is 0.71 and the local
  one 0.64, with a range of 1.81. On the other decoder they are 15 and 8.6, with a range of 2.59,
  and the smooth difference, 8.0, is vacuous, too.
- Estimates of the dimension from two nearest neighbours are 1.02, 1.92, 2.92 and 4.59.
"""

from lossgeom.lab.studies._study import Study
from lossgeom.lab.studies.generalisation_bound import claims, run
from lossgeom.lab.studies.generalisation_bound.config import PAPER, TASKS, Config
from lossgeom.recording.metric_figures import Panel, Quantity, Trajectories

BESIDE = (
    Quantity(run.RANGE, "range of the target"),
    Quantity(run.CONSTANT, "best constant predictor"),
    Quantity(run.FIT, "largest error on the sample"),
    Quantity(run.ERROR, "true error"),
)
PANELS = tuple(
    Panel(run.ERROR, label, log=True, lines=(
        *(Quantity(form, claims.said(form)) for form in run.FORMS if run.RATES[form] == power),
        *BESIDE,
    ))
    for power, label in ((1, "distance from target,\nforms like delta"), (2, "forms like delta²"))
)  # fmt: skip

STUDY = Study(
    name="generalisation_bound",
    title="The generalisation bound with certified numbers",
    source=claims.THEOREM,
    Config=Config,
    paper=PAPER,
    grid=lambda _: {"task": TASKS},
    folder="{task}-seed{seed}",
    run=run.run,
    steps=lambda planned: planned.study.sizes(planned.place["task"])[-1],
    claims=claims.claims,
    summary=claims.summary,
    figure=Trajectories(
        columns="task", colour="task", step="examples", log=True,
        panels=PANELS,
    ),
)  # fmt: skip
