"""Numbers in words: rounded as a reader expects, with a dash for what is missing."""

from __future__ import annotations

import pytest

from lightft.wording import (
    count_words,
    duration_words,
    p_value_cell,
    p_value_words,
    percent_words,
    printable,
    score_words,
    signed_words,
    size_words,
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (score_words(0.86149), "0.861"),
        (score_words(-0.00001), "0.000"),
        (score_words(-0.0123), "−0.012"),
        (score_words(12.3456, "perplexity"), "12.35"),
        (score_words(12345.6, "perplexity"), "1.235e+04"),
        (score_words(float("inf"), "perplexity"), "inf"),
        (score_words(float("nan")), "–"),
        (signed_words(0.01), "+0.010"),
        (signed_words(-0.01), "−0.010"),
        (p_value_words(0.0004), "p < 0.001"),
        (p_value_words(0.0312), "p = 0.031"),
        (p_value_words(1.0), "p = 1.00"),
        (p_value_words(float("nan")), "–"),
        (p_value_cell(0.0004), "< 0.001"),
        (p_value_cell(0.0312), "0.031"),
        (p_value_cell(float("nan")), "–"),
        (percent_words(0.95), "95 %"),
        (percent_words(0.9999), "100 %"),
        (count_words(872), "872"),
        (count_words(99_999), "99,999"),
        (count_words(312_000), "0.31 M"),
        (count_words(22_713_216), "22.7 M"),
        (count_words(6_738_415_616), "6.74 B"),
        (count_words(None), "–"),
        (duration_words(0.42), "0.4 s"),
        (duration_words(38.4), "38 s"),
        (duration_words(59.7), "1 min 0 s"),
        (duration_words(552), "9 min 12 s"),
        (duration_words(7500), "2 h 5 min"),
        (duration_words(3599.8), "1 h 0 min"),
        (size_words(920), "920 B"),
        (size_words(1_260_000), "1.3 MB"),
        (size_words(999_600_000), "1.0 GB"),
        (size_words(1.2e9), "1.2 GB"),
        (printable("a\n b\x00c\ud800"), "a b�c�"),
    ],
)
def test_numbers_read_well(words: str, expected: str) -> None:
    assert words == expected
