"""Dictionaries and lists in JSON or Python quoting, whole or damaged, read token by token: no depth is too deep."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Token", "Tokens"]


class Token(NamedTuple):
    """A bracket, colon or comma (``mark``), or a string or bare word (``value``)."""

    kind: str
    text: str
    quoted: bool = False


class Tokens:
    """The tokens of a dictionary or list, until it is closed.

    Iterating ends after the bracket that closes the first; then ``closed`` says whether there was one.

    Args:
        answer: any string.
        start: where its opening bracket stands.
    """

    def __init__(self, answer: str, start: int) -> None:
        self._answer = answer
        self.start = start
        self._end = start
        self.closed = False

    @property
    def end(self) -> int:
        """One past the last character read."""
        return self._end

    @property
    def rest(self) -> str:
        """What stands behind the last token."""
        return self._answer[self._end :]

    def __iter__(self) -> Iterator[Token]:
        depth = 0
        while (match := _TOKEN.match(self._answer, self._end)) is not None:
            self._end = match.end()
            kind = match.lastgroup
            if kind == "mark":
                depth += (match["mark"] in "{[(") - (match["mark"] in ")]}")
                yield Token("mark", match["mark"])
                if depth <= 0:
                    self.closed = True
                    return
            elif kind == "bare":
                yield Token("value", match["bare"].strip())
            elif kind is not None:
                yield Token("value", _unescaped(match[kind]), quoted=True)
        # An opening quote without a closing one: what follows is the begin of a string.
        self._end = len(self._answer)


# A quote closes a string only where something may follow, so that 'O'Neill' is read.
_CLOSES = r"(?=\s*(?:[,:\]\})]|\Z))"
_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<mark>[\[\]{}(),:])"
    rf'|"(?P<double>[^"\\]*(?:(?:\\.|"(?!{_CLOSES}))[^"\\]*)*)"{_CLOSES}'
    rf"|'(?P<single>[^'\\]*(?:(?:\\.|'(?!{_CLOSES}))[^'\\]*)*)'{_CLOSES}"
    r"|(?P<bare>[^\s\[\]{}(),:\"'][^\[\]{}(),:\"'\n]*)"
    r")",
    re.DOTALL,
)

_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|U(00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})|(.))", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"', "'": "'"}


def _unescaped(written: str) -> str:
    if "\\" not in written:
        return written
    read = _ESCAPE.sub(_unescape, written)
    if "\\u" in written:
        # JSON writes letters beyond U+FFFF as two halves.
        read = read.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return read


def _unescape(match: re.Match[str]) -> str:
    number = match[1] or match[2] or match[3]
    return chr(int(number, 16)) if number else _LETTERS.get(match[4], match.group())
