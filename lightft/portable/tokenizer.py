"""The tokenizer in ``tokenizer.json``, without transformers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from lightft.errors import AdapterError
from lightft.reading.windows import Offsets, special_tokens_around

__all__ = ["TOKENIZER_NAME", "FileTokenizer"]

TOKENIZER_NAME = "tokenizer.json"


class FileTokenizer:
    """Splits texts into the tokens that the model was trained on.

    Args:
        folder: holds ``tokenizer.json``.

    Raises:
        AdapterError: the file is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TOKENIZER_NAME
        if not self._path.is_file():
            raise AdapterError(
                f"{folder} has no {TOKENIZER_NAME}: the tokenizer is missing. Export the adapter again, or restore the file."
            )
        try:
            self._tokenizer = Tokenizer.from_str(self._path.read_text(encoding="utf-8"))
        except Exception as cause:  # what the parser raises has no class of its own
            raise AdapterError(
                f"{self._path} is damaged ({cause}). Export the adapter again, or restore the file."
            ) from cause
        # Both are how it was called when it was saved, not what it is.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def tokens(self, texts: list[str]) -> Iterable[tuple[list[int], Offsets]]:
        """Yield the token ids of each text, without special tokens, and where the tokens stand in it."""
        for found in self._tokenizer.encode_batch(texts, add_special_tokens=False):
            yield found.ids, found.offsets

    def whole(self, text: str, max_length: int, cut: str) -> list[int]:
        """Return a text's token ids with special tokens; those beyond ``max_length`` are cut off on the side ``cut``."""
        found = self._tokenizer.encode(text, add_special_tokens=False)
        found.truncate(max_length - self._tokenizer.num_special_tokens_to_add(False), direction=cut)
        return list(self._tokenizer.post_process(found).ids)

    def special_tokens_around(self) -> tuple[list[int], list[int]]:
        """Return the ids it puts before and after a text.

        Raises:
            AdapterError: a text's own tokens change when special tokens are added.
        """
        bare, whole = (self._tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
        around = special_tokens_around(bare, whole)
        if around is None:
            raise AdapterError(
                f"The tokenizer in {self._path} changes the tokens of a text when it adds its special tokens, so a long "
                "text cannot be cut into windows. Restore the file."
            )
        return around
