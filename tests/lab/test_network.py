"""The data and the network of studies."""

from dataclasses import asdict, replace
from typing import get_args, get_type_hints

import pytest
import torch

from lossgeom.lab.datasets import DATASETS
from lossgeom.lab.models import MODELS, gpt
from lossgeom.lab.studies._checkpoint import arrays_of, restore
from lossgeom.lab.studies._network import (
    NetworkSettings,
    build,
    build_with_indicators,
    build_with_pixels,
    build_with_signs,
    idle_settings,
)
from lossgeom.recording.record import Record
from tests.lab.files import write_cifar10, write_cifar100
from tests.lab.test_lab import write_mnist


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (0,)}, r"expected widths of at least 1; got widths = \(0,\)$"),
        ({"examples": 1797}, "at most 1796 examples of digits; got examples = 1797"),
        ({"chunk": 0}, "at least 1; got examples = 500, chunk = 0"),
        (
            {"model": "vgg11", "data": "two_moons"},
            "images, or the model mlp; got model = vgg11, data = two_moons",
        ),
        ({"channels": 0.0}, "factors > 0; got input_scale = 1.0, target_scale = 1.0, channels = 0"),
        ({"label_noise": 1.5}, "label_noise from 0 to 1; got label_noise = 1.5"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        NetworkSettings(**settings)


def test_settings_that_are_of_no_use():
    images = {"data": "cifar10", "model": "vgg11"}
    assert idle_settings({"lr": 1.0, "network": images}) == ("widths", "activation")
    assert idle_settings({"lr": 1.0, "network": {"data": "digits", "model": "mlp"}}) == ("folder",)
    assert idle_settings({"data": "digits"}) == ("folder",)
    assert idle_settings({"eps": 0.1}) == ()
    assert idle_settings(asdict(NetworkSettings(label_noise=0.1))) == (
        "folder", "channels", "batch_norm", "classes", "balanced", "input_scale", "target_scale",
        "verify", "parametrization",
    )  # fmt: skip


def test_targets_of_the_squared_error():
    settings = NetworkSettings(examples=30, widths=(4,))
    labels = build(settings, 1)[1].train[1]
    model, data = build_with_indicators(settings, 1)
    inputs, targets = data.train
    assert model(inputs).shape == targets.shape == (30, 10)
    assert torch.equal(targets.argmax(1), labels)
    assert torch.equal(targets.sum(1), torch.ones(30))
    assert inputs.min() == -1
    signed = build_with_signs(settings, 1, centred=False)[1].train
    assert torch.equal(signed[0], inputs)
    assert torch.equal(signed[1][:, 0], 1.0 - 2 * (labels % 2))


@pytest.mark.parametrize(
    ("data", "write"), [("digits", None), ("mnist", write_mnist), ("cifar10", write_cifar10)]
)
@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_pixels_from_0_to_1(tmp_path, data, write, model):
    if write is not None:
        write(tmp_path / "data", images=8)
    settings = NetworkSettings(
        data=data, folder=str(tmp_path / "data"), examples=8, widths=(4,), model=model
    )
    made, found = build_with_pixels(settings, 1)
    inputs, targets = found.train
    assert (inputs.min(), inputs.max()) == (0, 1)
    assert made(inputs).shape == (8, 10)
    assert targets.dtype == torch.int64


def test_every_data_set_and_every_model_of_images_can_be_named():
    hints = get_type_hints(NetworkSettings)
    assert set(get_args(hints["data"])) == set(DATASETS)
    assert {*get_args(hints["model"]), "gpt"} == set(MODELS)


@pytest.mark.parametrize("data", ["digits", "fashion_mnist", "cifar100"])
@pytest.mark.parametrize("model", ["lenet5", "vgg11", "resnet14", "resnet18"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_images_of_any_size(tmp_path, data, model, batch_norm):
    {"fashion_mnist": write_mnist, "cifar100": write_cifar100}.get(data, lambda *_: None)(
        tmp_path / "data", 10
    )
    settings = NetworkSettings(
        data, str(tmp_path / "data"), examples=4, model=model, channels=1 / 16,
        batch_norm=batch_norm,
    )  # fmt: skip
    made, found = build(settings, 1)
    assert made(found.train[0]).shape == (4, 100 if data == "cifar100" else 10)
    kinds = {type(layer).__name__ for layer in made.modules()}
    assert ("BatchNorm2d" in kinds) == (batch_norm and model != "lenet5")
    full = {"lenet5": 6, "vgg11": 64 / 16, "resnet14": 16 / 16, "resnet18": 64 / 16}
    assert next(made.parameters()).shape[0] == full[model]


def test_the_settings_of_data_reach_them():
    settings = NetworkSettings(
        examples=40, classes=(3, 8), balanced=True, label_noise=0.25, input_scale=2.0, widths=(3,)
    )
    model, data = build(settings, 1)
    assert data.classes == 2
    assert model(data.train[0]).shape == (40, 2)
    assert data.scaling.endswith(", times 2; 10 of 40 labels to train on drawn at random")
    clean = build(replace(settings, label_noise=0.0), 1)[1].train[1]
    assert clean.sum() == 20
    targets = build_with_indicators(replace(settings, target_scale=5.0), 1)[1].train[1]
    assert targets.shape == (40, 2)
    assert set(targets.unique().tolist()) == {0, 5}
    targets = build_with_signs(replace(settings, label_noise=0.0), 1)[1].train[1]
    assert targets.sum() == 0
    with pytest.raises(
        ValueError, match="expected the targets one_hot or signs for a target_scale"
    ):
        build(replace(settings, target_scale=5.0), 1)


@pytest.mark.parametrize("data", ["chebyshev", "manifold"])
def test_targets_that_are_numbers(data):
    settings = NetworkSettings(data, examples=8, widths=(3,))
    for made in (build_with_indicators, build_with_signs):
        model, found = made(settings, 1)
        assert model(found.train[0]).shape == found.train[1].shape == (8, 1)
    with pytest.raises(ValueError, match=f"data with classes for a cross-entropy, got {data}, who"):
        build(settings, 1)
    assert not settings.ten_classes


def test_signs_of_the_first_two_classes(tmp_path):
    write_mnist(tmp_path / "data", images=40)
    settings = NetworkSettings("fashion_mnist", str(tmp_path / "data"), examples=8)
    data = build_with_signs(settings, 1)[1]
    assert data.train[1].sum() == 0
    assert len(data.test[1]) == 2
    data = build_with_signs(replace(settings, classes=(2, 5, 7), examples=12), 1)[1]
    assert data.train[1].sum() == 4  # of three classes, two get 1


def test_settings_of_ten_classes():
    assert NetworkSettings().ten_classes
    assert NetworkSettings("cifar100", classes=tuple(range(10))).ten_classes
    assert not NetworkSettings("cifar100").ten_classes
    assert not NetworkSettings(classes=(0, 1)).ten_classes


def test_batch_normalisation_before_activations():
    made, data = build_with_pixels(NetworkSettings(examples=20, widths=(4, 3)), 1, batch_norm=True)
    names = [type(layer).__name__ for layer in made]
    assert names == ["Flatten", *2 * ["Linear", "BatchNorm1d", "ReLU"], "Linear"]
    assert made(data.train[0]).shape == (20, 10)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, 0.1),
        lambda p: torch.optim.SGD(p, 0.1, 0.9),
        lambda p: torch.optim.RMSprop(p, 0.1, momentum=0.5, centered=True),
        lambda p: torch.optim.NAdam(p, 0.1),
    ],
)
def test_a_checkpoint_holds_what_optimizers_go_on_with(make):
    def trained(model, optimizer, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 3)).square().sum().backward()
            optimizer.step()

    first, again = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    optimizers = (
        [make([first.weight]), make([first.bias])],
        [make([again.weight]), make([again.bias])],
    )
    for optimizer in optimizers[0]:
        trained(first, optimizer, 3)
    held = {name: tensor.clone() for name, tensor in arrays_of(first, optimizers[0]).items()}
    restore(again, optimizers[1], held)
    for model, made in ((first, optimizers[0]), (again, optimizers[1])):
        for optimizer in made:
            trained(model, optimizer, 2)
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)


def test_changes_that_a_model_or_data_cannot_make_are_of_no_use():
    changed = NetworkSettings(model="lenet5", channels=2.0, batch_norm=True, verify=False)
    assert {"channels", "batch_norm", "verify"} <= set(idle_settings(asdict(changed)))
    changed = NetworkSettings(
        data="cifar10", model="vgg11", channels=2.0, batch_norm=True, verify=False
    )
    assert not {"channels", "batch_norm", "verify"} & set(idle_settings(asdict(changed)))


def test_tied_weights_go_into_checkpoints(tmp_path):
    model, other = gpt(seed=0), gpt(seed=1)
    record = Record.create(tmp_path / "run")
    record.save_arrays("checkpoint", arrays_of(model, []), step=3)
    held, _ = record.load_arrays("checkpoint")
    restore(other, [], held)
    assert other.head.weight is other.tokens.weight
    assert all(map(torch.equal, model.parameters(), other.parameters()))
