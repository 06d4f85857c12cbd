"""Read back as TensorBoard does."""

import math

import pytest

from lossgeom.mirrors import TensorBoard

pytest.importorskip("tensorboard", reason="tensorboard is not installed: the extra dev brings it")


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def write(mirror):
    for step in (0, 50, 20):
        mirror.write({"step": step, "metric": "loss (eval)", "value": 0.5, "stderr": 0.25})
        mirror.write({"step": step, "metric": "sharpness", "value": math.nan})
    mirror.close()


def test_scalars_are_at_the_steps_that_were_measured(tmp_path):
    write(TensorBoard(tmp_path))
    assert scalars(tmp_path) == {"lossgeom/loss_eval": [(0, 0.5), (50, 0.5), (20, 0.5)]}


def test_a_run_that_goes_on_hides_what_came_after_its_checkpoint(tmp_path):
    for value, steps, purged in ((1.0, (0, 1, 2), None), (2.0, (2, 3), 2)):
        mirror = TensorBoard(tmp_path, purge_step=purged)
        for step in steps:
            mirror.write({"step": step, "metric": "loss", "value": value})
        mirror.close()
    assert scalars(tmp_path) == {"lossgeom/loss": [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0)]}


def test_details_are_beside_the_value_and_a_writer_of_ones_own_stays_open(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(tmp_path)
    write(TensorBoard(writer, verbose=True))
    writer.add_scalar("mine", 1.0, 0)
    writer.close()
    expected = {"lossgeom/loss_eval", "lossgeom/loss_eval/stderr", "mine"}
    assert set(scalars(tmp_path)) == expected
