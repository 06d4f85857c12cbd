"""``lossgeom bound all``."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor, nn

from lossgeom.bounds import Comparison, Cube, DeltaGood, Epoch, Gaussian, Row, Sphere, compare
from lossgeom.bounds.comparison import checked_given, unchanged
from lossgeom.cli.arguments import choices, optional, parsed
from lossgeom.cli.checkpoint import DTYPES, DtypeName, problem_at_checkpoint
from lossgeom.cli.messages import say
from lossgeom.cli.prior import PriorOptions, hash_of, problem_and_prior
from lossgeom.cli.problem import FUNCTIONS
from lossgeom.cli.report import publish
from lossgeom.cli.user_code import FactoryError, explained, importable, make
from lossgeom.messages.wording import one_of
from lossgeom.problem import Problem
from lossgeom.problem.model_facts import Mode
from lossgeom.problem.passes import digest
from lossgeom.recording.estimates import problem_facts
from lossgeom.recording.for_report import ForReport
from lossgeom.recording.forms import parse
from lossgeom.recording.json_files import plain
from lossgeom.recording.record import Record
from lossgeom.recording.record_format import BOUND

HELP = f"""\
Set every bound that can be computed for a trained model beside what it bounds.

{FUNCTIONS}

DATA returns the data that the model was trained on.

examples:
  lossgeom bound all net.py:model net.py:data --checkpoint trained.pt
                                                         what a model and its data allow
  lossgeom bound all net.py:model net.py:data --checkpoint trained.pt --test net.py:new_data
                                                         with errors on new data beside the bounds
  lossgeom bound all net.py:model net.py:data --checkpoint trained.pt --lr 0.1 --batch-size 32
                                                         with what SGD's stability implies
  lossgeom bound all net.py:model net.py:data --loss squared_error --latent cube:2
                                        --generator net.py:generator --teacher net.py:teacher
                                                         where data are made from two numbers each
  lossgeom bound all net.py:model net.py:data --json > a.json
                                                         for another program

what is shown:
  a row for each bound: its value, whether every number in it is certified or some are estimates,
  what it bounds, as it was measured, the ratio of both, whether the bound is vacuous, so that it
  says no more than is known without it, and the largest of the terms that it is the sum of; below
  it how that was measured, and what would have to change for it to say something. A bound that
  cannot be computed says what is missing.

--latent:
  cube:2 is uniform on the unit square, cube:2:3 on one of side 3, sphere:2 on the unit sphere in
  R^3, sphere:2:3 on that of radius 3, and gaussian:2:3 normal without what is further out than 3

what is written:
  DIR/report.html with DIR/figures/, DIR/bound.json, and the record that they are made from, with
  every number and every assumption. The same command goes on where it was stopped; with more
  options of what is known, it computes what these add.

exit status:
  0  computed, also where all is vacuous or missing
  2  the model could not be made or loaded, or what was given does not go together"""

KINDS: dict[str, Callable[..., DeltaGood]] = {"cube": Cube, "sphere": Sphere, "gaussian": Gaussian}
SPELLED = {
    "distribution": "--latent cube:2",
    "generator": "--generator FUNCTION",
    "teacher": "--teacher FUNCTION",
    "test": "--test FUNCTION",
    "prior": "--prior FILE|SEED",
    "lr": "--lr FLOAT",
    "batch_size": "--batch-size INT",
    "leave out parameters=": "leave out --parameters",
    "in mode='eval'": "in eval mode",
    ". Where what is held does not depend on the examples, give as prior the parameters alone, as "
    "a vector": "",
}
POSTERIOR = "posterior"
ADDED = (
    "test",
    "prior",
    "latent",
    "generator",
    "latents",
    "teacher",
    "lr",
    "batch_size",
    "covering",
)


@dataclass(frozen=True)
class AllBoundsOptions(PriorOptions):
    """What is known of the model, of the data, and of the run."""

    test: Annotated[str | None, optional("FUNCTION")] = None
    """Function that returns batches of new data, like DATA, to measure errors on."""
    lr: Annotated[float | None, optional("FLOAT")] = None
    """Learning rate of the SGD that the model is a result of."""
    batch_size: Annotated[int | None, optional("INT")] = None
    """Examples in a batch of it."""
    latent: Annotated[str | None, optional("KIND:DIM[:SIZE]")] = None
    """Distribution of the inputs, or of what --generator makes them from (see above)."""
    covering: Annotated[str, tyro.conf.arg(metavar="{stated,measured}")] = "stated"
    """Radius with which examples cover it: theorem 4.2's, or what fresh draws certify of them."""
    generator: Annotated[str | None, optional("FUNCTION")] = None
    """Function that returns the module which makes inputs from --latent."""
    latents: Annotated[str | None, optional("FUNCTION", "drawn anew")] = None
    """Function that returns the tensor that DATA was made from, a row for each example."""
    teacher: Annotated[str | None, optional("FUNCTION")] = None
    """Function that returns the module which the model should agree with."""
    radius: Annotated[float | None, optional("FLOAT", "5% of a usual input's length")] = None
    """How far an input may be changed, in l2."""
    epsilon: float = 0.05
    """Probability that a sample does not cover the inputs as a theorem says."""
    epochs: int = 300
    """Passes over the data in search of the PAC-Bayes bound."""
    draw_seed: int = 0
    """Seed of all that is drawn."""
    dtype: Annotated[DtypeName, optional(choices([*DTYPES]), "float64")] = "float64"
    """Type of numbers to measure in; in float32 what is rounded is not certified."""
    # bounds are of the model as it is used
    mode: Annotated[Mode | None, tyro.conf.Fixed, tyro.conf.Suppress] = None
    seed: Annotated[int | None, tyro.conf.Fixed, tyro.conf.Suppress] = None


def main(arguments: list[str]) -> int:
    """Compute the bounds, print and write them; return the exit status."""
    options = parsed(AllBoundsOptions, arguments, "bound all", HELP)
    say("reading the model and the data")
    named = (options.test, options.generator, options.latents, options.teacher)
    names = [*options.factories(), *filter(None, named)]
    with importable(*names):
        problem, notes, prior = _problem(options)
        given = {**_given(options), "prior": prior}
        settings: dict[str, Any] = {
            "radius": options.radius, "epsilon": options.epsilon, "epochs": options.epochs,
            "seed": options.draw_seed, "covering": options.covering,
        }  # fmt: skip
        checked_given(problem, **given, **settings, on_epoch=lambda _: None)
        config = plain({"bound": "all", **options.config(*ADDED)})
        folder = options.folder("bounds")
        with Record.create(folder, config, kind=BOUND, resume=True) as record:
            told = {"problem": problem, **given, "covering": options.covering}
            known = _known(record, {k: _hash(v) for k, v in told.items() if v is not None})
            command = shlex.join(["lossgeom", "bound", "all", *arguments])
            record.update(**problem_facts(problem), checkpoint_notes=notes)
            with explained(f"{' and '.join(names)} to be bounded", but=(ValueError, TypeError)):
                found = _compared(problem, given | settings, known, record)
            title = options.title("Bounds for")
            record.describe(ForReport(title=title, summary=found.headline, command=command))
    facts = {"title": title, "headline": found.headline, "bounds": found.facts(), "config": config}
    publish(folder, "bound.json", facts, str(found), options.json)
    return 0


def _problem(options: AllBoundsOptions) -> tuple[Problem, list[str], dict[str, Tensor] | None]:
    """The problem with notes on how it was loaded, and the prior if there is one."""
    if options.checkpoint is None and options.prior is None:
        return *problem_at_checkpoint(options), None
    return problem_and_prior(options)[:3]


def _given(options: AllBoundsOptions) -> dict[str, Any]:
    """What else is known, as :func:`compare` takes it."""
    of_test = replace(options, data=options.test, examples=None)
    try:
        test = options.test and problem_at_checkpoint(of_test)
    except ValueError as error:
        raise ValueError(f"--test {options.test}: {error}") from error
    return {
        "test": test and test[0],
        "lr": options.lr,
        "batch_size": options.batch_size,
        "distribution": options.latent and _distribution(options.latent),
        "generator": options.generator and _made(options.generator, nn.Module),
        "latents": options.latents and _made(options.latents, Tensor),
        "teacher": options.teacher and _made(options.teacher, nn.Module),
    }


def _distribution(text: str) -> DeltaGood:
    kind, *numbers = text.split(":")
    try:
        dimension, *size = numbers
        return KINDS[kind](int(dimension), *map(float, size))
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(
            f"expected --latent as KIND:DIM or KIND:DIM:SIZE, such as cube:2, with "
            f"{one_of(KINDS)} and a whole number of dimensions, got {text!r}"
        ) from error


def _made(factory: str, kind: type) -> Any:
    made = make(factory)
    if not isinstance(made, kind):
        raise FactoryError(
            f"expected {factory} to return a {kind.__name__}, got a {type(made).__name__}"
        )
    return made


def _known(record: Record, told: dict[str, str]) -> list[Row]:
    """The rows that a record holds and that follow from what is given now."""
    before = record.manifest.get("compared_with") or {}
    changed = {name for name in {*before, *told} if before.get(name) != told.get(name)}
    rows = parse(tuple[Row, ...], record.manifest.get("compared") or [])
    kept = unchanged(rows, changed, posterior=record.load_arrays(POSTERIOR) is not None)
    record.update(compared=_plain(kept), compared_with=told)
    return kept


def _hash(thing: Any) -> str:
    """A hash by which one thing that was given is told from another."""
    if isinstance(thing, Problem):
        return hash_of(thing, {})
    named = thing.state_dict() if isinstance(thing, nn.Module) else thing
    named = named if isinstance(named, Mapping) else {"": named}
    parts = [(name, digest(it) if torch.is_tensor(it) else it) for name, it in named.items()]
    return hashlib.sha256(f"{type(thing).__name__} {parts}".encode()).hexdigest()


def _compared(
    problem: Problem,
    given: dict[str, Any],
    known: list[Row],
    record: Record,
) -> Comparison:
    """Compare, with a line for each family that is computed, which the record then holds."""
    tenth = max(1, given["epochs"] // 10)

    def on_family(title: str, rows: Sequence[Row]) -> None:
        record.update(compared=_plain(rows))
        say(f"computing: {title}")

    def on_epoch(found: Epoch) -> None:
        if found.epoch % tenth == 0:
            say(f"epoch {found.epoch} of {given['epochs']}: KL {found.kl:.4g}")

    found = compare(
        problem,
        **given,
        known=known,
        spelled=SPELLED,
        posterior=(record.load_arrays(POSTERIOR) or [None])[0],
        on_family=on_family,
        on_epoch=on_epoch,
        on_posterior=lambda found: record.save_arrays(POSTERIOR, found),
    )
    record.update(compared=_plain(found.rows))
    return found


def _plain(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
