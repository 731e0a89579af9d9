"""Use an exported ONNX folder without torch, transformers or peft: onnxruntime, tokenizers and NumPy are enough."""

from lightft.portable.description import OnnxDescription
from lightft.portable.predictor import OnnxPredictor, load_onnx

__all__ = ["OnnxDescription", "OnnxPredictor", "load_onnx"]
