"""Models of Hugging Face, built from a configuration, and batches like those of their collators."""

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.real_models.models import CLASSES, LENGTH, TOKENS, built, text


@functools.cache
def transformers() -> ModuleType:
    """The library, which takes seconds to import, for the tests that use it alone."""
    with pytest.MonkeyPatch.context() as patch:
        # It imports torchvision wherever it is installed, also where it was built for another torch
        # and cannot be imported, as beside a torch for the CPU alone. Models of text need none.
        patch.setitem(sys.modules, "torchvision", None)
        import transformers

        assert transformers.BertForSequenceClassification  # is imported here
        assert transformers.GPT2LMHeadModel
    return transformers


def batch_encoding(parts: dict[str, Tensor]) -> Any:
    """A batch as their tokenizers return it."""
    return transformers().BatchEncoding(parts)


def gpt2(dropout: float = 0.0) -> nn.Module:
    config = transformers().GPT2Config(
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
    return built(transformers().GPT2LMHeadModel, config)


def bert(dropout: float = 0.1) -> nn.Module:
    config = transformers().BertConfig(
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
    return built(transformers().BertForSequenceClassification, config)


def encoded(labels: Tensor, padding: str = "right") -> dict[str, Tensor]:
    """All examples at once: tokens, where they are, and labels."""
    tokens, _ = text()
    mask = torch.ones_like(tokens)
    for i, length in enumerate([7, 4, 6, 2, 7, 5]):
        mask[i, length:] = 0
    if padding == "left":
        mask = mask.flip(1)
    return {"input_ids": tokens * mask, "attention_mask": mask, "labels": labels}


def batches_of(everything: dict[str, Tensor], sizes: list[int], kind: Callable = dict) -> list:
    parts = zip(*(tensor.split(sizes) for tensor in everything.values()), strict=True)
    return [kind(dict(zip(everything, part, strict=True))) for part in parts]
