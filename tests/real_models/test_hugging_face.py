"""Language models and classifiers of Hugging Face."""

import copy

import pytest
import torch
import torch.nn.functional as F

import lossgeom as lg
from lossgeom.curvature._block_types import TYPES, block_types
from tests.real_models.hugging_face import batch_encoding, batches_of, bert, encoded, gpt2
from tests.real_models.models import CATEGORIES, next_token_loss, text
from tests.real_models.plain import Plain, assert_close, check, direction, untouched

BOTH, QK, VO = ("weight", "bias"), TYPES.index("QK"), TYPES.index("VO")
LOSS = {gpt2: "next_token_cross_entropy", bert: "cross_entropy"}


def plain_of(model, everything, loss):
    """With the attention written out, in which there is nothing to switch."""
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    inputs = {name: part for name, part in everything.items() if name != "labels"}
    return Plain(eager, lambda m: m(**inputs).logits, loss)


@torch.no_grad()
def their_loss(model, batches):
    """What Hugging Face computes for each batch, weighted by the labels that count."""
    model = copy.deepcopy(model).eval()
    total = count = 0.0
    for batch in batches:
        own = int((batch["labels"][:, 1:] != -100).sum())
        total += own * model(**batch).loss.item() if own else 0.0
        count += own
    return total / count


@pytest.mark.parametrize("kind", [dict, batch_encoding])
def test_gpt2(kind, unchecked):
    model, (_, labels) = gpt2(), text()
    assert model.config._attn_implementation == "sdpa"
    everything = encoded(labels)
    batches = batches_of(everything, [3, 2, 1], kind)
    kinds, before = [*map(type, batches)], [dict(batch) for batch in batches]
    problem = lg.Problem(model, LOSS[gpt2], batches)
    with untouched(model):
        check(problem, plain_of(model, everything, lambda f: next_token_loss(f, labels)))
    assert any("scaled_dot_product_attention" in note for note in problem.notes)
    assert [*map(type, batches)] == kinds
    for batch, earlier in zip(batches, before, strict=True):
        assert list(batch) == list(earlier)
        assert all(batch[name] is earlier[name] for name in earlier)


@pytest.mark.parametrize("padding", ["right", "left"])
@pytest.mark.parametrize("sizes", [[6], [5, 1], [1, 2, 3]])
def test_gpt2_has_the_loss_of_hugging_face(sizes, padding):
    """To the precision of float32, in which theirs is computed whatever the model is in."""
    model, (_, labels) = gpt2(), text()
    batches = batches_of(encoded(labels, padding), sizes, batch_encoding)
    problem = lg.Problem(model, LOSS[gpt2], batches)
    assert problem.loss() == pytest.approx(their_loss(model, batches), rel=1e-6)


def test_gpt2_with_padding_in_front():
    """Where nothing may be attended to, attention is zero and has derivatives."""
    model, (_, labels) = gpt2(), text()
    everything = encoded(labels, "left")
    labels[everything["attention_mask"].cumsum(1) < 2] = -100  # would be predicted from padding
    problem = lg.Problem(model, LOSS[gpt2], batches_of(everything, [4, 2]))
    plain = plain_of(model, everything, lambda f: next_token_loss(f, labels))
    v = direction(plain.theta)
    assert_close(lg.Hessian(problem) @ v, plain.hessian_product(v))


def test_bert(unchecked):
    """Built with dropout, which is off in eval mode, whatever mode the user's is in."""
    model = bert().train()
    everything = encoded(CATEGORIES)
    problem = lg.Problem(model, LOSS[bert], batches_of(everything, [4, 2]))
    with untouched(model):
        check(problem, plain_of(model, everything, lambda f: F.cross_entropy(f, CATEGORIES)))
    with torch.no_grad():
        theirs = copy.deepcopy(model).eval()(**everything).loss.item()
    assert problem.loss() == pytest.approx(theirs, rel=1e-12)


@pytest.mark.parametrize("build", [gpt2, bert])
def test_dropout_needs_a_seed(build):
    labels = {gpt2: text()[1], bert: CATEGORIES}[build]
    batches = batches_of(encoded(labels), [4, 2])
    model = build(dropout=0.3)
    off = lg.Problem(build(dropout=0.0), LOSS[build], batches).loss()
    assert lg.Problem(model, LOSS[build], batches).loss() == off
    with pytest.raises(ValueError, match="drew random numbers in mode='train'"):
        lg.Problem(model, LOSS[build], batches, mode="train").loss()
    drawn, again = (lg.Problem(model, LOSS[build], batches, mode="train", seed=0) for _ in range(2))
    assert drawn.loss() == again.loss() != off
    v, h = direction(drawn.theta), 1e-5
    Hv = lg.Hessian(drawn) @ v
    assert torch.equal(lg.Hessian(again, memory_budget=0) @ v, Hv)
    # one function of theta: its Hessian is the slope of its gradient
    gradients = [drawn.at(drawn.theta + step * v).gradient() for step in (h, -h)]
    assert_close(Hv, (gradients[0] - gradients[1]) / (2 * h), rtol=1e-6)


def test_parts_of_gpt2_and_bert_are_told_apart(unchecked):
    """Fused projections of GPT-2 have inputs as rows, so that Q, K and V are columns."""

    def of(model):
        network = lg.Problem(model, lambda out, batch: (out.sum(), 1), []).network
        labels = network.split(block_types(network))
        return dict(zip(network.names, labels, strict=True))

    labels = of(gpt2())
    fused = labels.pop("transformer.h.0.attn.c_attn.weight")
    assert (fused == torch.tensor([QK] * 16 + [VO] * 8)).all()
    assert labels.pop("transformer.h.0.attn.c_attn.bias").tolist() == [QK] * 16 + [VO] * 8
    first = {name: TYPES[own.unique()] for name, own in labels.items() if "h.1" not in name}
    assert first == {
        "transformer.wte.weight": "embedding",
        "transformer.wpe.weight": "embedding",
        **{f"transformer.{n}.{p}": "norm" for n in ("h.0.ln_1", "h.0.ln_2", "ln_f") for p in BOTH},
        **{f"transformer.h.0.attn.c_proj.{p}": "VO" for p in BOTH},
        **{f"transformer.h.0.mlp.{n}.{p}": "MLP" for n in ("c_fc", "c_proj") for p in BOTH},
    }
    layer = "bert.encoder.layer.0."
    labels = of(bert())
    first = {name: TYPES[own.unique()] for name, own in labels.items() if name.startswith(layer)}
    parts = {
        "attention.self.query": "QK",
        "attention.self.key": "QK",
        "attention.self.value": "VO",
        "attention.output.dense": "VO",
        "intermediate.dense": "MLP",
        "output.dense": "MLP",
        "attention.output.LayerNorm": "norm",
        "output.LayerNorm": "norm",
    }
    assert first == {f"{layer}{n}.{p}": of for n, of in parts.items() for p in BOTH}
