"""In a store of SQLite, read back with MLflow's client."""

import math

import pytest

from lossgeom.mirrors import MLflow

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning"),  # SQLAlchemy's
]
mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: make test-slow installs it")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    before, folder = mlflow.get_tracking_uri(), tmp_path_factory.mktemp("store")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("test", artifact_location=str(folder))
    mlflow.set_experiment("test")
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri(before)


def write(mirror):
    for step in (0, 50, 20):
        row = {"step": step, "metric": "loss", "value": 0.5 + step, "stderr": None, "seconds": 1.0}
        mirror.write(row)
        mirror.write({"step": step, "metric": "sharpness (eval)", "value": math.nan})
    mirror.close()


def points(store, run, key):
    return [(each.step, each.value) for each in store.get_metric_history(run, key)]


def test_a_run_of_its_own_ends_with_it(store):
    mirror = MLflow(start={"run_name": "mine"}, verbose=True)
    assert mlflow.active_run().info.run_id == mirror.run_id
    write(mirror)
    assert mlflow.active_run() is None
    run = store.get_run(mirror.run_id)
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert set(run.data.metrics) == {"lossgeom/loss", "lossgeom/loss/seconds"}
    found = points(store, mirror.run_id, "lossgeom/loss")
    assert sorted(found) == [(0, 0.5), (20, 20.5), (50, 50.5)]


def test_the_active_run_goes_on_and_none_is_started(store):
    with pytest.raises(ValueError, match=r"expected a run of MLflow .* call mlflow.start_run"):
        MLflow()
    assert mlflow.active_run() is None
    with mlflow.start_run() as run:
        mirror = MLflow()
        write(mirror)
        assert store.get_run(run.info.run_id).info.status == "RUNNING"
    assert len(points(store, run.info.run_id, "lossgeom/loss")) == 3
    write(MLflow(run.info.run_id))
    assert mlflow.active_run() is None
    assert len(points(store, run.info.run_id, "lossgeom/loss")) == 6
