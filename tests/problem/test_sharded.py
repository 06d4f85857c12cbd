"""Models that fully_shard has spread over two processes, measured in copies with all parameters."""

import functools
import io
import json
import re
import threading
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    FSDPModule,
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

import lossgeom as lg
from lossgeom.problem.live import flat_gradient, live_theta
from lossgeom.problem.sharded import how_else, reshard

STEPS = 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.mlp = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(x)


class Transformer(nn.Module):
    """Odd numbers of rows, a tied head, a parameter that is held fixed, and one of the root."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 6)
        self.position = nn.Parameter(torch.randn(3, 6) / 10)
        self.scale = nn.Parameter(torch.rand(1, 6) + 0.5, requires_grad=False)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(6, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        x = self.embedding(x) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head((self.scale * x).flatten(0, 1))


class Normed(nn.Module):
    """Batch statistics and running averages, and a layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.norm(torch.tanh(self.again(torch.tanh(self.first(x))))))


def transformer() -> tuple[nn.Module, list[Any]]:
    torch.manual_seed(0)
    shapes = [(n, (n, 3), (3 * n,)) for n in (4, 1, 2)]
    batches = [
        (torch.randint(7, inputs), torch.randint(7, targets)) for _, inputs, targets in shapes
    ]
    return Transformer().double(), batches


def normed() -> tuple[nn.Module, list[Any]]:
    torch.manual_seed(0)
    batches = [(torch.randn(n, 4).double(), torch.randint(3, (n,))) for n in (9, 3, 4)]
    return Normed().double(), batches


def share(batches: list[Any]) -> list[Any]:
    """One batch on rank 0, and the two others on rank 1."""
    return batches[:1] if lg.ranks().rank == 0 else batches[1:]


def measured(model: nn.Module, batches: list[Any], **settings: Any) -> lg.Problem:
    return lg.Problem(model, "cross_entropy", batches, mode="train", **settings)


def shard(
    model: nn.Module, checkpointed: bool = False, grouped: bool = False, **settings: Any
) -> nn.Module:
    if grouped:
        fully_shard([model.embedding, model.head], **settings)
    blocks = getattr(model, "blocks", [])
    for place, block in enumerate(blocks):
        blocks[place] = fully_shard(
            checkpoint_wrapper(block) if checkpointed else block, **settings
        )
    return fully_shard(model, **settings)


def state_of(model: nn.Module) -> list[Any]:
    """All there is in a sharded model, to the last bit."""
    hooks = [
        (name, len(value))
        for part in model.modules()
        for name, value in vars(part).items()
        if name.endswith("hooks")
    ]
    flags = [
        (
            part.training,
            [group._training_state for group in part._get_fsdp_state()._fsdp_param_groups],
        )
        for part in model.modules()
        if isinstance(part, FSDPModule)
    ]
    numbers = [bits(p) for p in (*model.parameters(), *model.buffers())]
    gradients = [None if p.grad is None else bits(p.grad) for p in model.parameters()]
    return [hooks, flags, numbers, gradients, torch.get_rng_state().tolist()]


def bits(tensor: torch.Tensor) -> tuple[str, bytes]:
    own = tensor.detach().to_local() if isinstance(tensor, DTensor) else tensor.detach()
    return type(tensor).__name__, own.numpy().tobytes()


# Called on both processes


def sharpness_of(
    made: Any, settings: dict[str, Any]
) -> tuple[lg.Estimate, lg.Estimate, bool, bool]:
    """Without and with shards, and whether all of the model is left alone and all notes are."""
    model, batches = made()
    plain = lg.sharpness(measured(model, batches))
    shard(model, **settings)
    with torch.no_grad():  # after which a root keeps its gathered parameters
        model.eval()(batches[0][0])
        reshard(model.train())
        before = state_of(model)
        model.eval()(batches[0][0])
    problem = measured(model.train(), share(batches), ranks=lg.ranks())
    found = lg.sharpness(problem)
    said = any("gathered from all processes" in note for note in problem.notes)
    return plain, found, state_of(model) == before, said


BFLOAT16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


@pytest.mark.parametrize(
    ("made", "settings"),
    [
        (transformer, {}),
        (transformer, {"reshard_after_forward": False}),
        (transformer, {"reshard_after_forward": True, "mp_policy": BFLOAT16}),
        (transformer, {"checkpointed": True}),
        (transformer, {"grouped": True}),
        (normed, {}),
    ],
    ids=["transformer", "never resharded", "bfloat16", "checkpointed", "grouped", "batch norm"],
)
def test_sharpness_is_that_of_one_process(on_two, made, settings):
    for plain, found, alone, said in on_two(sharpness_of, made, settings):
        assert abs(found.value - plain.value) <= 1e-12 * abs(plain.value)
        assert found.matvecs == plain.matvecs
        assert alone
        assert said


def trained(folder: str | None) -> tuple[list[Any], list[Any]]:
    """The bits of a model after some steps, watched in a folder or not, and what was measured."""
    model, batches = transformer()
    optimizer = torch.optim.Adam(shard(model).parameters(), lr=0.01)
    watched = (model, optimizer, "cross_entropy", share(batches), folder, 1)
    settings = {"budget": None, "on_error": "raise", "ranks": lg.ranks()}
    inputs, targets = share(batches)[0]
    with lg.watch(*watched, **settings) if folder else nullcontext() as run:
        for _ in range(STEPS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
    rows = run.record.rows() if run else []
    return [*map(bits, model.parameters())], [(row["metric"], row["status"]) for row in rows]


def test_training_that_is_watched_stays_the_same(on_two, tmp_path):
    (own, _), _ = on_two(trained, None)
    (watched, rows), _ = on_two(trained, str(tmp_path / "run"))
    assert watched == own
    assert ("edge_ratio", "ok") in rows


def followed() -> list[tuple[float, float]]:
    """What a step changes, with whole and with sharded parameters."""
    model, batches = transformer()
    values = []
    for problem_of in (measured, functools.partial(measured, ranks=lg.ranks())):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        start = problem_of(model, batches if len(values) == 0 else share(batches))
        model.train()
        for inputs, targets in batches:  # of which all processes have all gradients
            (nn.functional.cross_entropy(model(inputs), targets) / 3).backward()
        gradient = flat_gradient(
            start, {id(p): p.grad for p in model.parameters() if p.requires_grad}
        )
        optimizer.step()
        after = start.refreshed()
        matrix = lg.PreconditionedHessian(after, optimizer)
        top = lg.top_eigenpairs(matrix, 1, seed=0).values[0]
        values.append([after.loss(), (after.theta - start.theta).norm(), gradient.norm(), top])
        assert torch.equal(live_theta(after), after.theta)
        model = shard(transformer()[0])
    return [(float(a), float(b)) for a, b in zip(*values, strict=True)]


def test_steps_gradients_and_preconditioners_are_gathered(on_two):
    for pairs in on_two(followed):
        for plain, sharded in pairs:
            assert abs(plain - sharded) <= 1e-10 * abs(plain)


# What is refused


def refused(spread: Any, alone: bool) -> Exception | None:
    torch.manual_seed(0)
    model = spread(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)))
    batches = [(torch.ones(2, 4), torch.zeros(2, dtype=torch.long))]
    try:
        measured(model, batches, **({} if alone else {"ranks": lg.ranks()}))
    except Exception as error:
        return error
    return None


def one_stage(model: nn.Module) -> nn.Module:
    return model[2 * torch.distributed.get_rank() :]


def by_columns(model: nn.Module) -> nn.Module:
    return parallelize_module(model, init_device_mesh("cpu", (2,)), {"0": ColwiseParallel()})


def over_two_dimensions(model: nn.Module) -> nn.Module:
    return fully_shard(
        model, mesh=init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard"))
    )


def by_the_older_class(model: nn.Module) -> nn.Module:
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


def with_a_lock(model: nn.Module) -> nn.Module:
    model.lock = threading.Lock()
    return fully_shard(model)


def over_one(model: nn.Module) -> nn.Module:
    groups = [torch.distributed.new_group([rank]) for rank in range(2)]
    mine = groups[torch.distributed.get_rank()]
    mesh = torch.distributed.DeviceMesh.from_group(mine, "cpu")
    return fully_shard(model, mesh=mesh)


@pytest.mark.parametrize(
    ("spread", "alone", "kind", "text"),
    [
        (
            fully_shard,
            True,
            ValueError,
            r"spread over 2 processes, and this one measures alone; let",
        ),
        (over_one, False, ValueError, "spread over 1 processes, and 2 share the data"),
        (one_stage, False, ValueError, "agree in the parameters' names and shapes"),
        (by_columns, False, TypeError, "0.weight is spread by tensor parallelism; a model can be"),
        (over_two_dimensions, False, TypeError, r"a mesh of 2 dimensions \(HSDP, or tensor"),
        (with_a_lock, False, ValueError, "could not be copied without fully_shard .*lock.*; one"),
        (by_the_older_class, False, TypeError, "FullyShardedDataParallel flattens parameters"),
    ],
)
def test_refuses(on_two, spread, alone, kind, text):
    for error in on_two.tried(refused, spread, alone):
        with pytest.raises(kind, match=text):
            raise error


def test_refuses_what_is_offloaded():
    gpus = SimpleNamespace(ndim=1, device_type="cuda")
    assert how_else(gpus, "cpu", by_fsdp=True) == "offloaded from cuda to cpu"
    assert how_else(gpus, "cuda", by_fsdp=True) is None


def page(folder):
    """What the page prints, with the processes that there are."""
    text = (Path(lg.__file__).parents[2] / "docs/how-to/large-models.md").read_text()
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    printed = io.StringIO()
    with mock.patch("torch.distributed.init_process_group"), redirect_stdout(printed):
        exec(code.replace("runs/", f"{folder}/"), {})
    return printed.getvalue()


def test_the_page_ends_with_its_numbers(on_two, tmp_path):
    first, second = on_two(page, str(tmp_path))
    assert second == ""
    assert "at the edge since step 40" in first
    sharpness, multiple = re.search(r"sharpness ([\d.]+), critical step ([\d.]+)", first).groups()
    assert abs(float(sharpness) / 3.89 - 1) < 0.1
    assert 0.9 < float(multiple) < 1.1
    assert all(0.8 < s < 1.2 for s in json.loads(first.splitlines()[-1]))
