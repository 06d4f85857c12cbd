"""Weights from files into models."""

import pytest
import safetensors.torch
import torch
from torch import nn

import lossgeom as lg
from lossgeom.checkpoints import CheckpointError, load_checkpoint, sha256
from tests.checkpoints import files as checkpoints
from tests.checkpoints.files import net, saved
from tests.real_models.hugging_face import gpt2
from tests.real_models.models import GPT, built


def assert_same(model, other):
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.fixture
def trained():
    return checkpoints.trained()


@pytest.mark.quick
@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.pt", "a.pth", "a.bin", "a.ckpt", "a.pth.tar", "a.tar"]
)
def test_round_trip(tmp_path, trained, name):
    model = net()
    assert load_checkpoint(model, saved(tmp_path / name, trained.state_dict())) == ()
    assert_same(model, trained)


def test_old_format_of_torch(tmp_path, trained):
    path = tmp_path / "a.pt"
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=False)
    model = net()
    load_checkpoint(model, str(path))
    assert_same(model, trained)


@pytest.mark.parametrize(
    "entry",
    ["state_dict", "model", "model_state_dict", "model_state", "net", "network", "weights"],
)
def test_usual_entries(tmp_path, trained, entry):
    optimizer = torch.optim.Adam(trained.parameters())
    trained(torch.randn(9, 3)).sum().backward()
    optimizer.step()
    everything = {entry: trained.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}
    model = net()
    notes = load_checkpoint(model, saved(tmp_path / "a.pt", everything))
    assert notes == (f"checkpoint read from its entry {entry!r}",)
    assert_same(model, trained)


@pytest.mark.quick
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_prefixes_of_wrappers(tmp_path, trained, prefix, suffix):
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    model = net()
    load_checkpoint(model, saved(tmp_path / f"a{suffix}", state))
    assert_same(model, trained)


def test_wrapped_models(tmp_path, trained):
    compiled = net()
    compiled[0] = torch.compile(compiled[0], backend="eager")
    path = saved(tmp_path / "a.pt", trained.state_dict())
    for model in (nn.DataParallel(net()), torch.compile(net(), backend="eager"), compiled):
        load_checkpoint(model, path)
        for ours, theirs in zip(model.parameters(), trained.parameters(), strict=True):
            assert torch.equal(ours, theirs)
    partly = saved(tmp_path / "b.pt", compiled.state_dict())
    model = net()
    load_checkpoint(model, partly)
    assert_same(model, trained)


@pytest.mark.parametrize("prefix", ["model.", "net.model.", "module.model.", "model._orig_mod."])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_other_prefixes_of_all_names(tmp_path, trained, prefix, suffix):
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    model = net()
    notes = load_checkpoint(model, saved(tmp_path / f"a{suffix}", state))
    assert notes == (f"names of the checkpoint read without {prefix.replace('_orig_mod.', '')!r}",)
    assert_same(model, trained)


def test_a_prefix_stays_where_not_all_names_would_fit(tmp_path, trained):
    state = {f"model.{name}": tensor for name, tensor in trained.state_dict().items()}
    for more in ("loss.weight", "model.head.weight"):
        path = saved(tmp_path / "a.pt", {**state, more: torch.ones(1)})
        with pytest.raises(CheckpointError, match=r"10 not in the model \(model.0.weight"):
            load_checkpoint(net(), path)


def test_names_that_would_become_one(tmp_path, trained):
    state = {**trained.state_dict(), "_orig_mod.0.weight": torch.zeros(5, 3)}
    with pytest.raises(CheckpointError, match=r"1 not in the model \(_orig_mod.0.weight\)"):
        load_checkpoint(net(), saved(tmp_path / "a.pt", state))


def lightning(model):
    """As the framework saves it, with what else it puts beside the weights."""
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": {f"model.{name}": tensor for name, tensor in model.state_dict().items()},
        "optimizer_states": [torch.optim.SGD(model.parameters(), 0.1).state_dict()],
        "lr_schedulers": [],
        "hyper_parameters": {"lr": 0.1, "model": "mlp"},
    }


def test_lightning(tmp_path, trained):
    model = net()
    notes = load_checkpoint(model, saved(tmp_path / "last.ckpt", lightning(trained)))
    assert notes == (
        "checkpoint read from its entry 'state_dict'",
        "names of the checkpoint read without 'model.'",
    )
    assert_same(model, trained)


@pytest.mark.parametrize("key", ["teacher", "model"])
def test_an_entry_by_its_key(tmp_path, trained, key):
    everything = {"teacher": net(seed=2).state_dict(), "model": net(seed=3).state_dict()}
    path = saved(tmp_path / "a.pt", {**everything, key: trained.state_dict()})
    model = net()
    assert load_checkpoint(model, path, key=key) == (f"checkpoint read from its entry {key!r}",)
    assert_same(model, trained)


def test_checksums_that_were_left_out(tmp_path, trained):
    torch.serialization.set_crc32_options(compute_crc32=False)
    try:
        path = saved(tmp_path / "a.pt", trained.state_dict())
    finally:
        torch.serialization.set_crc32_options(compute_crc32=True)
    model = net()
    load_checkpoint(model, path)
    assert_same(model, trained)


class Holder(nn.Module):
    """Has a part that is called what a wrapper calls its own."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(2, 2)


def test_a_module_that_is_called_module(tmp_path):
    trained, model = Holder(), Holder()
    load_checkpoint(model, saved(tmp_path / "a.pt", trained.state_dict()))
    assert_same(model, trained)
    load_checkpoint(model, saved(tmp_path / "b.pt", nn.DataParallel(trained).state_dict()))
    assert_same(model, trained)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: built(GPT), id="plain", marks=pytest.mark.quick),
        pytest.param(gpt2, id="transformers"),
    ],
)
def test_tied_weights(tmp_path, make, unchecked):
    trained, model = make(), make()
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.5)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_model(trained, str(path))  # which leaves names out
    names = safetensors.torch.load_file(path).keys()
    assert set(names) < set(trained.state_dict())
    load_checkpoint(model, path)
    assert_same(model, trained)
    load_checkpoint(make(), saved(tmp_path / "model.pt", trained.state_dict()))


def test_tied_weights_as_transformers_saves_them(tmp_path, unchecked):
    trained, model = gpt2(), gpt2()
    with torch.no_grad():
        trained.transformer.wte.weight.mul_(2)
    trained.save_pretrained(tmp_path)
    load_checkpoint(model, tmp_path / "model.safetensors")
    assert_same(model, trained)


def test_tied_weights_that_differ(tmp_path):
    state = {name: tensor.clone() for name, tensor in built(GPT).state_dict().items()}
    state["head.weight"] += 1
    with pytest.raises(CheckpointError, match=r"tokens.weight, head.weight are one weight in the "):
        load_checkpoint(built(GPT), saved(tmp_path / "a.safetensors", state))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths(tmp_path, trained, dtype):
    state = {
        n: t.to(dtype) if t.is_floating_point() else t for n, t in trained.state_dict().items()
    }
    model = net()
    notes = load_checkpoint(model, saved(tmp_path / "a.safetensors", state))
    assert notes == (f"checkpoint in {dtype}, put into a model in torch.float32",)
    assert torch.equal(model[0].weight, trained[0].weight.to(dtype).float())


def test_values_that_are_not_finite_are_loaded(tmp_path, trained):
    with torch.no_grad():
        trained[0].weight[0, 0] = torch.nan
    model = net()
    load_checkpoint(model, saved(tmp_path / "a.pt", trained.state_dict()))
    assert model[0].weight.isnan().sum() == 1
    tied = built(GPT)
    with torch.no_grad():
        tied.head.weight.fill_(torch.nan)
    load_checkpoint(built(GPT), saved(tmp_path / "b.pt", tied.state_dict()))


def test_hash(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9c")


def test_a_checkpoint_is_measured(tmp_path, trained):
    data = [(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))]
    model = net()
    load_checkpoint(model, saved(tmp_path / "a.safetensors", trained.state_dict()))
    losses = [lg.Problem(m, "cross_entropy", data).loss() for m in (model, trained, net())]
    assert losses[0] == losses[1] != losses[2]
