"""Every bound on one trained model, beside what it bounds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, groupby
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lossgeom.bounds._families import FAMILIES, Family
from lossgeom.bounds._given import Given
from lossgeom.bounds._going_together import check_given
from lossgeom.bounds._near import in_double
from lossgeom.bounds._prior import Prior
from lossgeom.bounds._training import Epoch
from lossgeom.bounds.covering import MeasuredCovering
from lossgeom.bounds.delta_good import DeltaGood
from lossgeom.bounds.row import Row, shown
from lossgeom.lipschitz.certified.frozen_model import all_inputs
from lossgeom.messages.reprs import short
from lossgeom.messages.wording import in_columns
from lossgeom.problem import NonFiniteError, Problem, checked_problem

SMALL = 0.05  # of the length of a usual input
HEADINGS = ("", "bound", "kind", "measured", "times", "vacuous", "most of it")
NEEDED = {
    "distribution": "the distribution of the inputs",
    "teacher": "the function that the model should agree with",
    "prior": "weights that the data had no part in",
    "lr": "the learning rate of SGD",
    "batch_size": "the batch size of SGD",
}


@dataclass(frozen=True)
class Comparison:
    """Bounds on one trained model, each beside what it bounds; ``print`` shows them as a table.

    Attributes:
        rows: of all bounds, also of those that could not be computed.
    """

    rows: tuple[Row, ...]

    __repr__ = short

    @property
    def headline(self) -> str:
        """The whole in one sentence."""
        found = [row for row in self.rows if row.bound is not None]
        certified = sum(row.kind == "certified" for row in found)
        told = [row.vacuous for row in found]
        kinds, every = ({row.family for row in rows} for rows in (found, self.rows))
        return (
            f"{len(found)} bounds could be computed, of {len(kinds)} of {len(every)} kinds, "
            f"{certified} of them from certified numbers alone; {told.count(False)} say more than "
            f"is known without them, {told.count(True)} do not, and {told.count(None)} cannot be "
            f"judged, as nothing else is known of what they bound; "
            f"{_promise([row for row in found if row.new])}."
        )

    def facts(self) -> list[dict[str, Any]]:
        """All numbers and words, row by row, for JSON."""
        derived = ("kind", "tightness", "vacuous", "dominant")
        return [asdict(row) | {name: getattr(row, name) for name in derived} for row in self.rows]

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield from (self.headline, "")
        found = [row for row in self.rows if row.bound is not None]
        header, *table = in_columns([HEADINGS, *(row.cells for row in found)])
        yield f"  {header}"
        lines = iter(table)
        for family, rows in groupby(self.rows, lambda row: row.family):
            members = [*rows]
            units = " and ".join(dict.fromkeys(row.unit for row in members if row.unit))
            yield f"{family}, in {units}" if units else family
            before: list[str] = []
            for row in members:
                if row.bound is not None:
                    yield f"  {next(lines)}"
                yield from (f"      {said}" for said in row.said if said not in before)
                before = row.said


def _promise(rows: Sequence[Row]) -> str:
    """What the bound on new data says that is furthest below what is known without it."""
    if not rows:
        return "none is about new data, for want of what is listed as missing"
    telling = [(row, row.bound) for row in rows if row.bound and not row.vacuous]
    if not telling:
        return "none about new data says more than is known without it"
    row, bound = min(telling, key=lambda each: each[1].value / each[1].trivial)
    times = f", {shown(row.tightness)} times what is measured" if row.tightness else ""
    return f"{bound.quantity} is at most {shown(bound.value)} ({row.kind}){times}"


def compare(
    problem: Problem,
    *,
    test: Problem | None = None,
    prior: Prior | None = None,
    distribution: DeltaGood | None = None,
    generator: nn.Module | None = None,
    latents: Float[Tensor, "N d"] | None = None,
    teacher: nn.Module | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    covering: str = "stated",
    radius: float | None = None,
    epsilon: float = 0.05,
    epochs: int = 300,
    seed: int = 0,
    known: Collection[Row] = (),
    posterior: Mapping[str, Tensor] | None = None,
    spelled: Mapping[str, str] = {},
    on_family: Callable[[str, Sequence[Row]], None] = lambda *_: None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_posterior: Callable[[Mapping[str, Tensor]], None] = lambda _: None,
) -> Comparison:
    r"""Compute every bound that can be computed of a model, each beside what it bounds.

    A row for each: its value, whether all numbers in it are certified, the quantity as it was
    measured, the ratio of both, whether the bound is vacuous, the largest of its terms, and what
    would have to change for it to say something. Bounds that cannot be computed say what is
    missing: what was not given, or why the model is not one of those that they are of.

    With a distribution, theorems that rest on coverings are evaluated for a sample from it: the
    latents, if they are given; without a generator the inputs; else as many new draws, since these
    theorems hold for any model, also one that has not seen the sample.

    Cost: that of each, such as :func:`lossgeom.lipschitz_local` for every example with a
    distribution; attacks and searches are on 64 examples at most.

    Args:
        problem: model, loss and training data; in float64, or what is rounded is not certified.
        test: the same model on new data, to measure errors there.
        prior: as for :func:`lossgeom.pac_bayes`.
        distribution: of the inputs, or of what the generator takes.
        generator: from draws (N, d) of the distribution to inputs of the model.
        latents: what it made the training data from, in their order.
        teacher: what the model should agree with, from the same inputs to as many outputs.
        lr: of the SGD that the model is a result of.
        batch_size: of that.
        covering: by what radius the sample covers the support: ``"stated"`` for that of theorem
            4.2, ``"measured"`` for that of :class:`MeasuredCovering`, which fresh draws certify of
            this sample, and which is often 2 or 3 times smaller.
        radius: how far an input may be changed, in l2; by default 5 % of the median length.
        epsilon: the probability that a sample does not cover the support.
        epochs: of the search for the PAC-Bayes bound.
        seed: of all that is drawn.
        known: rows that were computed before, such as those of :func:`unchanged`.
        posterior: what ``on_posterior`` was called with, when the known rows were computed.
        spelled: how to give each of these arguments, for rows where they are missing; and by other
            keys, what to say in the place of phrases of errors.
        on_family: is called before each family is computed, with its title and all rows by then.
        on_epoch: as for :func:`lossgeom.pac_bayes`.
        on_posterior: is called with the posterior of the PAC-Bayes bound, to keep it.

    Raises:
        ValueError: for settings out of their range, and for what does not go together: test data
            that are not like the training data, a generator or teacher that makes something of
            another shape than the model does, latents that do not make the data, a distribution
            of other dimensions, or data that are not from it.
        TypeError, NonFiniteError: for inputs that are not one tensor of floating point.

    Source: see each bound.

    >>> import torch
    >>> from lossgeom.bounds import Cube
    >>> x = Cube(1).sample(400)
    >>> teacher = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    >>> problem = Problem(teacher, "squared_error", [(x, teacher(x).detach())])
    >>> found = compare(problem, distribution=Cube(1), teacher=teacher)
    >>> all(row.bound.value >= row.measured for row in found.rows if row.new and row.bound)
    True
    >>> [row.missing for row in found.rows if "PAC" in row.family]
    ['needs weights that the data had no part in (prior)']
    """
    given = checked_given(
        problem, test=test, prior=prior, distribution=distribution, generator=generator,
        latents=latents, teacher=teacher, lr=lr, batch_size=batch_size, covering=covering,
        radius=radius, epsilon=epsilon, epochs=epochs, seed=seed, on_epoch=on_epoch,
        posterior=posterior, on_posterior=on_posterior,
    )  # fmt: skip
    rows = {title: [*group] for title, group in groupby(known, lambda row: row.family)}
    for family in FAMILIES:
        absent = [name for name in family.needs if getattr(given, name) is None]
        if absent:
            needed = " and ".join(f"{NEEDED[name]} ({spelled.get(name, name)})" for name in absent)
            rows[family.title] = [Row(family=family.title, missing=f"needs {needed}")]
        elif family.title not in rows:
            on_family(family.title, [*chain(*rows.values())])
            rows[family.title] = _rows(family, given, spelled)
        elif family.tested is not None and not all(row.how for row in rows[family.title]):
            on_family(f"{family.title}, on test data", [*chain(*rows.values())])
            rows[family.title] = family.tested(given, rows[family.title])
    return Comparison(tuple(row for family in FAMILIES for row in rows[family.title]))


def checked_given(
    problem: Problem,
    *,
    radius: float | None,
    generator: nn.Module | None,
    teacher: nn.Module | None,
    **known: Any,
) -> Given:
    """All that :func:`compare` was given, after a look at whether it goes together."""
    if radius is None:
        lengths = all_inputs(checked_problem(problem)).flatten(1).norm(dim=1)
        radius = SMALL * lengths.median().item()
    generator, teacher = (
        each if each is None else in_double(each) for each in (generator, teacher)
    )
    given = Given(problem, radius=radius, generator=generator, teacher=teacher, **known)
    check_given(given)
    if given.distribution is None or given.covering == "stated":
        return given
    points = given.sample.flatten(1)
    return replace(given, distribution=MeasuredCovering(given.distribution, points))


def _rows(family: Family, given: Given, spelled: Mapping[str, str]) -> list[Row]:
    """The rows of a family, or one that says why there are none for this model."""
    try:
        return [
            replace(row, family=family.title, new=family.new, unit=row.unit or family.unit)
            for row in family.rows(given)
        ]
    except (TypeError, ValueError, NonFiniteError) as error:
        missing = str(error)
        for said, told in spelled.items():
            missing = missing if said.isidentifier() else missing.replace(said, told)
        return [Row(family=family.title, missing=missing)]


def unchanged(rows: Sequence[Row], changed: Collection[str], *, posterior: bool) -> list[Row]:
    """The rows of families that are complete and use nothing that has changed.

    Where the posterior is there, what other test data say is all that is to be measured anew.
    """
    families = {
        family.title: family
        for family in FAMILIES
        if not family.rests_on(changed)
        and (posterior or family.tested is None or "test" not in changed)
        and all(row.bound is not None for row in rows if row.family == family.title)
    }
    kept = [row for row in rows if row.family in families]
    if "test" not in changed:
        return kept
    return [
        replace(row, measured=None, how="") if families[row.family].tested else row for row in kept
    ]
