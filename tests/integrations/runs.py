"""The same small run for every framework, and its plain loop."""

import gc
import math
import tracemalloc
from contextlib import nullcontext

import torch
from torch import nn

import lossgeom as lg

STEPS, RATE = 6, 0.3
RATES = [RATE * (1 - step / (STEPS - 1)) for step in range(STEPS)]  # the last one is 0


class Classifier(nn.Module):
    """As models of Hugging Face are: it returns its loss where it is given labels."""

    def __init__(self, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 3)
        )

    def forward(self, x, labels=None):
        logits = self.layers(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def examples(n=24, seed=1):
    generator = torch.Generator().manual_seed(seed)
    xs, ys = torch.randn(n, 4, generator=generator), torch.randint(3, (n,), generator=generator)
    return [{"x": x, "labels": y} for x, y in zip(xs, ys, strict=True)]


def loader(size=8):
    """Three batches, always the same."""
    return torch.utils.data.DataLoader(examples(), batch_size=size)


PROBE = [next(iter(torch.utils.data.DataLoader(examples(16, seed=2), batch_size=16)))]
WATCHED = {"loss": "cross_entropy", "batches": PROBE, "every": 1, "budget": None}
# What is measured without a share of time; everywhere else, two metrics are enough.
FEW = {**WATCHED, "metrics": [lg.metrics.Loss(), lg.metrics.Sharpness()]}


def optimizer_of(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: max(1 - step / (STEPS - 1), 0)
    )
    return optimizer, schedule


def batches(steps=STEPS):
    """Those of training, one after another."""
    each = list(loader())
    return [each[step % len(each)] for step in range(steps)]


def plain_loop(model, optimizer, schedule, rounded=False):
    for batch in batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if rounded else nullcontext():
            loss = model(**batch)["loss"]
        loss.backward()
        optimizer.step()
        schedule.step()


def plain_run(folder, rounded=False):
    """The record and the model of the plain loop."""
    model = Classifier()
    optimizer, schedule = optimizer_of(model)
    with lg.watch(model, optimizer, record=folder, **WATCHED) as run:
        plain_loop(model, optimizer, schedule, rounded)
    return run.record, model


def told(record):
    """What a record says of a run, but for seconds."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in record.rows()]
    facts = ("status", "watched", "loss", "mode", "parameters", "thresholds", "seed")
    return repr(rows), {fact: record.manifest.get(fact) for fact in facts}


def bits(module):
    return [value.numpy().tobytes() for value in module.state_dict().values()]


def assert_thresholds(record):
    """Of each row that is compared with 2 / lr, at the rate that its step was made with."""
    rows = [row for row in record.rows() if row["metric"] == "sharpness"]
    assert [row["step"] for row in rows] == list(range(STEPS))
    for row, rate in zip(rows, RATES, strict=True):
        assert math.isclose(row["lr"], rate, abs_tol=1e-12)
        assert row["threshold"] == (2 / row["lr"] if row["lr"] else math.inf)


class Broken:
    """A metric that raises an error."""

    name = "broken"

    def __call__(self, problem):
        raise ArithmeticError("no")


class Heap:
    """A metric, always 0, that looks at what the process holds: tensors, and what steps leave."""

    name, looks = "heap", (500, 2498, 2999)  # with the same place among three batches

    def __init__(self):
        self.step, self.tensors, self.left = -1, [], None

    def __call__(self, problem):
        self.step += 1
        if self.step in self.looks:
            self._look()
        return lg.Estimate(0.0)

    def _look(self):
        gc.collect()
        self.tensors.append(sum(issubclass(type(each), torch.Tensor) for each in gc.get_objects()))
        if self.step == self.looks[1]:
            tracemalloc.start()  # which makes all slower from here on
        elif self.step == self.looks[2]:
            self.left = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()

    def check(self):
        """The record's index of what it holds grows by some bytes a step, and nothing else."""
        assert self.tensors[0] >= max(self.tensors[1:])
        assert self.left < 2000 * (self.looks[2] - self.looks[1])


def of_memory(heap):
    return {**FEW, "metrics": [lg.metrics.Loss(), heap], "full_batch": False}
