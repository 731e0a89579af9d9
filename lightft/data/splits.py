"""Which file is which split, and splits made by us where the source has none."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lightft.data.readers import FORMATS, data_suffix
from lightft.data.task_data import normalised_text
from lightft.errors import DataError, InvalidSettingError
from lightft.records import Example

__all__ = ["TEST_FRACTION", "cut", "rows_wanted", "split_files", "split_name", "split_of_file_name"]

TEST_FRACTION = 0.2
"""Part of a file without splits that is set aside as the test split."""

_SPLIT_NAMES = {
    "train": "train", "training": "train",
    "dev": "validation", "devel": "validation", "development": "validation",
    "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip

# The Hub once added a hash: train-00000-of-00001-9ad84bb9cf65a42f.parquet
_SHARD = re.compile(r"-(\d+)-of-(\d+)(-[0-9a-f]{16})?$")


def split_name(name: str) -> str | None:
    """Return train, validation or test for a usual name of one (``"dev"``), None for any other."""
    return _SPLIT_NAMES.get(name.lower())


def split_of_file_name(name: str) -> str | None:
    """Return the split of a file called exactly so: ``dev.conll``, ``train-00000-of-00002.parquet``."""
    suffix = data_suffix(name)
    if suffix is None:
        return None
    stem = name.removesuffix(".gz")[: -len(suffix)]
    return split_name(_SHARD.sub("", stem))


def split_files(folder: Path) -> dict[str, list[Path]]:
    """Return the files of each split in a folder, shards in order.

    Raises:
        DataError: there are none, a split is there in two formats, or a shard is missing.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    splits: dict[str, list[Path]] = {}
    for name in names:
        split = split_of_file_name(name)
        if split is not None:
            splits.setdefault(split, []).append(folder / name)
    if not splits:
        raise DataError(
            f"{folder} holds no data splits: {', '.join(names[:10]) or 'it is empty'}. Files are called train, "
            f"validation (or dev) and test, with a suffix of {', '.join(FORMATS)}; or name one file."
        )
    for split, paths in splits.items():
        if len(paths) > 1 and not all(_SHARD.search(path.name.split(".")[0]) for path in paths):
            raise DataError(
                f"{folder} holds more than one {split} file: {', '.join(path.name for path in paths)}. Keep one, or "
                'name the files: {"train": …, "validation": …, "test": …}.'
            )
        check_shards(paths)
    return splits


def check_shards(paths: Sequence[Path]) -> None:
    """Raise DataError where a split is said to have more shards than there are files."""
    for path in paths:
        shard = _SHARD.search(path.name.split(".")[0])
        if shard and int(shard[2]) != len(paths):
            raise DataError(
                f"{path.name} is one of {int(shard[2])} parts, but there are {len(paths)} here. Copy or download "
                "the others."
            )


def rows_wanted(validation: float, available: int) -> int:
    """Return how many of ``available`` rows a fraction (float) or a number of rows (int) asks for.

    Raises:
        InvalidSettingError: a fraction outside [0, 1), or as many rows as there are or more.
    """
    if isinstance(validation, int):
        if not 0 <= validation < max(available, 1):
            raise InvalidSettingError(
                f"validation={validation}: that many rows cannot be set aside of {available}. Give fewer, or a fraction."
            )
        return validation
    if not 0 <= validation < 1:
        raise InvalidSettingError(f"validation={validation}: a fraction lies in [0, 1), a number of rows is an int.")
    return math.floor(validation * available + 0.5)


def cut(examples: Sequence[Example], wanted: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Set about ``wanted`` examples aside; return the rest and those set aside, both in the order they came.

    Examples with the same text, apart from case, spaces and punctuation, stay on one side, so that none leaks to the
    other; the number set aside is smaller than asked for only where such a group does not fit. Which are chosen
    depends on their texts and ``seed`` alone, not on their order or on the other examples.
    """
    groups: dict[str, list[int]] = {}
    for position, example in enumerate(examples):
        groups.setdefault(normalised_text(example), []).append(position)
    aside: set[int] = set()
    for key in sorted(groups, key=lambda text: _lot(text, seed)):
        if len(aside) + len(groups[key]) <= wanted:
            aside.update(groups[key])
    rest = [example for position, example in enumerate(examples) if position not in aside]
    return rest, [examples[position] for position in sorted(aside)]


def file_names(files: Mapping[str, Iterable[Path]]) -> dict[str, list[str]]:
    """Return the names of the files of each split."""
    return {split: [path.name for path in paths] for split, paths in files.items()}


def _lot(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{text}".encode("utf-8", "surrogatepass")).digest()
