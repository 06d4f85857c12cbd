"""Models of Hugging Face, built from a configuration, and batches like those of their collators."""

import sys

import pytest
import torch
from torch import Tensor

from tests.real_models.models import CLASSES, LENGTH, TOKENS, built, text

with pytest.MonkeyPatch.context() as patch:
    # transformers imports torchvision wherever it is installed, also where it was built for another
    # torch and cannot be imported, as beside a torch for the CPU alone. Models of text need none.
    patch.setitem(sys.modules, "torchvision", None)
    from transformers import (
        BatchEncoding,
        BertConfig,
        BertForSequenceClassification,
        GPT2Config,
        GPT2LMHeadModel,
    )

__all__ = ["BatchEncoding", "batches_of", "bert", "encoded", "gpt2"]


def gpt2(dropout: float = 0.0) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=TOKENS,
        n_positions=LENGTH,
        n_embd=8,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        initializer_range=0.2,
    )
    return built(GPT2LMHeadModel, config)


def bert(dropout: float = 0.1) -> BertForSequenceClassification:
    config = BertConfig(
        vocab_size=TOKENS,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        num_labels=CLASSES,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.2,
    )
    return built(BertForSequenceClassification, config)


def encoded(labels: Tensor, padding: str = "right") -> dict[str, Tensor]:
    """All examples at once: tokens, where they are, and labels."""
    tokens, _ = text()
    mask = torch.ones_like(tokens)
    for i, length in enumerate([7, 4, 6, 2, 7, 5]):
        mask[i, length:] = 0
    if padding == "left":
        mask = mask.flip(1)
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": labels}


def batches_of(everything: dict[str, Tensor], sizes: list[int], kind: type = dict) -> list:
    parts = zip(*(tensor.split(sizes) for tensor in everything.values()), strict=True)
    return [kind(dict(zip(everything, part, strict=True))) for part in parts]
