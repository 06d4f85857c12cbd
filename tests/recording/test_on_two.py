"""A run that two processes watch together: the first writes, and both know the same."""

import contextlib
import re
import warnings
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import lossgeom as lg
from lossgeom.recording.record_format import RecordError

ROWS = (24, 8, 16)  # of each batch; the first is that of rank 0
STEPS = 4


def pieces() -> tuple[nn.Module, list[tuple[torch.Tensor, torch.Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    x, y = torch.randn(sum(ROWS), 5).double(), torch.randint(3, (sum(ROWS),))
    return model, list(zip(x.split(ROWS), y.split(ROWS), strict=True))


class Odd:
    """A metric that raises an error on one rank, while the other is in the middle of a sum."""

    name = "odd"

    def __call__(self, problem: lg.Problem) -> lg.Estimate:
        if problem.ranks.rank == 1:
            raise RuntimeError("only here")
        return lg.Estimate(float(problem.gradient().norm()))


class Missing:
    """A metric that there is not on one rank, while the other is in the middle of a sum."""

    name = "missing"

    def __call__(self, problem: lg.Problem) -> lg.Estimate:
        if problem.ranks.rank == 1:
            raise lg.UndefinedError("not here")
        return lg.Estimate(float(problem.gradient().norm()))


class Rank:
    """A metric that is another number on each rank."""

    name = "rank"

    def __call__(self, problem: lg.Problem) -> lg.Estimate:
        return lg.Estimate(float(problem.ranks.rank))


def due(step: int) -> bool:
    """What only the first process may decide."""
    return dist.get_rank() == 0 and step % 2 == 0


def trained(folder: str | None) -> tuple[list[torch.Tensor], Any]:
    """The state of a model that two processes train, each on a part of the data, and its record."""
    model, batches = pieces()
    mine = batches[:1] if dist.get_rank() == 0 else batches[1:]
    x, y = mine[0]
    replica = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(replica.parameters(), lr=0.1, momentum=0.9)
    watched: Any = contextlib.nullcontext()
    if folder is not None:
        metrics = [lg.metrics.Loss(), Odd(), lg.metrics.Sharpness(), lg.metrics.SamplingError()]
        metrics += [Missing(), Rank(), lg.metrics.InMode(Rank(), "eval")]
        given = {"metrics": metrics, "budget": None, "ranks": lg.ranks()}
        watched = lg.watch(replica, optimizer, "cross_entropy", mine, folder, due, **given)
    with warnings.catch_warnings(record=True, action="always") as caught, watched as run:
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(replica(x), y).backward()
            optimizer.step()
    told = None
    if folder is not None:
        rows = [(row["step"], row["metric"], row["value"]) for row in run.record.rows()]
        assert run.last["rank"].value == 0
        assert "missing" in run.last  # with a row that says why it is not defined
        notes, said = run.record.manifest["notes"], [str(each.message) for each in caught]
        told = rows, str(run.verdict()), run.record.status, notes, said
    return [value.clone() for value in model.state_dict().values()], told


def test_both_know_what_the_first_writes_and_training_is_the_same(on_two, tmp_path):
    plain, watched = on_two(trained, None), on_two(trained, str(tmp_path))
    for (expected, _), (state, _) in zip(plain, watched, strict=True):
        assert all(map(torch.equal, state, expected))
    (_, first), (_, second) = watched
    assert str(first[:4]) == str(second[:4])  # of which one is NaN
    rows, _, status, notes, _ = first
    record = lg.Record.open(tmp_path)
    assert str([(row["step"], row["metric"], row["value"]) for row in record.rows()]) == str(rows)
    assert status == record.status == "finished"
    assert {step for step, *_ in rows} == {0, 2}
    assert notes == [
        "unwrapped from DistributedDataParallel",
        "BatchNorm uses the statistics of each batch, of 24 examples",
        "BatchNorm uses the statistics of each batch, of 8, 16 examples",
    ]
    model, batches = pieces()
    whole = lg.Problem(model, "cross_entropy", batches, mode="train")
    values = {metric: value for step, metric, value in rows if step == 0}
    assert values["loss"] == pytest.approx(whole.loss(), rel=1e-12)
    assert values["sharpness"] == pytest.approx(float(lg.sharpness(whole)), rel=1e-9)
    failed = [row["message"] for row in record.rows() if row.get("status") == "failed"]
    assert failed == ["OtherRankError: 1 of 2 processes could not measure; the first error, on "
                      "rank 1: RuntimeError: only here"] * 2  # fmt: skip
    undefined = [row["message"] for row in record.rows() if row.get("status") == "undefined"]
    assert undefined == ["not here"] * 2
    assert ["RuntimeError: only here" in said for _, told in watched for said in told[4]] == [
        True
    ] * 2


def begun_late(folder: str) -> tuple[float, bool]:
    """The loss where two replicas are watched whose running averages differ already."""
    model, batches = pieces()
    mine = batches[:1] if dist.get_rank() == 0 else batches[1:]
    model(mine[0][0])
    before = {name: (id(buffer), buffer.clone()) for name, buffer in model.named_buffers()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    metrics = [lg.metrics.Loss(), lg.metrics.InMode(lg.metrics.Loss(), "eval")]
    given = {"every": 1, "metrics": metrics, "budget": None, "ranks": lg.ranks()}
    with lg.watch(model, optimizer, "cross_entropy", mine, folder, **given) as run:
        optimizer.step()
    left = all(
        id(buffer) == before[name][0] and torch.equal(buffer, before[name][1])
        for name, buffer in model.named_buffers()
    )
    return run.last["loss (eval)"].value, left


def test_running_averages_are_those_of_the_first(on_two, tmp_path):
    model, batches = pieces()
    model(batches[0][0])
    expected = lg.Problem(model, "cross_entropy", batches).loss()
    for found, left in on_two(begun_late, str(tmp_path)):
        assert found == pytest.approx(expected, rel=1e-12)
        assert left


def measured(folder: str) -> tuple[dict[str, float], str]:
    """A snapshot of the data of both, and the rows of a tracker."""
    model, batches = pieces()
    mine = batches[:1] if dist.get_rank() == 0 else batches[1:]
    problem = lg.Problem(model, "cross_entropy", mine, ranks=lg.ranks())
    record = lg.Record.create(f"{folder}/point", kind="measurement", ranks=lg.ranks())
    found = lg.measure(problem, record, lg.metrics.Geometry(k=1, probes=2, steps=5, matvecs=4))
    with pytest.raises(ValueError, match="of the same processes, got 1 and 2"):
        lg.Tracker(problem, [lg.metrics.Loss()], lg.Record.create(f"{folder}/{dist.get_rank()}"))
    tracked = lg.Record.create(f"{folder}/tracked", ranks=lg.ranks())
    with lg.Tracker(problem, [lg.metrics.Loss()], tracked, every=due) as tracker:
        for step in range(STEPS):
            tracker(step)
    assert tracked.measured == {(0, "loss"), (2, "loss")}
    return {name: float(each) for name, each in found.items()}, record.manifest["data"]


def test_a_snapshot_is_that_of_one_process(on_two, tmp_path):
    model, batches = pieces()
    record = lg.Record.create(tmp_path / "alone", kind="measurement")
    geometry = lg.metrics.Geometry(k=1, probes=2, steps=5, matvecs=4)
    expected = lg.measure(lg.Problem(model, "cross_entropy", batches), record, geometry)
    for found, data in on_two(measured, str(tmp_path)):
        assert found == pytest.approx({n: float(e) for n, e in expected.items()}, rel=1e-6)
        assert data == record.manifest["data"]


def of_two_minds(folder: str, asked: dict[str, tuple[Any, Any]]) -> None:
    """Two ranks of which each asks for something else."""
    model, batches = pieces()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    own = {name: each[dist.get_rank()] for name, each in asked.items()}
    settings = {"every": 1, "metrics": [lg.metrics.Loss()], "ranks": lg.ranks(), **own}
    lg.watch(model, optimizer, "cross_entropy", batches, folder, **settings)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"every": (2, 3)}, "every=, got Every(n=2) on rank 0 and Every(n=3) on rank 1"),
        ({"metrics": ([Rank()], [Odd()])}, "metrics=, got rank on rank 0 and odd on rank 1"),
        ({"on_error": ("record", "raise")}, "on_error=, got 'record' on rank 0 and 'raise' on"),
        ({"first_step": (0, 5)}, "first_step=, got 0 on rank 0 and 5 on rank 1"),
    ],
)
def test_what_would_let_one_wait_for_the_other_is_refused_before(on_two, tmp_path, asked, said):
    for error in on_two.tried(of_two_minds, str(tmp_path), asked):
        with pytest.raises(ValueError, match=re.escape(f"agree in {said}")):
            raise error


def at_other_steps(folder: str) -> None:
    model, batches = pieces()
    problem = lg.Problem(model, "cross_entropy", batches, ranks=lg.ranks())
    record = lg.Record.create(folder, ranks=lg.ranks())
    with lg.Tracker(problem, [lg.metrics.Loss()], record) as tracker:
        tracker(dist.get_rank())


def test_other_steps_are_an_error_of_both(on_two, tmp_path):
    for error in on_two.tried(at_other_steps, str(tmp_path)):
        with pytest.raises(ValueError, match="agree in the step, got 0 on rank 0 and 1 on rank 1"):
            raise error
    assert not list(lg.Record.open(tmp_path).rows())


def not_created(folder: str) -> None:
    lg.Record.create(folder, ranks=lg.ranks())


def test_a_folder_that_the_first_cannot_write_is_an_error_of_both(on_two, tmp_path):
    (tmp_path / "strange").touch()
    first, second = on_two.tried(not_created, str(tmp_path))
    assert isinstance(first, RecordError)
    assert isinstance(second, lg.OtherRankError)
    assert "holds other things (strange)" in str(second)


def created_by_each(folder: str) -> None:
    lg.Record.create(folder)


def test_a_folder_for_each_process_alone_says_how_to_share_it(on_two, tmp_path):
    (tmp_path / "strange").touch()
    for error in on_two.tried(created_by_each, str(tmp_path)):
        assert isinstance(error, RecordError)
        assert "all pass ranks=lossgeom.ranks(), and the first writes" in str(error)


def worst(size: float) -> str:
    """What is said of a loss that is not finite on one rank alone."""
    model, batches = pieces()
    x, y = batches[dist.get_rank()]
    problem = lg.Problem(model, "cross_entropy", [(x * size, y)] if dist.get_rank() else [(x, y)],
                         ranks=lg.ranks(), mode="train")  # fmt: skip
    try:
        return str(lg.sharpness(problem))
    except lg.NonFiniteError as error:
        return str(error)


def test_a_loss_that_is_not_finite_on_one_is_a_result_of_both(on_two):
    assert len(set(on_two(worst, float("nan")))) == 1


def one_has_it_all(folder: str) -> tuple[int | None, float]:
    """A run with Dropout, which needs a seed, on data that the first process has alone."""
    _, batches = pieces()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mine = [] if dist.get_rank() else batches
    given = {"metrics": [lg.metrics.Loss()], "budget": None, "ranks": lg.ranks()}
    with lg.watch(model, optimizer, "cross_entropy", mine, folder, 1, **given) as run:
        optimizer.step()
    return run.problem.seed, run.last["loss"].value


def test_a_seed_is_for_all_where_one_has_no_data(on_two, tmp_path):
    first, second = on_two(one_has_it_all, str(tmp_path))
    assert first == second
    assert first[0] == 0


def of_samplers() -> list[list[str]]:
    """The notes on data that cannot be shared evenly, of 3 examples."""
    data = TensorDataset(torch.ones(3, 1), torch.ones(3, 1))
    torch.manual_seed(0)
    model, notes = nn.Linear(1, 1), []
    for drop_last in (False, True):
        loader = DataLoader(data, 2, sampler=DistributedSampler(data, drop_last=drop_last))
        problem = lg.Problem(model, "squared_error", loader, ranks=lg.ranks())
        notes.append([note for note in problem.notes if "Sampler" in note])
    return notes


def test_what_samplers_give_twice_is_said(on_two):
    for notes in on_two(of_samplers):
        assert notes == [
            ["DistributedSampler counts examples twice, 1 in all, to give each process as many"],
            ["DistributedSampler leaves examples out, 1 in all, to give each process as many"],
        ]
