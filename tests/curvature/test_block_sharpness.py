"""Average curvature of the parts of a transformer, and which parameters these are."""

import pytest
import torch
from torch import nn

import lossgeom as lg
from lossgeom.curvature._block_types import TYPES, block_types
from lossgeom.problem.network import Network


class Encoder(nn.Module):
    """Tokens and their places into one layer of torch's, and a head of its own."""

    def __init__(self, width=3):
        super().__init__()
        self.tokens = nn.Embedding(5, width)
        self.pos_embed = nn.Parameter(torch.randn(3, width))
        self.scale = nn.Parameter(torch.ones(()))
        self.layer = nn.TransformerEncoderLayer(width, 1, 3, dropout=0.0, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, tokens):
        x = self.scale * (self.tokens(tokens) + self.pos_embed)
        return self.head(self.norm(self.layer(x)).mean(1))


def problem():
    torch.manual_seed(0)
    tokens, targets = torch.randint(5, (6, 3)), torch.randint(3, (6,))
    data = [(tokens[:4], targets[:4]), (tokens[4:], targets[4:])]
    return lg.Problem(Encoder().double(), "cross_entropy", data)


def places(of):
    """Where each type's numbers are in theta, found by hand: three thirds of a fused projection."""
    types = {"tokens": "embedding", "pos_embed": "embedding", "scale": "other", "norm": "norm",
             "layer.norm1": "norm", "layer.norm2": "norm", "layer.linear1": "MLP",
             "layer.linear2": "MLP", "layer.self_attn.out_proj": "VO", "head": "head"}  # fmt: skip
    found, first = {name: [] for name in TYPES}, 0
    for name, shape in zip(of.network.names, of.network.shapes, strict=True):
        here = list(range(first, first + shape.numel()))
        first += shape.numel()
        if "in_proj" in name:
            third = len(here) // 3
            found["QK"] += here[: 2 * third]
            found["VO"] += here[2 * third :]
        else:
            found[types.get(name) or types[name.rpartition(".")[0]]] += here
    return found


@pytest.mark.parametrize("matrix", ["gauss_newton", "hessian"])
def test_with_enough_products_it_is_exact(matrix):
    p = problem().take(4)
    dense = {"gauss_newton": lg.GaussNewton, "hessian": lg.Hessian}[matrix](p).dense()
    found = lg.block_sharpness(p, matrix=matrix, matvecs=10_000)
    by_hand = {name: inside for name, inside in places(p).items() if inside}
    assert set(found) == set(by_hand)
    for name, inside in by_hand.items():
        average = found[name].average
        assert average.value == pytest.approx(dense.diagonal()[inside].mean().item(), abs=1e-12)
        assert (average.stderr, average.converged, average.matvecs) == (0, True, len(p.theta))
        assert found[name].size == len(inside)
    assert sum(block.size for block in found.values()) == len(p.theta)
    assert found["QK"].parameters == tuple(n for n in p.network.names if "in_proj" in n)
    assert found["other"].parameters == ("scale",)


def test_errors_of_random_probes_are_honest():
    """Of 40 seeds: means within 4 standard errors of the truth, errors as stated."""
    p = problem().take(4)
    truth = lg.block_sharpness(p, matvecs=10_000)
    found = [lg.block_sharpness(p, matvecs=10, seed=seed) for seed in range(40)]
    for name, exact in truth.items():
        values = torch.tensor([each[name].average.value for each in found])
        stated = torch.tensor([each[name].average.stderr for each in found])
        error = values.std() / 40**0.5
        assert abs(values.mean() - exact.average.value) < 4 * error + 1e-12
        assert 0.7 < stated.square().mean().sqrt() / values.std() < 1.4
        if name in ("norm", "head"):  # negative control, where the errors allow one
            assert abs(values.mean() - 2 * exact.average.value) > 4 * error
        assert all(each[name].average.matvecs == 10 for each in found)


def test_it_prints_as_a_table():
    found = lg.block_sharpness(problem(), {"scale": "scale"}, matvecs=2)
    headings, first, *_ = str(found).splitlines()
    assert headings == "block      parameters  average sharpness  standard error"
    average = found["scale"].average
    assert first.split() == ["scale", "1", f"{average.value:.4g}", f"{average.stderr:.2g}"]


def test_own_blocks_come_first_and_the_rest_is_told_apart():
    p = problem()
    found = lg.block_sharpness(p, {"VO": "head.*", "scale": ["scale"]}, matvecs=2)
    assert list(found) == ["VO", "scale", "embedding", "QK", "MLP", "norm"]
    assert found["VO"].parameters[-2:] == ("head.weight", "head.bias")
    assert found["VO"].size == len(places(p)["VO"]) + 12
    assert found["MLP"].average.stderr > 0
    again = lg.block_sharpness(p, {"VO": "head.*", "scale": ["scale"]}, matvecs=2)
    assert again["MLP"].average == found["MLP"].average


def test_errors(unchecked):
    p = problem()
    with pytest.raises(ValueError, match=r"match head\.bias, but those of 'a' and of 'b' do"):
        lg.block_sharpness(p, {"a": "head.*", "b": "*.bias"})
    with pytest.raises(ValueError, match="expected parameters='foot' to match"):
        lg.block_sharpness(p, {"a": "foot"})
    with pytest.raises(ValueError, match="expected matvecs of at least 2, got 1"):
        lg.block_sharpness(p, matvecs=1)
    with pytest.raises(ValueError, match="unknown matrix 'hesian': did you mean hessian"):
        lg.block_sharpness(p, matrix="hesian")
    with pytest.raises(TypeError, match=r"expected blocks as a mapping .* got \['head.*'\]"):
        lg.block_sharpness(p, ["head.*"])
    with pytest.raises(TypeError, match="expected a Problem"):
        lg.block_sharpness(Encoder())


# Which parameters they are


def types_of(model):
    """The types of each parameter's numbers, in their order, without repetition."""
    network = Network.of(model)
    found = network.split(block_types(network))
    return {
        name: [TYPES[i] for i in own.unique_consecutive(dim=-1).flatten().unique_consecutive()]
        for name, own in zip(network.names, found, strict=True)
    }


class Layer(nn.Module):
    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


class CausalAttention(Layer):
    pass


class RMSNorm(Layer):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


def linear(rows=4, columns=4):
    return nn.Linear(columns, rows, bias=False)


@pytest.mark.quick
def test_names_that_are_known():
    llama = Layer(
        embed_tokens=nn.Embedding(3, 4),
        self_attn=Layer(q_proj=linear(), k_proj=linear(2), v_proj=linear(2), o_proj=linear()),
        mlp=Layer(gate=linear(), c_proj=linear()),
        input_layernorm=RMSNorm(),
        lm_head=linear(),
        gate=linear(),
    )
    assert {name.removesuffix(".weight"): of for name, (of,) in types_of(llama).items()} == {
        "embed_tokens": "embedding",
        "self_attn.q_proj": "QK",
        "self_attn.k_proj": "QK",
        "self_attn.v_proj": "VO",
        "self_attn.o_proj": "VO",
        "mlp.gate": "MLP",
        "mlp.c_proj": "MLP",
        "input_layernorm": "norm",
        "lm_head": "head",
        "gate": "other",
    }


@pytest.mark.quick
def test_a_projection_is_of_the_attention_by_the_class_that_it_is_in():
    model = Layer(a=CausalAttention(proj=linear()), b=Layer(proj=linear()))
    assert types_of(model) == {"a.proj.weight": ["VO"], "b.proj.weight": ["other"]}


@pytest.mark.quick
def test_fused_projections_are_cut_only_where_their_parts_are_as_large_as_each_other():
    fused = Layer(qkv=nn.Linear(4, 12), c_attn=nn.Linear(4, 8), query_key_value=nn.Linear(4, 12))
    cut = ["QK", "VO"]
    assert types_of(fused) == {
        "qkv.weight": cut, "qkv.bias": cut, "c_attn.weight": ["other"], "c_attn.bias": ["other"],
        "query_key_value.weight": ["other"], "query_key_value.bias": ["other"],
    }  # fmt: skip
    separate = Layer(attn=nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True))
    assert types_of(separate) == {
        "attn.q_proj_weight": ["QK"], "attn.k_proj_weight": ["QK"], "attn.v_proj_weight": ["VO"],
        "attn.in_proj_bias": cut, "attn.bias_k": ["QK"], "attn.bias_v": ["VO"],
        "attn.out_proj.weight": ["VO"], "attn.out_proj.bias": ["VO"],
    }  # fmt: skip


@pytest.mark.quick
def test_only_the_weight_and_bias_of_a_fused_projection_are_cut():
    qkv = linear(12)
    qkv.lora_A, qkv.base_layer = linear(4, 12), linear(12)
    assert types_of(Layer(qkv=qkv)) == {
        "qkv.weight": ["QK", "VO"],
        "qkv.lora_A.weight": ["other"],
        "qkv.base_layer.weight": ["QK", "VO"],
    }


@pytest.mark.quick
def test_the_nearest_module_decides():
    class VisionAttentionNet(Layer):
        pass

    mixer = Layer(self_attn=Layer(out_proj=linear()), dense=linear(), key=linear())
    model = Layer(mlp_mixer=mixer, net=VisionAttentionNet(out=linear()))
    assert list(types_of(model).values()) == [["VO"], ["MLP"], ["MLP"], ["other"]]
    assert types_of(nn.MultiheadAttention(4, 2))["out_proj.weight"] == ["VO"]


@pytest.mark.quick
def test_a_norm_is_one_by_its_type_or_the_end_of_a_name():
    class NormalizedLinear(nn.Linear):
        pass

    class Scaled(nn.LayerNorm):
        pass

    modules = {"fc1": NormalizedLinear(3, 3, bias=False), "ln_2": linear(), "a": RMSNorm()}
    model = Layer(**modules, b=Scaled(3, bias=False), kaln=linear())
    assert list(types_of(model).values()) == [["MLP"], ["norm"], ["norm"], ["norm"], ["other"]]


@pytest.mark.quick
def test_a_tied_head_is_the_embedding():
    model = Layer(head=linear(3), tokens=nn.Embedding(3, 4))
    model.tokens.weight = model.head.weight
    assert types_of(model) == {"head.weight": ["embedding"]}
