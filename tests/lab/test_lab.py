import gzip
import struct

import numpy as np
import pytest
import torch
from torch import nn

from lossgeom.lab.datasets import DATASETS, cifar10, digits, mnist
from lossgeom.lab.models import MODELS, lenet5, mlp, vgg11
from lossgeom.lab.training import TRAINING, batch_of_step, gradient_descent, optimize, sgd
from tests.lab.files import write_cifar10


@pytest.mark.quick
def test_digits():
    data = digits(examples=500, seed=3)
    x, y = data.train
    assert x.shape == (500, 64)
    assert data.test[0].shape == (1297, 64)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean(0), torch.zeros(64), rtol=0, atol=1e-6)
    assert x.abs().max() <= 1
    assert set(y.tolist()) == set(range(data.classes))
    plain = digits(examples=500, seed=3, centred=False).train[0]
    assert (plain.min(), plain.max()) == (-1, 1)
    torch.testing.assert_close((plain - plain.mean(0)) / 2, x)
    pixels = digits(examples=500, seed=3, centred=False, lowest=0.0).train[0]
    torch.testing.assert_close(pixels, (plain + 1) / 2)
    for bad in (0, 1797):
        with pytest.raises(ValueError, match="expected 1 to 1796 digits"):
            digits(bad)


def test_cifar10(tmp_path):
    write_cifar10(tmp_path / "data", images=4)
    data = cifar10(examples=20, folder=tmp_path / "data")
    x, y = data.train
    assert x.shape == (20, 3, 32, 32)
    assert data.test[0].shape == (4, 3, 32, 32)
    assert sorted(y.tolist()) == sorted([0, 1, 2, 3] * 5)
    torch.testing.assert_close(x.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(x.std(dim=(0, 2, 3)), torch.ones(3))
    first = x[y == 0, 0, 0, 0]
    assert (first == x[:, 0].max()).all()


def test_some_classes_of_cifar10(tmp_path):
    write_cifar10(tmp_path / "data", images=12)  # of the classes 0 to 9, then 0 and 1
    whole = cifar10(60, folder=tmp_path / "data")
    two = cifar10(15, folder=tmp_path / "data", classes=(9, 0))
    assert (whole.classes, two.classes) == (10, 2)
    assert sorted(two.train[1].tolist()) == [0] * 5 + [1] * 10
    assert two.test[1].tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="expected 1 to 15 images"):
        cifar10(16, folder=tmp_path / "data", classes=(9, 0))


def test_cifar10_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected data_batch_.*get and unpack https"):
        cifar10(folder=tmp_path)
    write_cifar10(tmp_path / "data", images=4)
    with pytest.raises(ValueError, match="expected 1 to 20 images"):
        cifar10(21, folder=tmp_path / "data")
    (tmp_path / "data/data_batch_3.bin").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match=r"data_batch_3\.bin is damaged"):
        cifar10(1, folder=tmp_path / "data")


def write_mnist(folder, images, packed=False):
    """Files in MNIST's format with few images, whose first pixel is 255 for the first of them."""
    folder.mkdir(exist_ok=True)
    for seed, (part, n) in enumerate((("train", images), ("t10k", 5))):
        pixels = np.random.default_rng(seed).integers(0, 255, (n, 28, 28), np.uint8)
        pixels[0, 0, 0] = 255
        labels = (np.arange(n) % 10).astype(np.uint8)
        for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
            content = struct.pack(f">{1 + array.ndim}I", 2048 + array.ndim, *array.shape)
            content += array.tobytes()
            name = f"{part}-{kind}-ubyte" + (".gz" if packed else "")
            (folder / name).write_bytes(gzip.compress(content) if packed else content)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist(tmp_path, packed):
    write_mnist(tmp_path, images=12, packed=packed)
    data = mnist(examples=12, folder=tmp_path, centred=False)
    x, y = data.train
    assert x.shape == (12, 1, 28, 28)
    assert sorted(y.tolist()) == [0, 0, 1, 1, *range(2, 10)]
    first = x[(x == 1).flatten(1).any(1)]
    assert first[:, 0, 0, 0].tolist() == [1.0]
    written = np.random.default_rng(1).integers(0, 255, (5, 28, 28), np.uint8)[1:] / 255
    torch.testing.assert_close(data.test[0][1:, 0], torch.tensor(written).float())
    assert data.test[1].tolist() == [0, 1, 2, 3, 4]
    scaled = mnist(examples=12, folder=tmp_path)
    assert scaled.train[0].mean().abs() < 1e-5
    torch.testing.assert_close(scaled.train[0].std(), torch.tensor(1.0))
    torch.testing.assert_close(scaled.test[0], (data.test[0] - x.mean()) / x.std())


def test_mnist_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected train-images-idx3-ubyte or .*\.gz in"):
        mnist(folder=tmp_path)
    write_mnist(tmp_path, images=12)
    with pytest.raises(ValueError, match="expected 1 to 12 images"):
        mnist(13, folder=tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    content = labels.read_bytes()
    for bad, message in (
        (content[:7], r"begin with 2049 and a shape, .*got 2049, \(0,\) and -1 bytes"),
        (content[:-1], r"got 2049, \(12,\) and 11 bytes"),
        ((tmp_path / "train-images-idx3-ubyte").read_bytes(), r"got 2051, \(12,\) and 9416 bytes"),
        (struct.pack(">2I", 2049, 11) + content[9:], r"\(12, 28, 28\) with 11 labels, of which"),
        (content[:-1] + b"\x0a", r"a label from 0 to 9 each, .* 9, 10\]"),
    ):
        labels.write_bytes(bad)
        with pytest.raises(ValueError, match=message):
            mnist(1, folder=tmp_path)
    labels.unlink()
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(content)[:-9])
    with pytest.raises(ValueError, match=r"ubyte\.gz is damaged: "):
        mnist(1, folder=tmp_path)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_lenet5(shape):
    model = lenet5(shape, outputs=7, seed=1)
    x = torch.rand(2, *shape)
    assert model(x).shape == (2, 7)
    torch.testing.assert_close(model(x.flatten(1)), model(x))
    weights = 25 * 6 * shape[0] + 25 * 6 * 16 + 400 * 120 + 120 * 84 + 84 * 7
    assert sum(p.numel() for p in model.parameters() if p.ndim > 1) == weights
    seen = model[:4](x)
    assert seen.shape == (2, shape[0], 32, 32)
    if shape[1] == 28:
        assert torch.equal(seen[:, :, 2:-2, 2:-2], x)
        assert seen.sum() == pytest.approx(x.sum().item(), rel=1e-5)
    else:
        times = 32 // shape[1]
        assert torch.equal(seen, x.repeat_interleave(times, 2).repeat_interleave(times, 3))


def test_lenet5_gets_square_images_that_are_small():
    for shape in ((1, 33, 33), (1, 8, 9)):
        with pytest.raises(ValueError, match="expected square images of at most 32 x 32 pixels"):
            lenet5(shape)


def test_vgg11():
    model = vgg11(outputs=7, width=0.25, seed=1)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert sum(isinstance(module, nn.Conv2d) for module in model) == 8
    assert sum(p.numel() for p in vgg11().parameters()) == 9_225_610
    assert torch.equal(model[0].weight, vgg11(7, 0.25, seed=1)[0].weight)


@pytest.mark.quick
def test_mlp():
    state = torch.get_rng_state()
    model = mlp(64, 10, widths=[32, 16], activation="tanh", seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [tuple(p.shape) for p in model.parameters()] == [
        (32, 64), (32,), (16, 32), (16,), (10, 16), (10,),
    ]  # fmt: skip
    assert isinstance(model[1], nn.Tanh)
    assert torch.equal(model[0].weight, mlp(64, 10, [32, 16], "tanh", seed=1)[0].weight)
    assert not torch.equal(model[0].weight, mlp(64, 10, [32, 16], "tanh", seed=2)[0].weight)
    assert len(mlp(3, 2, widths=[])) == 1
    with pytest.raises(ValueError, match=r"one of elu, .* relu, sine or tanh, got 'cosine'"):
        mlp(3, 2, activation="cosine")
    with pytest.raises(ValueError, match="expected widths of at least 1"):
        mlp(3, 2, widths=[0])


@pytest.mark.quick
def test_gradient_descent_is_torchs_sgd_on_the_full_batch():
    x, y = torch.randn(10, 4), torch.randint(3, (10,))
    ours, theirs = mlp(4, 3, [5], seed=0), mlp(4, 3, [5], seed=0)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.3)
    batches = [(x[:7], y[:7]), (x[7:], y[7:])]
    for _ in gradient_descent(ours, "cross_entropy", batches, lr=0.3, steps=20):
        pass
    for _ in range(20):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(x), y).backward()
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def epochs(batch_size, steps, seed=0, n=10, sampling="reshuffling"):
    """The examples of the batch of every step, read off the gradients that they make."""
    model = nn.Linear(n, 1, bias=False)
    steps_taken = sgd(
        model, "squared_error", (torch.eye(n), torch.ones(n, 1) * 1e3), lr=1.0,
        batch_size=batch_size, steps=steps, seed=seed, sampling=sampling,
    )  # fmt: skip
    seen, before = [], None
    for _ in steps_taken:
        now = model.weight.detach().clone()
        if before is not None:
            seen.append(tuple((now - before).flatten().nonzero().flatten().tolist()))
        before = now
    return seen


def test_sgd_goes_through_all_examples_in_every_epoch_in_another_order():
    seen = epochs(batch_size=5, steps=6)
    assert [len(batch) for batch in seen] == [5] * 6
    for first in (0, 2, 4):
        assert sorted(seen[first] + seen[first + 1]) == list(range(10))
    assert len({frozenset(batch) for batch in seen}) > 2
    assert epochs(batch_size=5, steps=6) == seen
    assert epochs(batch_size=5, steps=6, seed=1) != seen


def test_the_last_batch_of_an_epoch_of_sgd_may_be_smaller():
    seen = epochs(batch_size=4, steps=3)
    assert [len(batch) for batch in seen] == [4, 4, 2]
    assert sorted(sum(seen, ())) == list(range(10))


def test_sgd_is_torchs_sgd_on_the_same_batches():
    x, y = torch.randn(10, 4), torch.randn(10, 3)
    ours, theirs = mlp(4, 3, [5], seed=0), mlp(4, 3, [5], seed=0)
    state = torch.get_rng_state()
    for _ in sgd(ours, nn.MSELoss(), (x, y), lr=0.3, batch_size=4, steps=7, seed=5):
        pass
    assert torch.equal(torch.get_rng_state(), state)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.3)
    for epoch in range(3):
        order = np.random.default_rng([5, epoch]).permutation(10)
        for batch in (order[:4], order[4:8], order[8:])[: 7 - 3 * epoch]:
            optimizer.zero_grad()
            nn.functional.mse_loss(theirs(x[batch]), y[batch]).backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_batches_that_are_independent_have_different_examples_each():
    seen = epochs(batch_size=5, steps=100, sampling="without replacement")
    assert all(len(set(batch)) == 5 for batch in seen)
    assert any(set(a) & set(b) for a, b in zip(seen[::2], seen[1::2], strict=True))
    counts = np.bincount(np.concatenate(seen), minlength=10)
    assert counts.min() > 30  # 50 on average, with a standard deviation of 5
    assert counts.max() < 70
    assert epochs(batch_size=5, steps=100, sampling="without replacement") == seen
    assert epochs(batch_size=5, steps=3, seed=1, sampling="without replacement") != seen[:3]
    assert epochs(batch_size=10, steps=2, sampling="without replacement") == [tuple(range(10))] * 2


def test_independent_batches_depend_on_the_step_alone():
    batch_of = batch_of_step((torch.eye(9), torch.zeros(9, 1)), 2, seed=3,
                             sampling="without replacement")  # fmt: skip
    late, early = batch_of(700)[0][0], batch_of(3)[0][0]
    assert torch.equal(batch_of(700)[0][0], late)
    assert torch.equal(batch_of(3)[0][0], early)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_optimize_is_a_loop_with_these_optimizers(batch_size):
    """One for the matrices and one for all else, on the full batch or on batches."""
    examples = torch.randn(10, 4), torch.randn(10, 3)
    ours, theirs = mlp(4, 3, [5], seed=0), mlp(4, 3, [5], seed=0)

    def made(model):
        matrices = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim != 2]
        return [torch.optim.Adam(matrices, 0.01), torch.optim.SGD(others, 0.1, 0.9)]

    batches = [examples] if batch_size is None else batch_of_step(examples, batch_size, seed=5)
    state = torch.get_rng_state()
    for _ in optimize(ours, nn.MSELoss(), batches, optimizers=made(ours), steps=7):
        assert all(p.grad is None for p in ours.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    optimizers = made(theirs)
    for step in range(7):
        (batch,) = batches if batch_size is None else batches(step)
        for optimizer in optimizers:
            optimizer.zero_grad()
        nn.functional.mse_loss(theirs(batch[0]), batch[1]).backward()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_optimize_leaves_what_no_optimizer_has():
    model = mlp(4, 3, [5], seed=0)
    optimizer = torch.optim.SGD(model[0].parameters(), 0.1)
    data = [(torch.randn(6, 4), torch.randn(6, 3))]
    for _ in optimize(model, "squared_error", data, optimizers=[optimizer], steps=3):
        pass
    before = mlp(4, 3, [5], seed=0)
    assert torch.equal(model[2].weight, before[2].weight)
    assert not torch.equal(model[0].weight, before[0].weight)


def test_optimize_errors():
    with pytest.raises(ValueError, match="expected one optimiser or more, got none"):
        optimize(nn.Linear(1, 1), "squared_error", [], optimizers=[], steps=1)


def test_sgd_on_the_full_batch_is_gradient_descent():
    x, y = torch.randn(10, 4), torch.randn(10, 3)
    ours, theirs = mlp(4, 3, [5], seed=0), mlp(4, 3, [5], seed=0)
    for _ in sgd(ours, "squared_error", (x, y), lr=0.3, batch_size=10, steps=20, seed=0):
        pass
    for _ in gradient_descent(theirs, "squared_error", [(x, y)], lr=0.3, steps=20):
        pass
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_sgd_errors():
    model, data = nn.Linear(1, 1), (torch.ones(3, 1), torch.zeros(3, 1))
    good = {"lr": 1.0, "batch_size": 2, "steps": 1, "seed": 0}
    for bad, message in (
        ({"batch_size": 4}, "expected a batch_size of 1 to 3 examples, got 4"),
        ({"batch_size": 0}, "expected a batch_size of 1 to 3"),
        ({"sampling": "all"}, "expected sampling to be reshuffling or without replacement, got "),
    ):
        with pytest.raises(ValueError, match=message):
            next(sgd(model, "squared_error", data, **{**good, **bad}))


@pytest.mark.quick
def test_lists():
    assert DATASETS["digits"] is digits
    assert MODELS["mlp"] is mlp
    assert TRAINING["gradient_descent"] is gradient_descent
    assert TRAINING["optimize"] is optimize
    assert TRAINING["sgd"] is sgd
