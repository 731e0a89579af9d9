"""Pictures of a comparison as SVG. Each function below draws one, or returns None where there is nothing to draw."""

from __future__ import annotations

from lightft.comparison import Comparison
from lightft.reports.pictures.classes import confusion_picture, label_picture, roc_picture
from lightft.reports.pictures.costs import cost_pictures
from lightft.reports.pictures.curves import loss_picture, validation_picture
from lightft.reports.pictures.differences import difference_picture
from lightft.reports.pictures.picture import Picture
from lightft.reports.pictures.scores import score_picture

__all__ = ["Picture", "draw_pictures"]


def draw_pictures(comparison: Comparison) -> list[Picture]:
    """Return the pictures that the comparison has data for."""
    candidates = [
        score_picture(comparison),
        difference_picture(comparison),
        label_picture(comparison),
        confusion_picture(comparison),
        roc_picture(comparison),
        loss_picture(comparison),
        validation_picture(comparison),
        *cost_pictures(comparison),
    ]
    return [picture for picture in candidates if picture is not None]
