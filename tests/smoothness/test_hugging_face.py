"""Jacobian norms of a classifier of Hugging Face in the embeddings of its tokens."""

import copy

import torch

import lossgeom as lg
from tests.real_models.hugging_face import batch_encoding, batches_of, bert, encoded
from tests.real_models.models import CATEGORIES
from tests.real_models.plain import untouched


def test_bert_in_its_embeddings(unchecked):
    """With padding that is masked, against one example at a time by inputs_embeds."""
    model = bert().train()
    everything = encoded(CATEGORIES)
    problem = lg.Problem(model, "cross_entropy", batches_of(everything, [4, 2], batch_encoding))
    eager = copy.deepcopy(model).eval()
    eager.set_attn_implementation("eager")
    words = eager.bert.embeddings.word_embeddings(everything["input_ids"]).detach()
    expected = []
    for E, mask in zip(words, everything["attention_mask"], strict=True):

        def logits(E, mask=mask):
            return eager(inputs_embeds=E[None], attention_mask=mask[None]).logits[0]

        J = torch.autograd.functional.jacobian(logits, E)
        expected.append(torch.linalg.matrix_norm(J.flatten(1), ord=2))
    with untouched(model):
        for method in ("exact", "lanczos"):
            norms = lg.jacobian_norms(
                problem,
                embedding="bert.embeddings.word_embeddings",
                method=method,
                tol=1e-6,
            )
            torch.testing.assert_close(norms.values, torch.stack(expected))
