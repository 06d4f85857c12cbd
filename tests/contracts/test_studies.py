"""What holds of every study."""

import re
from dataclasses import is_dataclass, replace

import pytest

from lossgeom.cli import main
from lossgeom.lab.studies import STUDIES
from lossgeom.lab.studies._study import FIRST_SEED


@pytest.fixture(params=STUDIES)
def study(request):
    return STUDIES[request.param]


def test_its_name_is_that_in_the_list(study):
    assert STUDIES[study.name] is study


def test_its_settings_are_frozen_and_have_two_presets(study):
    assert study.Config.__dataclass_params__.frozen
    assert isinstance(study.paper, study.Config)
    assert study.paper != study.Config()
    assert replace(study.paper) == study.paper


@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_its_settings_are_flags_of_their_own(study, preset, capsys):
    """No setting has the name of another one, of those of a network, or of an option."""
    with pytest.raises(SystemExit) as ended:
        main(["run", study.name, "--preset", preset, "--help"])
    said = capsys.readouterr()
    assert (ended.value.code, said.err) == (0, "")
    flags = set(re.split(r"[ ,\n]", said.out))
    assert all(f"--{name.replace('_', '-')}" in flags for name in names(study.Config()))


def names(config):
    """Of settings, also of those that are kept together, as of a network."""
    for name, value in vars(config).items():
        yield from names(value) if is_dataclass(value) else [name]


def test_its_runs_have_folders_of_their_own_and_fresh_seeds(study):
    runs = study.plan(study.Config(), 2)
    assert len({run.name for run in runs}) == len(runs)
    assert {run.seed for run in runs} == {FIRST_SEED, FIRST_SEED + 1}
    assert all(study.steps(run) >= 1 for run in runs)
    assert {run.study for run in runs} == {study.Config()}


def test_figures_are_arranged_by_what_tells_its_runs_apart(study):
    keys = {study.figure.columns, study.figure.colour}
    if study.scatter is not None:
        keys |= {study.scatter.colour, study.scatter.size}
    runs = study.plan(study.paper, 1)
    if study.sweep is not None:
        keys |= {study.sweep.lines}
        keys |= {key for column in study.sweep.columns for key in column.where}
        for column in study.sweep.columns:  # a setting, or a metric, which no run has as a setting
            assert len({column.setting in run.settings for run in runs}) == 1
            for key, values in column.where.items():
                assert any(run.settings[key] in values for run in runs)
    assert all(keys - {None} <= run.settings.keys() for run in runs)


def test_nothing_is_claimed_without_records(study):
    found = study.judge(study.Config(), [])
    assert all(claim.verdict == "inconclusive" for claim in found)
    assert len({claim.id for claim in found}) == len(found)
    assert len({claim.statement for claim in found}) == len(found)  # by which two are compared
    assert study.summary(study.Config(), found)


def test_its_claims_are_sentences_and_some_are_made_to_fail(study):
    found = study.judge(study.Config(), [])
    assert any(claim.control for claim in found)
    for claim in found:
        assert claim.id.startswith("control_") == claim.control
        assert claim.statement.startswith("Negative control: ") == claim.control
        assert claim.statement.endswith(".")
        assert claim.source
        assert claim.measured
