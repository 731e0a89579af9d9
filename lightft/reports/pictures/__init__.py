"""Pictures of a comparison as SVG. Each function below draws one, or returns None where there is nothing to draw."""

from __future__ import annotations

from lightft.comparison import Comparison
from lightft.reports.pictures.bars import memory_picture, outcome_picture
from lightft.reports.pictures.confusions import confusion_picture
from lightft.reports.pictures.costs import cost_pictures
from lightft.reports.pictures.curves import loss_picture, validation_picture
from lightft.reports.pictures.differences import difference_picture
from lightft.reports.pictures.labels import label_picture, slice_picture
from lightft.reports.pictures.picture import Picture
from lightft.reports.pictures.probabilities import precision_recall_picture, roc_picture
from lightft.reports.pictures.reliability import reliability_picture
from lightft.reports.pictures.scores import score_picture
from lightft.reports.pictures.sensitivity import sensitivity_pictures

__all__ = ["Picture", "draw_pictures"]


def draw_pictures(comparison: Comparison) -> list[Picture]:
    """Return the pictures that the comparison has data for."""
    candidates = [
        score_picture(comparison),
        difference_picture(comparison),
        *cost_pictures(comparison),
        label_picture(comparison),
        confusion_picture(comparison),
        outcome_picture(comparison),
        slice_picture(comparison),
        roc_picture(comparison),
        precision_recall_picture(comparison),
        reliability_picture(comparison),
        loss_picture(comparison),
        validation_picture(comparison),
        memory_picture(comparison),
        *sensitivity_pictures(comparison),
    ]
    return [picture for picture in candidates if picture is not None]
