"""Tiny random models of every architecture that practitioners reach for, and sentences to train them on.

Offline, and made anew each time: nothing is read from the Hub.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from lightft import Example, Span
from lightft.spans import join_words

__all__ = [
    "BEYOND",
    "CONFIGS",
    "LABELS",
    "PAIRS",
    "VOCABULARY",
    "WORDS",
    "Pair",
    "examples",
    "save_base",
    "save_language_model",
]

VOCABULARY = 96
WORDS = (
    "anna",
    "met",
    "bert",
    "in",
    "rome",
    "today",
    "and",
    "it",
    "was",
    "good",
    "bad",
    "film",
    "the",
    "a",
    "saw",
    "paris",
)
_SPECIAL_TOKENS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]")
LABELS: Mapping[str, tuple[str, ...]] = {"text-classification": ("bad", "good"), "token-classification": ("LOC", "PER")}
"""The classes and the entity types of the examples; a language model has none."""

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2, "head_dim": 16}
_DISENTANGLED = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 32}
_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _COMMON,
    "roberta": {**_COMMON, "max_position_embeddings": 66},
    "xlm-roberta": {**_COMMON, "max_position_embeddings": 66},
    "camembert": {**_COMMON, "max_position_embeddings": 66},
    "electra": {**_COMMON, "embedding_size": 32},
    "albert": {**_COMMON, "embedding_size": 32},
    "distilbert": {
        "vocab_size": VOCABULARY,
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 128,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    },
    "mpnet": {**_COMMON, "max_position_embeddings": 66},
    "deberta": {**_COMMON, **_DISENTANGLED},
    "deberta-v2": {
        **_COMMON,
        **_DISENTANGLED,
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "modernbert": {**_COMMON, "cls_token_id": 1, "sep_token_id": 2},
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, **_SPECIAL},
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "ffn_dim": 128,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 64,
        **_SPECIAL,
    },
    "llama": _COMMON,
    "mistral": _GROUPED,
    "qwen2": {**_COMMON, "num_key_value_heads": 2},
    "qwen3": _GROUPED,
    "gemma": _GROUPED,
    "phi": _COMMON,
    "bart": {
        "vocab_size": VOCABULARY,
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 128,
        "decoder_ffn_dim": 128,
        "max_position_embeddings": 64,
        **_SPECIAL,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    },
    "t5": {
        "vocab_size": VOCABULARY,
        "d_model": 64,
        "num_layers": 2,
        "num_heads": 4,
        "d_ff": 128,
        "d_kv": 16,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 0,
    },
    "xlnet": {"vocab_size": VOCABULARY, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 128, **_SPECIAL},
}
BEYOND = ("bart", "t5", "xlnet")
"""Encoder-decoders and XLNet, whose heads peft neither trains nor saves of its own accord."""

_AUTO = {
    "text-classification": transformers.AutoModelForSequenceClassification,
    "token-classification": transformers.AutoModelForTokenClassification,
}


@dataclass(frozen=True)
class Pair:
    """An architecture with a head."""

    architecture: str
    task: str

    def __str__(self) -> str:
        return f"{self.architecture}-{self.task.partition('-')[0]}"


def _pairs() -> tuple[Pair, ...]:
    found = []
    for architecture, settings in CONFIGS.items():
        config = AutoConfig.for_model(architecture, **settings)
        found += [Pair(architecture, task) for task, auto in _AUTO.items() if type(config) in auto._model_mapping]
    return tuple(found)


PAIRS = _pairs()


def save_base(pair: Pair, folder: Path, *, with_head: bool, **settings: Any) -> Path:
    """Write a tiny random checkpoint, as a bare base or with the pair's head in it, and its tokenizer.

    Args:
        pair: the architecture, and the head.
        folder: where to.
        with_head: whether the checkpoint holds the head.
        settings: of the architecture's config, in the place of those in CONFIGS.
    """
    outputs = len(LABELS[pair.task]) if pair.task == "text-classification" else 2 * len(LABELS[pair.task]) + 1
    config = AutoConfig.for_model(pair.architecture, **{**CONFIGS[pair.architecture], **settings}, num_labels=outputs)
    torch.manual_seed(7)
    model = _AUTO[pair.task].from_config(config) if with_head else AutoModel.from_config(config)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def save_language_model(folder: Path, **settings: Any) -> Path:
    """Write a tiny random LLaMA with its output layer, and a byte-level tokenizer, as LLaMA 3's is."""
    config = AutoConfig.for_model("llama", **{**CONFIGS["llama"], **settings})
    torch.manual_seed(7)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    _byte_level_tokenizer().save_pretrained(folder)
    return folder


def examples(task: str, rows: int = 8) -> tuple[Example, ...]:
    """Return sentences of different lengths with their classes, entities or, for a language model, answers."""
    made = []
    for number in range(rows):
        tokens = [WORDS[(5 * number + place) % len(WORDS)] for place in range(3 + number % 8)]
        text, words = join_words(tokens)
        if task == "text-classification":
            made.append(Example(str(number), text, LABELS[task][number % 2]))
        elif task == "causal-lm":
            made.append(Example(str(number), text, " ".join(reversed(tokens))))
        else:
            spans = tuple(
                Span(*words[place], label)
                for place, token in enumerate(tokens)
                for label in [{"anna": "PER", "bert": "PER", "rome": "LOC", "paris": "LOC"}.get(token)]
                if label is not None
            )
            made.append(Example(str(number), text, spans, words=words))
    return tuple(made)


def _tokenizer() -> PreTrainedTokenizerFast:
    names = [*_SPECIAL_TOKENS, *WORDS]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _with_special_tokens(tokenizer)


def _byte_level_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Not one token per byte: the vocabulary stays as small as the other one's.
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(_SPECIAL_TOKENS), initial_alphabet=[], show_progress=False
    )
    tokenizer.train_from_iterator([*WORDS, *(f" {word}" for word in WORDS)], trainer)
    return _with_special_tokens(tokenizer)


def _with_special_tokens(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=48,
    )
