"""What was trained, inside other libraries: a scikit-learn classifier here, a spaCy component in ``spacy_pipe``."""

from lightft.integrations.estimator import LightFTClassifier

__all__ = ["LightFTClassifier"]
