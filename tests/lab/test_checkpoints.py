"""Solutions of studies whose training is killed and goes on."""

import pytest

from lossgeom import Record
from lossgeom.lab.datasets import digits
from lossgeom.lab.models import mlp
from lossgeom.lab.regularizers import WarmSharpness, hold, sharpness
from lossgeom.lab.studies import _solution
from lossgeom.lab.studies._solution import Recipe, solve
from lossgeom.lab.training import SCHEDULES, optimize
from lossgeom.metrics import Accuracy


def test_a_solution_of_a_killed_run_is_the_same_to_the_bit(tmp_path, monkeypatch):
    """With quantities that follow training, and a schedule."""
    data = digits(20, 0)
    monkeypatch.setattr("lossgeom.lab.studies._training.SAVE_EVERY", 2)

    def run(folder):
        schedule = SCHEDULES["warm_up"](6)
        held = hold(WarmSharpness(), ([0, 10], [2.0, 3.0]))
        regularizers = sharpness(0.01), held
        recipe = Recipe(0.05, 10, 4, schedule=schedule, regularizers=regularizers)
        model = mlp(64, 10, [4], "tanh", seed=0)
        with Record.create(tmp_path / folder, {}, resume=True) as record:
            solve(recipe, model, data, record, seed=3, chunk=2000, every=2, at_end=[Accuracy()])
        return [{**row, "seconds": 0} for row in record.rows()]

    def stopping(*arguments, first, **options):
        for step in optimize(*arguments, first=first, **options):
            if step == 7:
                raise KeyboardInterrupt
            yield step

    straight = run("straight")
    with monkeypatch.context() as killed:
        killed.setattr(_solution, "optimize", stopping)
        with pytest.raises(KeyboardInterrupt):
            run("killed")
    assert Record.open(tmp_path / "killed").load_arrays("checkpoint")[1]["step"] == 4
    assert run("killed") == straight
