import math

import pytest

import lossgeom as lg
from lossgeom.recording.mirror import Mirrors

pytestmark = pytest.mark.quick


class Kept:
    """Keeps what it gets; raises errors from a row on."""

    def __init__(self, fails_at=math.inf):
        self.rows, self.closed, self.fails_at = [], 0, fails_at

    def write(self, row):
        if len(self.rows) >= self.fails_at:
            raise OSError("the network is down")
        self.rows.append(row)

    def close(self):
        self.closed += 1


def row(step, metric, value, **more):
    return {"step": step, "metric": metric, "value": value, **more}


def test_a_mirror_gets_the_measurements_and_ends_with_the_record(tmp_path):
    mirror = Kept()
    with lg.Record.create(tmp_path) as record:
        record.append(row(0, "loss", 2.0))
        for _ in range(2):
            record.mirrors.add([mirror])
        record.append(row(1, "loss", math.nan))
        record.append({"step": 1, "skipped": 3})
        assert mirror.closed == 0
    assert str(mirror.rows) == str([row(1, "loss", math.nan)])
    assert mirror.closed == 1


def test_one_that_fails_warns_once_and_the_others_go_on(tmp_path):
    failing, other = Kept(fails_at=1), Kept()
    with lg.Record.create(tmp_path) as record:
        record.mirrors.add([failing, other])
        record.append(row(0, "loss", 2.0))
        with pytest.warns(UserWarning, match="Kept gets no more rows .OSError: the network"):
            record.append(row(1, "loss", 1.0))
        record.append(row(2, "loss", 0.5))
    assert len(record.rows()) == len(other.rows) == 3
    assert (len(failing.rows), failing.closed, other.closed) == (1, 0, 1)


def test_one_that_cannot_be_closed_warns():
    mirrors, mirror = Mirrors(), Kept()
    mirror.close = lambda: 1 / 0
    mirrors.add([mirror])
    with pytest.warns(UserWarning, match="ZeroDivisionError"):
        mirrors.close()
    mirrors.close()
