"""Tiny random models and tokenizers of every kind the tests need, and small data that they can learn."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightft import Example, Span
from lightft.spans import join_words

# Each training ends with a search for garbage; without what was imported by now that takes no time.
gc.freeze()

LABELS = ("negative", "positive")
TYPES = ("LOC", "PER")
TOKENIZERS = ("wordpiece", "byte-bpe", "unigram")

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
"""A template that writes the end-of-turn token and a line break after it, as many do."""

SENTENCES = (
    "anna met bert in new york and they saw a good film",
    "the film was bad , but rome was good !",
    "Anna Berg went from Paris to Rome with Bert today .",
    "it was a very long and boring film about the sea",
)
_WORDS = sorted({word for sentence in SENTENCES for word in sentence.lower().split() if word.isalpha()})
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_MARKS = list(".,!?'\"-:;()#|<>/{}[]")


def wordpiece_tokenizer(*, model_max_length: int = 64) -> PreTrainedTokenizerFast:
    """BERT's kind: lower-cased, accents stripped, ``##`` before what continues a word."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *_WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), *_MARKS]
    vocabulary = {name: index for index, name in enumerate(dict.fromkeys(names))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=model_max_length,
    )


def byte_bpe_tokenizer(*, model_max_length: int = 64, roberta: bool = True) -> PreTrainedTokenizerFast:
    """GPT-2's kind, byte by byte; with ``roberta`` it puts ``<s>`` and ``</s>`` around a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if roberta:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=model_max_length,
    )


def unigram_tokenizer(*, model_max_length: int = 64) -> PreTrainedTokenizerFast:
    """SentencePiece's kind, as XLM-RoBERTa's: NFKC, and a ``▁`` for the space before a word, which offsets include."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -3.0)]
    pieces += [(f"▁{word}", -4.0 - 0.01 * rank) for rank, word in enumerate(_WORDS)]
    pieces += [(letter, -6.0 - 0.01 * rank) for rank, letter in enumerate([*_LETTERS, *_LETTERS[:26].upper(), *_MARKS])]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=model_max_length,
    )


def llama_tokenizer(*, chat: bool, pad: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level decoder's tokenizer that puts ``<s>`` before a text; without ``pad``, padding is end-of-sequence."""
    tokenizer = byte_bpe_tokenizer(roberta=False, model_max_length=256)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    backend.add_special_tokens([AddedToken(f"<|{role}|>", special=True) for role in ("system", "user", "assistant")])
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=256,
        **({"pad_token": "<pad>"} if pad else {}),
    )
    made.chat_template = CHAT_TEMPLATE if chat else None
    return made


def tokenizer_of(kind: str, **settings: int) -> PreTrainedTokenizerFast:
    """Return one of TOKENIZERS."""
    makers = {"wordpiece": wordpiece_tokenizer, "byte-bpe": byte_bpe_tokenizer, "unigram": unigram_tokenizer}
    return makers[kind](**settings)


def save_bert(folder: Path, *, seed: int = 0, dropout: float = 0.0, tokenizer: str = "wordpiece") -> Path:
    """Write a random BERT of two layers, without a head, and its tokenizer."""
    its_tokenizer = tokenizer_of(tokenizer)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(its_tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.1,
        pad_token_id=its_tokenizer.pad_token_id,
    )
    BertModel(config).save_pretrained(folder)
    its_tokenizer.save_pretrained(folder)
    return folder


def save_llama(folder: Path, *, seed: int = 0, chat: bool = True, pad: bool = False) -> Path:
    """Write a random LLaMA of two layers with its output layer, and its tokenizer."""
    tokenizer = llama_tokenizer(chat=chat, pad=pad)
    torch.manual_seed(seed)
    LlamaForCausalLM(llama_config(len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def llama_config(vocabulary: int) -> LlamaConfig:
    """Return the settings of the tiny LLaMA."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=2,
        tie_word_embeddings=False,
    )


def classified_texts(rows: int = 16) -> tuple[Example, ...]:
    """Return texts of many lengths whose class one word tells."""
    filler = ["the", "film", "about", "the", "sea", "was", "very", "long", "and", "it", "saw", "rome"]
    return tuple(
        Example(
            str(row),
            " ".join([*filler[: (5 * row) % len(filler)], ("bad", "good")[row % 2], *filler[: row % 3]]),
            LABELS[row % 2],
        )
        for row in range(rows)
    )


def tagged_texts(rows: int = 16) -> tuple[Example, ...]:
    """Return sentences in words, of many lengths, with people and places of one and two words."""
    filler = ["and", "then", "they", "saw", "a", "very", "boring", "film", "with"]
    examples = []
    for row in range(rows):
        tokens = [
            *filler[: row % 7],
            "anna",
            *(["berg"] if row % 2 else []),
            "met",
            "bert",
            "in",
            *(["new", "york"] if row % 3 else ["rome"]),
        ]
        if row % 4 == 3:
            tokens = filler[: row % 9]
        examples.append(tagged(str(row), tokens))
    return tuple(examples)


_PEOPLE_AND_PLACES = {"anna": "PER", "bert": "PER", "rome": "LOC", "new": "LOC"}
_SECOND_WORDS = {"berg", "york"}


def tagged(name: str, tokens: list[str]) -> Example:
    """Return a sentence in which anna (berg) and bert are people, rome and new york places."""
    text, words = join_words(tokens)
    spans = []
    for place, token in enumerate(tokens):
        if token in _PEOPLE_AND_PLACES:
            last = place + 1 if tokens[place + 1 : place + 2] and tokens[place + 1] in _SECOND_WORDS else place
            spans.append(Span(words[place][0], words[last][1], _PEOPLE_AND_PLACES[token]))
    return Example(name, text, tuple(spans), words=words)


def instructions(rows: int = 12) -> tuple[Example, ...]:
    """Return instructions and answers of many lengths."""
    filler = ["the", "film", "about", "the", "sea", "was", "very", "long", "and", "it", "saw", "rome"]
    return tuple(
        Example(str(row), " ".join(["say", *filler[: 1 + row % 9]]), " ".join(filler[: 1 + (3 * row) % 7]))
        for row in range(rows)
    )


def save_gguf(path: Path, *, seed: int = 0) -> LlamaForCausalLM:
    """Write the tiny LLaMA as a GGUF file with F32, F16 and Q8_0 tensors; returns the model before quantisation."""
    import gguf

    tokenizer = llama_tokenizer(chat=False)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(llama_config(len(tokenizer))).eval()
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    _write_vocabulary(writer, tokenizer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        module, _, kind = name.rpartition(".")
        values = weight.numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(
            module.rpartition(".")[2]
        )
        if heads is not None:
            # llama.cpp rotates neighbouring dimensions, transformers the two halves.
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        if "mlp" in name:
            packing = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(
                f"{names.get_name(module)}.{kind}", gguf.quants.quantize(values, packing), raw_dtype=packing
            )
        else:
            values = values.astype("float16") if "v_proj" in name else values
            writer.add_tensor(f"{names.get_name(module)}.{kind}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _write_vocabulary(writer: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    special = {*tokenizer.added_tokens_decoder}
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokenizer.convert_ids_to_tokens(index) for index in range(len(tokenizer))])
    writer.add_token_types([3 if index in special else 1 for index in range(len(tokenizer))])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
