"""How sure a model is of each entity, and how often it is right when it is."""

from lightft.llm_ner.confidence.answer_scores import span_scores_of_answer
from lightft.llm_ner.confidence.calibration import Calibration, CalibrationQuality, Threshold

__all__ = ["Calibration", "CalibrationQuality", "Threshold", "span_scores_of_answer"]
