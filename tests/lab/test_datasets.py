"""What options do, and files that are damaged, unsafe, or not the published ones."""

import hashlib
import os
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from lossgeom.lab.datasets import (
    _cifar,
    _idx,
    chebyshev,
    cifar10,
    cifar100,
    digits,
    fashion_mnist,
    hugging_face,
    manifold,
    mnist,
    random_labels,
    two_moons,
)
from lossgeom.lab.datasets._dataset import Labelled, Options
from lossgeom.lab.generators import tanh_surface
from tests.lab.files import FakeDatasets, write_batch, write_cifar10, write_cifar100, write_images
from tests.lab.test_lab import write_mnist


def test_classes_to_keep_and_as_many_of_each():
    kept = (7, 1, 4)
    whole = digits(1000, centred=False)
    x, y = (torch.cat(part) for part in zip(whole.train, whole.test, strict=True))
    label = {image.numpy().tobytes(): int(k) for image, k in zip(x, y, strict=True)}
    data = digits(60, seed=3, classes=kept, balanced=True, centred=False)
    assert data.classes == 3
    assert data.train[1].bincount().tolist() == [20, 20, 20]
    assert len(data.test[1]) == torch.isin(y, torch.tensor(kept)).sum() - 60
    for images, places in (data.train, data.test):
        for image, place in zip(images, places, strict=True):
            assert label[image.numpy().tobytes()] == kept[place]
    centred = digits(60, seed=3, classes=kept, balanced=True).train[0]
    torch.testing.assert_close(centred.mean(0), torch.zeros(64), rtol=0, atol=1e-6)


def test_the_last_examples_stay_for_testing():
    """As many of each class come first out of a random order, and the others after them."""
    data = digits(20, seed=1, balanced=True)
    assert len(data.test[1]) == 1777
    assert data.train[1].bincount().tolist() == [2] * 10


@pytest.mark.parametrize("targets", ["labels", "one_hot", "signs"])
def test_label_noise_is_an_exact_share_and_smaller_ones_are_part_of_it(targets):
    clean, some, more, all_ = (
        digits(1000, seed=5, label_noise=p, targets=targets).train[1] for p in (0, 0.2, 0.5, 1)
    )
    if targets == "one_hot":
        clean, some, more, all_ = (y.argmax(1) for y in (clean, some, more, all_))
    differ = some.flatten() != clean.flatten()
    same = 0.5 if targets == "signs" else 0.1  # of what is drawn, as it was
    assert differ.sum().item() == pytest.approx((1 - same) * 200, abs=4 * (same * 200) ** 0.5)
    assert torch.equal(more[differ], some[differ])
    assert (all_ == clean).float().mean().item() == pytest.approx(same, abs=0.07)
    assert digits(1000, seed=5, label_noise=0.2).scaling.endswith(
        "; 200 of 1000 labels to train on drawn at random"
    )


def test_label_noise_is_of_the_seed_and_of_training_alone():
    first, again, other = (digits(1000, 5, label_noise=0.5), digits(1000, 5, label_noise=0.5),
                           digits(1000, 6, label_noise=0.5))  # fmt: skip
    assert torch.equal(first.train[1], again.train[1])
    assert not torch.equal(first.train[1], other.train[1])
    assert torch.equal(first.test[1], digits(1000, 5).test[1])
    assert torch.equal(first.train[0], digits(1000, 5).train[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": (3, 10)}, r"expected classes from 0 to 9, got \(3, 10\)"),
        ({"classes": (3, 3)}, r"expected different classes, got \(3, 3\)"),
        ({"balanced": True}, "examples of each of 10 classes, of which there are 174 or more, got"),
        ({"label_noise": -0.1}, "expected label_noise from 0 to 1, got -0.1"),
        ({"input_scale": 0.0}, "expected input_scale > 0, got 0.0"),
        ({"target_scale": 2.0}, "the targets one_hot or signs for a target_scale, got labels"),
        ({"targets": "probits"}, "targets to be labels, one_hot or signs, got 'probits'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        digits(105, **options)


def test_options_that_there_are_not():
    with pytest.raises(TypeError, match="unexpected keyword argument 'balance'"):
        digits(100, balance=True)


def test_cifar100(tmp_path):
    write_cifar100(tmp_path / "data", images=120)
    data = cifar100(120, folder=tmp_path / "data", centred=False)
    assert data.classes == 100
    assert sorted(data.train[1].tolist()) == sorted([*range(100), *range(20)])
    records = np.fromfile(tmp_path / "data/test.bin", np.uint8).reshape(5, 3074)
    pixels = torch.tensor(records[:, 2:]).view(5, 3, 32, 32).float() / 255
    assert torch.equal(data.test[0], pixels)
    assert data.test[1].tolist() == [0, 1, 2, 3, 4]
    records[0, 1] = 100
    records.tofile(tmp_path / "data/test.bin")
    with pytest.raises(
        ValueError, match=r"test\.bin is damaged: expected labels from 0 to 99, got 1"
    ):
        cifar100(120, folder=tmp_path / "data")


def written(folder, names, name):
    """Batches of the Python version, and what they hold."""
    held = {}
    for seed, each in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (4, 3072), np.uint8)
        held[each] = pixels, [3, 1, 4, 1]
        write_batch(folder / each, *held[each], name)
    return held


@pytest.mark.parametrize(
    ("load", "names", "name"),
    [
        (cifar10, [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], "labels"),
        (cifar100, ["train", "test"], "fine_labels"),
    ],
)
def test_the_python_version(tmp_path, load, names, name):
    held = written(tmp_path, names, name)
    n = 4 * (len(names) - 1)
    data = load(n, folder=tmp_path, centred=False)
    pixels, labels = held[names[-1]]
    assert torch.equal(data.test[0], torch.tensor(pixels).view(4, 3, 32, 32).float() / 255)
    assert data.test[1].tolist() == labels
    rows = {row.numpy().tobytes() for row in data.train[0].flatten(1)}
    assert rows == {
        (torch.tensor(row).float() / 255).numpy().tobytes()
        for each in names[:-1]
        for row in held[each][0]
    }


def test_pickles_of_todays_numpy(tmp_path):
    written(tmp_path, ["train", "test"], "fine_labels")
    pixels = np.zeros((2, 3072), np.uint8)
    (tmp_path / "test").write_bytes(pickle.dumps({"data": pixels, "fine_labels": [5, 6]}, 4))
    assert cifar100(4, folder=tmp_path).test[1].tolist() == [5, 6]


class Called:
    """Calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "call",
    [
        lambda trace: Called(os.mkdir, trace),
        lambda trace: Called(eval, f"__import__('os').mkdir({trace!r})"),
        lambda trace: Called(getattr, np.ndarray, "tofile"),
        lambda trace: Called(np.fromfile, trace),
    ],
)
def test_a_pickle_cannot_call_anything(tmp_path, call, protocol):
    written(tmp_path, ["train", "test"], "fine_labels")
    trace = str(tmp_path / "trace")
    content = {"fine_labels": [1], "data": call(trace)}
    (tmp_path / "train").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(ValueError, match=r"it names .*, and only arrays are read"):
        cifar100(1, folder=tmp_path)
    assert not os.path.exists(trace)


class Forged:
    """An array whose bytes NumPy would take for the address of an object."""

    def __reduce__(self):
        make, arguments, _ = np.zeros(1).__reduce__()
        return make, arguments, (1, (1,), ForgedType(), False, b"\x01" * 8)


class ForgedType:
    """A type that says of its objects that they are none."""

    def __reduce__(self):
        fields = {"data": (np.dtype("O"), 0)}
        return np.dtype, ("V8", False, True), (3, "|", None, ("data",), fields, 8, 1, 0)


def test_a_pickle_cannot_forge_objects(tmp_path):
    written(tmp_path, ["train", "test"], "fine_labels")
    content = {"fine_labels": [1], "data": Forged()}
    (tmp_path / "train").write_bytes(pickle.dumps(content, 4))
    with pytest.raises(ValueError, match="expected an array of bytes, got one of the type V8"):
        cifar100(1, folder=tmp_path)


def test_names_with_dots_and_extensions_are_not_followed(tmp_path):
    written(tmp_path, ["train", "test"], "fine_labels")
    for content in (
        b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",  # STACK_GLOBAL
        b"cnumpy\nndarray.__class__\n.",
        b"Pid\n.",  # a persistent object
        b"\x82\x01.",  # an extension
    ):
        (tmp_path / "train").write_bytes(content)
        with pytest.raises(ValueError, match="train is damaged, or no batch of CIFAR"):
            cifar100(1, folder=tmp_path)


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"fine_labels": [1]}, "no batch of CIFAR: 'data'"),
        ([1, 2], "no batch of CIFAR: list indices"),
        ({"data": "abc", "fine_labels": [1]}, "got None and 1"),
        ({"data": np.zeros((2, 3072), np.uint8), "fine_labels": [1]}, r"got \(2, 3072\) and 1"),
        (
            {"data": np.zeros((1, 3072)), "fine_labels": [1]},
            "array of bytes, got one of the type f8",
        ),
        ({"data": np.zeros((1, 3072), np.uint8), "fine_labels": ["a"]}, r"and \['a'\]"),
        (
            {"data": np.zeros((1, 3072), np.uint8), "fine_labels": [-1]},
            "labels from 0 to 99, got -",
        ),
    ],
)
def test_pickles_of_something_else(tmp_path, held, message):
    written(tmp_path, ["train", "test"], "fine_labels")
    (tmp_path / "train").write_bytes(pickle.dumps(held, 4))
    with pytest.raises(ValueError, match=message):
        cifar100(1, folder=tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"expected train.bin, test.bin of cifar-100-bin.*; or train, test of cifar-100"
        r"-python.tar.gz in .*; get and unpack https://www.cs.toronto.edu/~kriz/cifar-100-binary.ta",
    ):
        cifar100(folder=tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"idx3-ubyte\.gz in .*; get it from http://fashion-"
    ):
        fashion_mnist(folder=tmp_path)


def test_files_as_large_as_the_published_ones_must_be_these(tmp_path, monkeypatch):
    write_mnist(tmp_path / "idx", images=12, packed=True)
    monkeypatch.setattr(_idx, "PUBLISHED", {"train": 12, "t10k": 5})
    with pytest.raises(
        ValueError,
        match=r"train-images-idx3-ubyte.gz has as many examples as the published file, and is "
        r"another: expected the md5 6bbc9ac\w+, got \w{32}; get it again from https.*verify=False",
    ):
        mnist(12, folder=tmp_path / "idx")
    assert len(mnist(12, folder=tmp_path / "idx", verify=False).train[1]) == 12
    monkeypatch.setattr(_idx, "PUBLISHED", {"train": 13, "t10k": 6})
    mnist(12, folder=tmp_path / "idx")  # which are none of the published ones


def test_checksums_of_cifar(tmp_path):
    module = sys.modules["lossgeom.lab.datasets.cifar10"]
    write_cifar10(tmp_path / "data", images=4)
    few = replace(module.BINARY, examples=(4, 4))
    with pytest.raises(ValueError, match=r"data_batch_1\.bin has as many .*the sha1 aadd24.*, got"):
        _cifar.read(tmp_path / "data", (few,), verify=True)
    right = {
        file.name: hashlib.sha1(file.read_bytes()).hexdigest() for file in tmp_path.glob("data/*")
    }
    _cifar.read(tmp_path / "data", (replace(few, published=right),), verify=True)
    for each in ("cifar10", "cifar100"):
        module = sys.modules[f"lossgeom.lab.datasets.{each}"]
        for version in (module.BINARY, module.PYTHON):
            assert set(version.published) == set(version.names)


def test_chebyshev_is_that_of_numpy():
    x, y = chebyshev(20, degree=5, seed=1).train
    torch.testing.assert_close(x.sort(0).values[:, 0], torch.linspace(-1, 1, 20))
    values = np.polynomial.Chebyshev.basis(5)(x.double().numpy())
    torch.testing.assert_close(y.double(), torch.tensor(values), atol=2e-6, rtol=0)
    assert torch.equal(chebyshev(20, degree=0).train[1], torch.ones(20, 1))
    between = chebyshev(20).test[0].sort(0).values[:, 0]
    torch.testing.assert_close(between, torch.linspace(-18, 18, 19) / 19)
    with pytest.raises(ValueError, match="expected degree of at least 0, got -1"):
        chebyshev(degree=-1)
    with pytest.raises(ValueError, match="expected no classes, balanced or label_noise for data w"):
        chebyshev(label_noise=0.5)


def test_two_moons_are_half_circles():
    x, y = two_moons(300, noise=0.0, centred=False).train
    first, second = x[y == 0], x[y == 1]
    torch.testing.assert_close(first.norm(dim=1), torch.ones(len(first)))
    centre = torch.tensor([1.0, 0.5])
    torch.testing.assert_close((second - centre).norm(dim=1), torch.ones(len(second)))
    with pytest.raises(ValueError, match="expected noise >= 0"):
        two_moons(noise=-1.0)


def test_nothing_can_be_learned_about_random_labels():
    x, y = random_labels(2000, seed=1, inputs=5, labels=4).train
    assert y.bincount().tolist() == pytest.approx([500] * 4, abs=80)
    means = torch.stack([x[y == k].mean(0) for k in range(4)])
    assert means.abs().max() < 4 / 450**0.5
    for bad in ({"inputs": 0}, {"labels": 1}):
        with pytest.raises(ValueError, match="of at least"):
            random_labels(**bad)


def test_points_of_a_manifold_are_those_of_its_task():
    x, y = manifold(30, seed=3).train
    _, inputs, targets = tanh_surface(seed=3).sample(1030, 3)
    assert torch.equal(x, inputs[:30].float())
    assert torch.equal(y, targets[:30].float())
    with pytest.raises(ValueError, match="unknown task 'tanh_surfaces': did you mean tanh_s"):
        manifold(task="tanh_surfaces")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_hugging_face(tmp_path, monkeypatch, shape):
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets)
    write_images(tmp_path / "data", 20, shape)
    data = hugging_face(20, folder=tmp_path / "data", centred=False)
    pixels = torch.tensor(np.load(tmp_path / "data/test.npz")["x"]).float() / 255
    pixels = pixels[:, None] if len(shape) == 2 else pixels.permute(0, 3, 1, 2)
    assert torch.equal(data.test[0], pixels)
    assert data.test[1].tolist() == [0, 1, 2, 3, 4]
    assert data.classes == 10


def test_hugging_face_errors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"extra 'datasets': pip install 'lossgeom\[datasets\]'"):
        hugging_face()
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets)
    write_images(tmp_path / "data", 20)
    splits = FakeDatasets.load_dataset(tmp_path / "data")
    splits["train"]["picture"][3] = np.zeros((2, 2, 3), np.uint8)
    for found, message in (
        ({"train": splits["train"]}, "expected the splits train and test in here, got train"),
        (splits, r"expected images of one size and of bytes in here, got .*\(2, 2, 3\)"),
    ):
        monkeypatch.setattr(FakeDatasets, "load_dataset", lambda _, found=found: found)
        with pytest.raises(ValueError, match=message):
            hugging_face(folder="here")
    monkeypatch.setattr(type(splits["train"]), "features", {"text": object()})
    monkeypatch.setattr(FakeDatasets, "load_dataset", lambda _: splits)
    with pytest.raises(ValueError, match="one column of the kind Image in here, got none amo"):
        hugging_face(folder="here")


def test_a_constant_channel_stays_finite():
    pixels = torch.randint(255, (6, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    pixels[:, 1] = 100
    examples = pixels, torch.arange(6) % 2
    inputs, _ = Labelled(examples, examples, 2).chosen(6, 0, Options()).train
    assert inputs[:, 1].abs().max() < 1e-6
    torch.testing.assert_close(inputs[:, 0].std(), torch.tensor(1.0))


def test_there_must_be_something_to_test_on():
    examples = torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    unlabelled = examples[0], torch.full((4,), -1)
    with pytest.raises(ValueError, match=r"images of the classes \(1,\) to test on, got 0"):
        Labelled(examples, unlabelled, 2).chosen(2, 0, Options(classes=(1,)))
