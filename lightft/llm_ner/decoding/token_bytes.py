"""TokenBytes: what each token of a vocabulary writes, byte by byte."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import defaultdict
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from lightft.errors import InvalidSettingError

__all__ = ["TokenBytes"]


class TokenBytes:
    """The bytes each token writes, for byte-level BPE and for SentencePiece's ``▁``, with or without byte tokens.

    Control tokens and every other token that was added to the vocabulary write nothing, so that no text can hold one.

    Attributes:
        end_token: id of the token that ends an answer.
        ids: token ids by what they write.

    Raises:
        InvalidSettingError: the tokenizer is of another kind, or has no end token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.eos_token_id is None:
            raise InvalidSettingError(
                "The tokenizer has no end token, so an answer would never end. Set tokenizer.eos_token."
            )
        self.end_token: int = tokenizer.eos_token_id
        self._tokenizer = tokenizer
        written = _written_by_token(tokenizer)
        if not _CONTINUING_BYTES.issubset(written.values()):
            # Half a character could then be left without its other half.
            written = {token: piece for token, piece in written.items() if _is_text(piece)}
        self._by_id = written
        ids: dict[bytes, list[int]] = defaultdict(list)
        for token, piece in sorted(written.items()):
            ids[piece].append(token)
        self.ids = {piece: tuple(tokens) for piece, tokens in ids.items()}
        self._sorted = sorted(self.ids)

    def __getitem__(self, token: int) -> bytes:
        """Return what a token writes; nothing for a control token."""
        return self._by_id.get(token, b"")

    def begins(self, piece: bytes) -> bool:
        """Return whether some token's bytes begin with ``piece``: a step in the trie that the sorted vocabulary is."""
        place = bisect_left(self._sorted, piece)
        return place < len(self._sorted) and self._sorted[place].startswith(piece)

    def longest(self, written: bytes, start: int) -> bytes:
        """Return the longest token that ``written`` goes on with at ``start``; empty if there is none."""
        best = b""
        for end in range(start + 1, len(written) + 1):
            piece = written[start:end]
            if piece in self.ids:
                best = piece
            elif not self.begins(piece):
                break
        return best

    def missing_from(self, text: str) -> list[str]:
        """Return the characters that no tokens write."""
        return [
            character
            for character in sorted(set(text))
            if character.encode() not in self.ids and any(bytes((b,)) not in self.ids for b in character.encode())
        ]

    def tokenised(self, text: str) -> list[int]:
        """Return the tokenizer's own tokens of a text, in which control tokens are not recognised."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def prefix(self, text: str) -> bytes:
        """Return the space that the tokenizer puts before a text, as LLaMA 2's does; empty if none."""
        sample = " a" if text.startswith(" ") else "a"
        written = b"".join(self[token] for token in self.tokenised(sample)) if text else b""
        return b" " if written == b" " + sample.encode() else b""


# What all characters of several bytes go on with, in UTF-8. Of other bytes, vocabularies leave out those they never saw.
_CONTINUING_BYTES = {bytes((byte,)) for byte in range(0x80, 0xC0)}
_BYTES_BY_LETTER = {letter: byte for byte, letter in bytes_to_unicode().items()}


def _written_by_token(tokenizer: PreTrainedTokenizerBase) -> dict[int, bytes]:
    """Return what each ordinary token writes, by the way the tokenizer decodes."""
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"] if tokenizer.is_fast else None
    kinds = [part["type"] for part in _decoders(decoder)]
    if "ByteLevel" in kinds:
        read = _read_byte_level
    elif "Metaspace" in kinds or {"type": "Replace", "pattern": {"String": "▁"}, "content": " "} in _decoders(decoder):
        read = _read_byte_fallback if "ByteFallback" in kinds else _read_metaspace
    else:
        raise InvalidSettingError(
            f"{type(tokenizer).__name__} decodes by {', '.join(kinds) or 'rules of its own'}; constrained decoding reads "
            "byte-level BPE (GPT-2, LLaMA 3, SmolLM) and SentencePiece vocabularies. Take a model with one of these."
        )
    added = tokenizer.added_tokens_decoder.keys() | set(tokenizer.all_special_ids)
    return {token: read(name) for name, token in tokenizer.get_vocab().items() if token not in added and read(name)}


def _decoders(decoder: dict[str, Any] | None) -> list[dict[str, Any]]:
    if decoder is None:
        return []
    return decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]


def _read_byte_level(name: str) -> bytes:
    return bytes(_BYTES_BY_LETTER[letter] for letter in name) if _BYTES_BY_LETTER.keys() >= set(name) else b""


def _read_metaspace(name: str) -> bytes:
    return name.replace("▁", " ").encode()


def _read_byte_fallback(name: str) -> bytes:
    return bytes((int(name[3:5], 16),)) if _BYTE_TOKEN.fullmatch(name) else _read_metaspace(name)


_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")


def _is_text(piece: bytes) -> bool:
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True
