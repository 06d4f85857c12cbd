"""Real models are trusted where their derivatives are right, and told about where they are not."""

import torch
import torch.nn.functional as F
from torch import nn

import lossgeom as lg
from lossgeom.lab.models import resnet18
from tests.real_models.hugging_face import batches_of, bert, encoded
from tests.real_models.models import CATEGORIES, LENGTH, TOKENS, Classifier, built
from tests.real_models.plain import Plain, assert_close, direction


def test_many_kinks_are_not_wrong_derivatives():
    """Between the points that a difference is taken of, some of the units switch."""
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    problem = lg.Problem(resnet18(width=4), "cross_entropy", [(x, CATEGORIES[:4])], mode="train")
    lg.check_derivatives(problem)


def test_an_embedding_with_padding():
    """Its row at padding_idx has no gradient, as in training, however much the outputs need it."""
    tokens = encoded(CATEGORIES)["input_ids"]
    model = built(Classifier, nn.GRU)
    model.tokens = nn.Embedding(TOKENS, 5, padding_idx=0).double()
    problem = lg.Problem(model, "cross_entropy", [(tokens, CATEGORIES)])
    plain = Plain(model, lambda m: m(tokens), lambda f: F.cross_entropy(f, CATEGORIES))
    v = direction(plain.theta)
    assert_close(lg.Hessian(problem) @ v, plain.hessian_product(v))


def test_the_doctor_finds_bert_healthy():
    data = batches_of(encoded(CATEGORIES), [4, 2])
    assert lg.doctor(lg.Problem(bert(), "cross_entropy", data)).healthy


class Encoder(nn.Module):
    """With torch's own layer, which calls the attention function inside of another function."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(TOKENS, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8 * LENGTH, 3)

    def forward(self, tokens):
        return self.head(self.layer(self.tokens(tokens)).flatten(1))


def encoder_problem():
    tokens = encoded(CATEGORIES)["input_ids"]
    return lg.Problem(built(Encoder), "cross_entropy", [(tokens, CATEGORIES)])


def test_attention_in_torchs_own_layers_is_noted():
    problem = encoder_problem()
    problem.loss()
    assert any("scaled_dot_product_attention" in note for note in problem.notes)


def test_the_doctor_notes_what_is_switched():
    data = batches_of(encoded(CATEGORIES), [4, 2])
    diagnosis = lg.doctor(lg.Problem(bert(), "cross_entropy", data))
    assert any("scaled_dot_product_attention" in note for note in diagnosis.notes)


def test_compilation_in_place_is_noted():
    problem = encoder_problem()
    problem.model.compile(backend="eager")
    assert any("torch.compile" in note for note in problem.refreshed().notes)
