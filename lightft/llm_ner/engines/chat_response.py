"""What a server of OpenAI's chat protocol sends, read whatever the bytes are: an answer and its tokens, or an error."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any

from lightft.llm_ner.engines.engine import Answer

__all__ = ["error_message", "read_answer", "writable"]

_HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")


def read_answer(body: bytes) -> Answer:
    """Return the answer that a response holds, or one with an error, whatever the bytes are."""
    try:
        response = json.loads(body)
    except (ValueError, RecursionError):
        return Answer("", error="The server's answer is not JSON.")
    choices = response.get("choices") if isinstance(response, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Answer("", error="The server's answer has no choices with a message.")
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        return Answer("", error=f"The server's message is {type(content).__name__}, not text.")
    text = writable(content or "")
    pieces = _pieces_of(text, _tokens(choice.get("logprobs")))
    return Answer(text, pieces=pieces, cut=choice.get("finish_reason") == "length")


def error_message(body: bytes) -> str:
    """Return the sentence in an error's body: servers put it into ``error``, ``message`` or ``detail``."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    return writable(said) if isinstance(said, str) else body.decode(errors="replace")


def writable(text: str) -> str:
    """Return the text with U+FFFD for each half of a surrogate pair, which no file and no request can hold."""
    return _HALF_OF_A_PAIR.sub("\ufffd", text)


def _tokens(log_probabilities: Any) -> list[tuple[str, float]]:
    """Return the tokens of a choice, those that only together make a character as one; none where one is unreadable."""
    content = log_probabilities.get("content") if isinstance(log_probabilities, dict) else None
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    tokens: list[tuple[str, float]] = []
    written, total = "", 0.0
    for token in content if isinstance(content, list) else []:
        encoded = _bytes_of(token)
        # Compared, so that nan and what no float can hold are neither.
        if encoded is None or type(token.get("logprob")) not in (int, float) or not -1e6 < token["logprob"] < 1:
            return []
        written += decoder.decode(encoded)
        total += min(float(token["logprob"]), 0.0)
        if not decoder.getstate()[0]:
            tokens.append((written, total))
            written, total = "", 0.0
    return tokens


def _bytes_of(token: Any) -> bytes | None:
    if not isinstance(token, dict):
        return None
    numbers, text = token.get("bytes"), token.get("token")
    if isinstance(numbers, list) and all(type(number) is int and 0 <= number < 256 for number in numbers):
        return bytes(numbers)
    return writable(text).encode() if isinstance(text, str) else None


def _pieces_of(text: str, tokens: list[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Return the tokens that make up a text, cut to it: servers also tell those of its end, or of thoughts before it."""
    begin = "".join(written for written, _ in tokens).rfind(text) if text else -1
    if begin < 0:
        return ()
    pieces = []
    place = -begin
    for written, log_probability in tokens:
        inside = text[max(place, 0) : max(place + len(written), 0)]
        if inside:
            pieces.append((inside, log_probability))
        place += len(written)
    return tuple(pieces)
