"""What every test and interval asks of its input, refused in the same words."""

from __future__ import annotations

from lightft.errors import InvalidSettingError


def check(n: int, *, level: float = 0.95, resamples: int = 1, trials: int = 1) -> None:
    """Refuse an empty test set, a confidence outside (0, 1) and fewer than one resample or trial."""
    if n == 0:
        raise InvalidSettingError("There are no examples to resample. Score a test set with at least one.")
    check_level(level)
    for name, value in (("resamples", resamples), ("trials", trials)):
        if value < 1:
            raise InvalidSettingError(f"{name} is {value!r}; it is at least 1, and 10,000 give steady numbers.")


def check_level(level: float) -> None:
    """Refuse a confidence outside (0, 1)."""
    if not 0 < level < 1:
        raise InvalidSettingError(f"level is {level!r}; it is a confidence between 0 and 1, such as 0.95.")


def check_paired(shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> None:
    """Refuse two arrays of different shapes."""
    if shape_a != shape_b:
        raise InvalidSettingError(
            f"The two do not pair up: shapes {shape_a} and {shape_b}. Give the same examples in the same order."
        )
