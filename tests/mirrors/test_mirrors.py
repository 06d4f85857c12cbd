import io
import math
import re

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.mirrors import Console
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


def test_a_folder_is_let_go_of_where_closing_a_mirror_is_interrupted(tmp_path):
    class Slow(Kept):
        def close(self):
            raise KeyboardInterrupt

    record = lg.Record.create(tmp_path)
    record.mirrors.add([Slow()])
    with pytest.raises(KeyboardInterrupt):
        record.finish()
    assert lg.Record.create(tmp_path, resume=True).reopened == "finished"


def watched(folder, mirrors):
    """The parameters at the end of a short training that is watched, and its record."""
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    data = [(torch.ones(4, 2), torch.zeros(4, 1))]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    metrics = [lg.metrics.Loss(), lg.metrics.EdgeRatio(), lg.metrics.UpdateNorm()]
    with lg.watch(
        model, optimizer, "squared_error", data, folder, 2, metrics=metrics, mirrors=mirrors
    ) as run:
        for x, y in data * 3:
            optimizer.zero_grad()
            (0.5 * (model(x) - y).square().mean()).backward()
            optimizer.step()
    return model.weight.detach().clone(), run.record


def test_training_goes_on_where_mirrors_fail_and_is_the_same(tmp_path):
    plain, _ = watched(tmp_path / "plain", [])
    kept, text = Kept(), io.StringIO()
    with pytest.warns(UserWarning, match="Kept gets no more rows") as warned:
        found, record = watched(tmp_path / "a", [Kept(fails_at=1), kept, Console(text)])
    assert len(warned) == 1
    assert torch.equal(plain, found)
    assert kept.rows == [row for row in record.rows() if "metric" in row]
    assert kept.closed == 1
    assert re.fullmatch(
        r"step 0: loss \S+, edge ratio 0.15, update norm \S+, gradient cosine \S+\n"
        r"step 2: loss \S+, edge ratio 0.15, update norm \S+, gradient cosine \S+\n",
        text.getvalue(),
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("mirrors", "message"),
    [
        (Kept(), r"expected a list of mirrors, got .*; put it into \[\]"),
        ([Console], r"expected mirrors such as mirrors.Console\(\), got .*; add \(\) to make one"),
        (["console"], "got 'console'"),
    ],
)
def test_what_is_no_mirror_is_refused_before_anything_is_written(tmp_path, mirrors, message):
    with pytest.raises(TypeError, match=message):
        watched(tmp_path / "new", mirrors)
    assert not (tmp_path / "new").exists()


def test_a_console_of_another_encoding_escapes_names():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(stream)
    console.write(row(0, "\N{GREEK SMALL LETTER LAMDA}", 2.0))
    console.close()
    assert stream.buffer.getvalue() == b"step 0: \\u03bb 2\n"
