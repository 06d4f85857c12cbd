"""The settings of the process that arithmetic is done under, those of a GPU without one."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from lossgeom.linalg import arithmetic, plain_arithmetic, random_numbers, some_direction
from lossgeom.problem.network import Network

pytestmark = pytest.mark.quick
GPU = torch.device("cuda")
BACKENDS = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn


def older():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32


def newer():
    return [backend.fp32_precision for backend in BACKENDS]


@pytest.fixture
def precision(request):
    """A precision of products in float32 as a user sets it, put back afterwards."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("precision", ["highest", "high", "medium"], indirect=True)
def test_tf32_is_off_by_the_older_settings_and_by_the_newer(precision):
    """Kernels and models may ask for either; torch refuses where the two contradict each other."""
    before = older(), newer()
    assert before[0] == (precision, True)
    for _ in range(2):
        with plain_arithmetic(GPU), plain_arithmetic(GPU):
            assert older() == ("highest", False)
            assert newer() == ["ieee"] * 3
            with torch.backends.cudnn.flags(enabled=False):  # as models do for second derivatives
                pass
        assert (older(), newer()) == before


def test_settings_that_contradict_each_other_are_left_so():
    """Where the newer one alone is set, the older cannot be read, and need not."""
    matmul, before = torch.backends.cuda.matmul, newer()
    matmul.fp32_precision = "tf32"
    try:
        with plain_arithmetic(GPU):
            assert newer() == ["ieee"] * 3
        assert newer() == ["tf32", *before[1:]]
        with pytest.raises(RuntimeError, match="mix of the legacy and new"):
            torch.get_float32_matmul_precision()
    finally:
        matmul.fp32_precision = before[0]


def test_cudnn_is_off_for_recurrent_layers_beside_these_settings():
    network = replace(Network.of(nn.GRU(4, 3)), cudnn=False)  # as on a GPU
    with plain_arithmetic(GPU):
        used = network(network.theta, lambda module: torch.backends.cudnn.enabled, "eval")
    assert torch.backends.cudnn.enabled
    assert not used


def test_too_little_memory_says_what_to_lower():
    said = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79 GiB."
    with (
        pytest.raises(
            torch.OutOfMemoryError, match=r"Tried to allocate 20\.00 GiB\. Lower "
        ) as own,
        plain_arithmetic(GPU),
        plain_arithmetic(GPU),
    ):
        raise torch.OutOfMemoryError(said)
    assert str(own.value).count("memory_budget=") == 1
    assert "GPU 0" not in str(own.value)


def test_a_direction_of_many_numbers_repeats_a_million(monkeypatch):
    like = torch.zeros(5, 7, dtype=torch.float64)
    whole = some_direction(like, random_numbers(0))
    assert whole.shape == like.shape
    assert whole.dtype == like.dtype
    monkeypatch.setattr(arithmetic, "PERIOD", 11)
    first, *others = some_direction(like, random_numbers(0)).flatten().split(11)
    assert len(first) == len(first.unique()) == 11
    assert all(torch.equal(other, first[: len(other)]) for other in others)
    assert some_direction(like[:0], random_numbers(0)).shape == (0, 7)


def test_a_default_device_holds_for_models_alone():
    """What solvers make stays on the CPU; the meta device is one where nothing could be read."""
    made = []
    torch.set_default_device("meta")
    try:
        network = Network.of(nn.Linear(2, 1, device="cpu"))
        with plain_arithmetic(network.theta.device):
            assert torch.zeros(1).device.type == "cpu"
            network(network.theta, lambda module: made.append(torch.zeros(1).device), "eval")
        assert torch.zeros(1).device.type == "meta"
    finally:
        torch.set_default_device(None)
    assert [device.type for device in made] == ["cpu"]  # where the model is
