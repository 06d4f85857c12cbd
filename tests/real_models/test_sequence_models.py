"""Recurrent classifiers and a small language model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from tests.real_models.models import (
    CATEGORIES,
    EXAMPLES,
    GPT,
    TOKENS,
    WIDTH,
    Classifier,
    built,
    next_token_loss,
    split,
    text,
)
from tests.real_models.plain import Plain, assert_close, check, direction, untouched

NEXT_TOKEN = "next_token_cross_entropy"


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_classifiers(kind, layers, unchecked):
    model, (tokens, _) = built(Classifier, kind, layers), text()
    problem = lg.Problem(model, "cross_entropy", split([4, 2], tokens, CATEGORIES))
    plain = Plain(model, lambda m: m(tokens), lambda f: F.cross_entropy(f, CATEGORIES))
    with untouched(model):
        check(problem, plain)


def test_sequences_of_different_lengths():
    """Two inputs in a batch, one of them the lengths that the sequences are packed with."""
    model, (tokens, _) = built(Classifier, nn.LSTM), text()
    lengths = torch.tensor([3, 7, 1, 5, 2, 6])
    batches = split([4, 2], tokens, lengths, CATEGORIES)
    problem = lg.Problem(model, "cross_entropy", batches, target=-1)
    plain = Plain(model, lambda m: m(tokens, lengths), lambda f: F.cross_entropy(f, CATEGORIES))
    check(problem, plain)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_layers_in_float32(kind):
    """Where torch has other kernels for them than in float64."""
    batches = [(text()[0], CATEGORIES)]
    wide = lg.Problem(built(Classifier, kind), "cross_entropy", batches)
    narrow = lg.Problem(built(Classifier, kind).float(), "cross_entropy", batches)
    v = direction(wide.theta)
    assert_close((lg.Hessian(narrow) @ v.float()).double(), lg.Hessian(wide) @ v, rtol=1e-4)


# A language model


def plain_gpt(model, tokens, labels):
    """With the attention written out, in which there is nothing to switch."""
    plain = Plain(model, lambda m: m(tokens), lambda logits: next_token_loss(logits, labels))
    for block in plain.model.blocks:
        block.written_out = True
    return plain


def test_language_model(unchecked):
    model, (tokens, labels) = built(GPT), text()
    problem = lg.Problem(model, NEXT_TOKEN, split([4, 2], tokens, labels))
    with untouched(model):
        check(problem, plain_gpt(model, tokens, labels))
    assert any("scaled_dot_product_attention" in note for note in problem.notes)


def test_a_tied_weight_has_one_place():
    model = built(GPT)
    problem = lg.Problem(model, NEXT_TOKEN, [text()])
    assert problem.network.names.count("tokens.weight") == 1
    assert "head.weight" not in problem.network.names
    assert problem.theta.numel() == sum(p.numel() for p in model.parameters())
    head = problem.with_parameters("head.weight")
    assert head.network.names == ("tokens.weight",)
    assert head.theta.numel() == TOKENS * WIDTH


@pytest.mark.parametrize("sizes", [[1] * EXAMPLES, [1, 5], [5, 1], [2, 3, 1]])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 5, 0, 2, 1, 4]])
def test_any_split_and_order_gives_the_same(sizes, order):
    """However few labels of a batch count, and where none of a batch does."""
    model, (tokens, labels) = built(GPT), text()
    problem = lg.Problem(model, NEXT_TOKEN, split(sizes, tokens[order], labels[order]))
    plain = plain_gpt(model, tokens, labels)
    v = direction(plain.theta)
    assert problem.loss() == pytest.approx(plain.value(), rel=1e-12)
    assert_close(lg.Hessian(problem) @ v, plain.hessian_product(v))


def test_dropout_needs_a_seed():
    model, batches = built(GPT, dropout=0.3), split([4, 2], *text())
    off = lg.Problem(built(GPT), NEXT_TOKEN, batches).loss()
    assert lg.Problem(model, NEXT_TOKEN, batches).loss() == off
    with pytest.raises(ValueError, match="drew random numbers in mode='train'"):
        lg.Problem(model, NEXT_TOKEN, batches, mode="train").loss()
    drawn, again, other = (
        lg.Problem(model, NEXT_TOKEN, batches, mode="train", seed=seed) for seed in (0, 0, 1)
    )
    assert drawn.loss() == again.loss()
    assert len({drawn.loss(), other.loss(), off}) == 3
    assert "random numbers of the model fixed by seed 0, one draw a batch" in drawn.notes
    v, h = direction(drawn.theta), 1e-5
    Hv = lg.Hessian(drawn) @ v
    assert torch.equal(lg.Hessian(again, memory_budget=0) @ v, Hv)
    # one function of theta: its Hessian is the slope of its gradient
    gradients = [drawn.at(drawn.theta + step * v).gradient() for step in (h, -h)]
    assert_close(Hv, (gradients[0] - gradients[1]) / (2 * h), rtol=1e-6)
