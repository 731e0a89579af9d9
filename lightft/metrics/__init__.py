"""Metrics: from predictions to scores. Each file of this folder is one metric or a few that share their counts."""

from __future__ import annotations

from lightft.metrics import (
    accuracy,
    answer_f1,
    calibration_error,
    class_f1,
    exact_match,
    likelihood,
    published_f1,
    roc_auc,
    span_f1,
    token_accuracy,
)
from lightft.metrics.metric import METRICS, Metric, RankMetric, register
from lightft.metrics.scoring import build_metric, score_predictions
from lightft.metrics.span_errors import SpanErrors, SpanRow, span_errors, span_table
from lightft.metrics.tables import (
    ConfusionMatrix,
    LabelScore,
    ReliabilityBin,
    confusion_matrix,
    labels_of,
    per_label_table,
    precision_recall_curve,
    reliability_bins,
    roc_curve,
)

__all__ = [
    "METRICS",
    "ConfusionMatrix",
    "LabelScore",
    "Metric",
    "RankMetric",
    "ReliabilityBin",
    "SpanErrors",
    "SpanRow",
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
    "precision_recall_curve",
    "published_f1",
    "register",
    "reliability_bins",
    "roc_auc",
    "roc_curve",
    "score_predictions",
    "span_errors",
    "span_f1",
    "span_table",
    "token_accuracy",
]
