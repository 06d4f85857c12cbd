"""All forms of the bound on generalisation, from modules, with every number measured here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.bounds._near import Difference, Near, everywhere, in_double, outputs_at
from lossgeom.bounds.bound import Assumption, Bound
from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.bounds.generalisation import (
    Form,
    difference,
    generalisation,
    local_difference,
    local_lipschitz,
    smooth_difference,
)
from lossgeom.linalg.arithmetic import lengths
from lossgeom.lipschitz import Bracket

TRUE_TARGET = Assumption("the target that was given is what is to be learned", "declared")
FITS = Assumption("at every example, the model is within the fit of the target", "checked")
KNOWN = Assumption(
    "what is said of model and target holds on every ball, at each of its points", "checked"
)
LEFT_OUT = (
    "new inputs outside of the support, a share of {:.3g} of the law that it was truncated from, "
    "are not counted"
)
CONSTANT = (
    "any constant between the targets, which is at most {:.4g} away from them at the examples"
)
MEAN = "error of the mean"
MEANINGS = {
    "N": "examples",
    "epsilon": "the probability that balls round the examples do not cover the support",
    MEAN: "how far the constant prediction of the target's mean is from the target, on average",
}


def generalisation_bounds(
    model: nn.Module,
    target: nn.Module,
    inputs: Float[Tensor, "N d"],
    distribution: DeltaGood,
    *,
    generator: nn.Module | None = None,
    epsilon: float = 0.05,
    searched: int = 16,
    seed: int = 0,
) -> dict[str, Bound]:
    r"""Bound the mean distance of a model from its target on new inputs, in every form, certified.

    From the loosest to the tightest, where model and target are smooth:

    - ``"ambient"``: theorem 6.1 as stated, :func:`generalisation`;
    - ``"latent"``: the same of model and target after the generator, in its inputs;
    - ``"local Lipschitz"``: :func:`local_lipschitz`;
    - ``"difference"``: :func:`difference`;
    - ``"local difference"``: :func:`local_difference`;
    - ``"smooth difference"``: :func:`smooth_difference`, infinite where slopes jump.

    All but the first are of functions of u, where inputs are generated as x = g(u); without a
    generator there is no latent form. Every number in them is certified: fit, Jacobians and
    variations by propagation through the layers, as in :func:`lossgeom.lipschitz_local`, on balls
    of radius 0 and of radius delta. Their other sides, for ``least``, are found by ascent. What is
    said of the difference of model and target is propagated through both at once, which is tighter
    than the sum: what they have in common cancels. The bounds hold for whatever model was chosen,
    also by the examples, and all together with the probability stated: they rest on one event, that
    the balls cover the support. They are of copies of the modules in eval mode and float64; how
    float32 rounds their outputs, by a millionth or so, is not in them.

    Cost: certified bounds of two modules on N balls twice and of one once (a fifth of a millisecond
    for each of a small network), and two more in the ambient form.

    Args:
        model: f, from inputs (N, D) to outputs (N, C), of layers that bounds are known for.
        target: f*, likewise.
        inputs: the examples as drawn from ``distribution``, in its space.
        distribution: with its radius of covering.
        generator: g, from (N, d) to (N, D), if model and target see g(u) for u in ``inputs``.
        epsilon: the probability that the examples do not cover the support.
        searched: examples from which ascents look for lower estimates; 0 for none, where only
            ``value`` is wanted.
        seed: of the ascents.

    Returns:
        Bounds by the names above; ``trivial`` is the range of the target at the examples: the
        diagonal of the box that its values fill.

    Raises:
        TypeError: for layers that no bound is known for.
        ValueError: for too few examples, an epsilon out of range, inputs that are not (N, d).
        NonFiniteError: where outputs are NaN or infinite.

    Source: MacDonald et al., arXiv:2305.14683, section 6, whose authors leave the evaluation open;
    the forms after the first are derived here.

    >>> from lossgeom.bounds import Cube
    >>> u = Cube(1).sample(200)
    >>> model, target = nn.Linear(1, 1), nn.Linear(1, 1)
    >>> for module, slope in ((model, 1.0), (target, 1.01)):
    ...     _ = nn.init.constant_(module.weight, slope), nn.init.zeros_(module.bias)
    >>> found = generalisation_bounds(model, target, u, Cube(1), searched=0)
    >>> [f"{found[name].value:.3f}" for name in ("ambient", "difference")]
    ['0.177', '0.011']
    """
    f, goal = in_double(model), in_double(target)
    g = nn.Identity() if generator is None else in_double(generator)
    u = inputs.detach().double()
    delta = Bracket.exactly(distribution.radius_round(u, epsilon))
    of_f, of_goal, apart = (
        Near(nn.Sequential(g, each), u, delta.max[1], searched, seed)
        for each in (f, goal, Difference(f, goal))
    )
    facts: dict[str, Any] = {"fit": apart.size, "epsilon": epsilon}
    whole, slopes = everywhere(nn.Sequential(g, goal), u, searched, seed), apart.jacobian
    own: Form = "ambient" if generator is None else "latent"
    stated = generalisation(delta, whole, of_f.jacobian, of_f.variation, form=own, **facts)
    forms = {"ambient": stated}
    if generator is not None:
        x, stretch = outputs_at(g, u), everywhere(g, u, searched, seed)
        wide = Bracket(delta.lower * stretch.lower, delta.upper * stretch.upper)
        there, steep = (
            Near(f, x, wide.max[1], searched, seed),
            everywhere(goal, x, searched, seed),
        )
        forms["ambient"] = generalisation(wide, steep, there.jacobian, there.variation, **facts)
        forms["latent"] = stated
    forms |= {
        "local Lipschitz": local_lipschitz(delta, of_f.lipschitz, of_goal.lipschitz, **facts),
        "difference": difference(delta, slopes, apart.variation, **facts),
        "local difference": local_difference(delta, apart.lipschitz, **facts),
        "smooth difference": smooth_difference(delta, slopes, apart.curvature, **facts),
    }
    return _told(forms, distribution, outputs_at(nn.Sequential(g, goal), u), epsilon)


def _told(
    forms: dict[str, Bound], distribution: DeltaGood, values: Float[Tensor, "N C"], epsilon: float
) -> dict[str, Bound]:
    """Bounds with what they rest on, and what is known without them."""
    covers = Assumption(
        f"balls of radius delta round {len(values)} examples cover the support of the distribution "
        "with the probability stated",
        "checked" if distribution.certified else "declared",
    )
    drawn = Assumption(
        f"the examples were drawn independently of each other from {distribution}", "declared"
    )
    off = lengths(values - values.mean(0), 1).mean().item()
    known = {"N": len(values), "epsilon": epsilon, MEAN: off}
    spread = lengths(values.amax(0) - values.amin(0), 0).item()
    note = LEFT_OUT.format(distribution.left_out)
    return {
        name: replace(
            bound,
            inputs={**bound.inputs, **known},
            meanings={**bound.meanings, **MEANINGS},
            assumptions=(drawn, covers, TRUE_TARGET, FITS, KNOWN),
            trivial=spread,
            trivial_for=CONSTANT.format(spread),
            certified=bound.certified and distribution.certified,
            notes=(*bound.notes, note) if distribution.left_out else bound.notes,
        )
        for name, bound in forms.items()
    }
