"""The scores of a comparison as one SVG picture, in a file of its own."""

from __future__ import annotations

from lightft.comparison import Comparison
from lightft.reports.pictures.scores import draw_all_scores
from lightft.reports.pictures.svg import drawn
from lightft.reports.report import REPORTS


@REPORTS.register("svg")
def scores_svg(comparison: Comparison) -> str:
    """Return one picture of every run's score in every metric."""
    return drawn("scores", f"Scores of {len(comparison.rows)} runs", lambda: draw_all_scores(comparison)) + "\n"
