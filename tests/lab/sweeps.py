"""Records of known ends for the studies that go through many settings."""

from lossgeom import Record
from lossgeom.lab.studies._solution import GAP, JACOBIAN, SHARPNESS
from lossgeom.lab.studies._study import FIRST_SEED
from lossgeom.lab.studies._sweep import SgdSettings

ONCE = SgdSettings(epochs=1, measurements=1)


def ended(folder, study, config, ends, seeds=6, **others):
    """Records whose runs end with what a function of the place says; None for diverged ones.

    It gives sharpness, Jacobian norm and gap, and more by their names.
    """
    records = []
    for run in study.plan(config, seeds):
        found = ends(**run.place)
        record = Record.create(folder / run.name, run.settings)
        sharpness, jacobian, gap, more = found or (1.0, 1.0, 1.0, {})
        rows = {SHARPNESS.name: sharpness, JACOBIAN.name: jacobian, GAP: gap}
        for metric, value in ({"train_accuracy": 1.0} | rows | more | others).items():
            differs = 1 + 1e-5 * (run.seed - FIRST_SEED)  # as one seed does from another
            record.append({"step": 9, "metric": metric, "value": value**differs})
        record.finish("finished" if found else "diverged")
        records.append(record)
    return records


def claims_of(folder, study, config, ends, seeds=6, **others):
    """The claims about them, by their names."""
    records = ended(folder, study, config, ends, seeds, **others)
    return {claim.id: claim for claim in study.judge(config, records)}
