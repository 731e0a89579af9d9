"""A tagger of the size of RoBERTa-base with random weights, for tests of what such a model takes."""

from __future__ import annotations

import itertools
from pathlib import Path

from tokenizers import models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from lightft import LoRATrainer, ModelLoader
from tests.tiny_models import TYPES, byte_bpe_tokenizer, tagged_texts

__all__ = ["save_tagger_of_roberta_size"]


def save_tagger_of_roberta_size(folder: Path) -> Path:
    """Write a base model and an adapter on it into ``folder``, and return the adapter's folder."""
    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    RobertaModel(config).save_pretrained(folder / "base")
    _tokenizer().save_pretrained(folder / "base")
    loader = ModelLoader(str(folder / "base"), task="token-classification", labels=TYPES, dtype="float32")
    trainer = LoRATrainer(loader, adapter="head-only", epochs=1, batch_size=4, progress=False)
    return trainer.save(trainer.train(tagged_texts(4)), folder / "adapter")


def _tokenizer() -> PreTrainedTokenizerFast:
    """As many tokens and merges as RoBERTa's has: the bytes, and pairs of them."""
    tokenizer = byte_bpe_tokenizer(model_max_length=512)
    backend = tokenizer.backend_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = list(itertools.islice(itertools.product(alphabet, alphabet), 50_000))
    names = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, *("".join(pair) for pair in merges)]
    backend.model = models.BPE({name: index for index, name in enumerate(names)}, merges)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=512,
    )
