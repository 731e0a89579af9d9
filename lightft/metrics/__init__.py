"""Metrics: from predictions to scores. Each file of this folder is one metric or a few that share their counts."""

from __future__ import annotations

from lightft.metrics import (
    accuracy,
    answer_f1,
    calibration_error,
    class_f1,
    exact_match,
    likelihood,
    roc_auc,
    span_f1,
    token_accuracy,
)
from lightft.metrics.metric import METRICS, Metric, RankMetric, register
from lightft.metrics.scoring import build_metric, score_predictions
from lightft.metrics.tables import ConfusionMatrix, LabelScore, confusion_matrix, labels_of, per_label_table, roc_curve

__all__ = [
    "METRICS",
    "ConfusionMatrix",
    "LabelScore",
    "Metric",
    "RankMetric",
    "accuracy",
    "answer_f1",
    "build_metric",
    "calibration_error",
    "class_f1",
    "confusion_matrix",
    "exact_match",
    "labels_of",
    "likelihood",
    "per_label_table",
    "register",
    "roc_auc",
    "roc_curve",
    "score_predictions",
    "span_f1",
    "token_accuracy",
]
