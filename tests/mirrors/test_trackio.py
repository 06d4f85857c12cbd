"""In a file of SQLite, read back as such."""

import json
import math
import sqlite3

import pytest

from lossgeom.mirrors import Trackio

pytestmark = pytest.mark.slow
reason = "trackio is not installed: make test-slow installs it"
trackio = pytest.importorskip("trackio", reason=reason)


@pytest.fixture
def start(tmp_path, monkeypatch):
    for module in (trackio.utils, trackio.sqlite_storage):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path, raising=False)
    return {"project": "test", "name": "mine", "auto_log_cpu": False, "embed": False}


def entries(folder):
    (file,) = folder.glob("*.db")
    with sqlite3.connect(file) as store:
        found = store.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    return [(run, step, json.loads(metrics)) for run, step, metrics in found]


def write(mirror):
    for step in (0, 50, 20):
        mirror.write({"step": step, "metric": "loss", "value": 0.5 + step, "seconds": 1.0})
        mirror.write({"step": step, "metric": "sharpness", "value": math.inf})
    mirror.close()


EXPECTED = [("mine", step, {"lossgeom/loss": 0.5 + step}) for step in (0, 50, 20)]


def test_a_run_of_its_own_ends_with_it(start, tmp_path):
    write(Trackio(start=start))
    assert entries(tmp_path) == EXPECTED


def test_the_current_run_goes_on_and_none_is_started(start, tmp_path):
    with pytest.raises(ValueError, match=r"expected a run of Trackio .* call trackio.init"):
        Trackio()
    trackio.init(**start)
    write(Trackio())
    trackio.log({"mine": 1}, step=3)
    trackio.finish()
    assert entries(tmp_path) == [*EXPECTED, ("mine", 3, {"mine": 1})]
