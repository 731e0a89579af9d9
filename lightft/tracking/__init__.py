"""Experiment tracking: runs, their curves, scores and files in MLflow, TensorBoard, Weights & Biases or Trackio."""

from lightft.tracking.live import LiveTracking, catch_up
from lightft.tracking.sending import log_report, track_run
from lightft.tracking.settings import TRACKERS, Tracking

__all__ = ["TRACKERS", "LiveTracking", "Tracking", "catch_up", "log_report", "track_run"]
