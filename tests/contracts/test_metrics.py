"""What every metric must do."""

import dataclasses
import re
import typing

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.metrics import METRICS, STEP_METRICS, Metric, StepMetric
from tests import reference
from tests.problems import CASES, Case

NAMES = ("ragged", "two_paths", "conv", "lstm", "spectral_norm", "batchnorm_train")
KNOWN = [case for case in CASES if case.name in NAMES]
EVERY = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
BOTH = dict.fromkeys([*METRICS, *STEP_METRICS])  # of problems, and of steps
OF_BOTH_KINDS = pytest.mark.parametrize("metric", BOTH, ids=lambda metric: metric.__name__)
ANY_NUMBER = {("Accuracy", "ignore_index")}  # settings that no number is bad for


def settings_of(metric: type[Metric | StepMetric]) -> dict[str, typing.Any]:
    """The types of its settings by name."""
    hints = typing.get_type_hints(metric)
    return {field.name: hints[field.name] for field in dataclasses.fields(metric)}


@OF_BOTH_KINDS
def test_is_frozen_settings_with_defaults(metric):
    assert dataclasses.is_dataclass(metric)
    assert metric.__dataclass_params__.frozen
    made = metric()  # every setting has a default
    assert isinstance(made, Metric if metric in METRICS else StepMetric)
    assert made == metric()
    assert hash(made) == hash(metric())
    for name in [*settings_of(metric), "name"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, None)


@OF_BOTH_KINDS
def test_the_name_fits_in_a_record(metric):
    """It is a key: lower case, without spaces, and no other metric's."""
    name = metric().name
    assert re.fullmatch(r"[a-z0-9_.]+", name)
    assert [other().name for other in BOTH].count(name) == 1


def described(metric: type[Metric | StepMetric]) -> str:
    """Its docstring, with those of the functions that it refers to."""
    own = metric.__doc__
    named = re.findall(r":func:`lossgeom\.(\w+)`", own)
    return own + "".join(getattr(lg, name).__doc__ for name in named)


@OF_BOTH_KINDS
def test_settings_are_documented(metric):
    text = described(metric)
    for name in settings_of(metric):
        assert re.search(rf"\b{name}\b", text), name


def estimate_of(metric: type[Metric], case: Case) -> lg.Estimate | None:
    """What it measures, or None where no bound is known or it is not defined."""
    try:
        return metric()(case.problem())
    except lg.UndefinedError:
        return None
    except TypeError as error:
        if "no bound is known" not in str(error):
            raise
        return None


@EVERY
def test_gives_an_estimate_the_same_bits_again_and_leaves_no_trace(metric, unchecked):
    found = []
    for case in KNOWN:
        before = reference.fingerprint(case.model)
        first, second = estimate_of(metric, case), estimate_of(metric, case)
        assert reference.fingerprint(case.model) == before
        assert first == second
        found += [] if first is None else [first]
    assert len(found) >= 4
    for estimate in found:
        assert isinstance(estimate, lg.Estimate)
        assert isinstance(estimate.value, float)
        assert estimate.status == "ok"


@pytest.mark.parametrize("metric", [m for m in METRICS if "seed" in settings_of(m)])
def test_two_seeds_measure_the_same_thing(metric):
    problem = KNOWN[0].problem()
    first, second = (metric(seed=seed)(problem).value for seed in (0, 1))
    assert first == pytest.approx(second, rel=0.2)


@EVERY
def test_no_number_is_made_of_nan(metric):
    model = nn.Linear(2, 2)
    model.weight.data.fill_(float("nan"))
    problem = lg.Problem(model, "cross_entropy", [(torch.ones(2, 2), torch.tensor([0, 1]))])
    with pytest.raises(lg.NonFiniteError):
        metric()(problem)


@EVERY
def test_bad_settings_raise(metric, unchecked):
    """A choice that there is not when it is made, a negative number at the latest when used."""
    problem = KNOWN[0].problem()
    for name, kind in settings_of(metric).items():
        if typing.get_origin(kind) is typing.Literal:
            with pytest.raises(ValueError, match=f"expected {name} to be one of"):
                metric(**{name: "no such choice"})
        elif kind in (int, float) and (metric.__name__, name) not in ANY_NUMBER:
            with pytest.raises(ValueError, match=r"expected .*(>=|<|at least)"):
                metric(**{name: -1})(problem)
