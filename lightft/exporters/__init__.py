"""Exporters: what a trained adapter can be turned into."""

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from lightft.exporters import adapter, bundle, gguf, merged, onnx
from lightft.exporters.certificate import MergeCertificate
from lightft.exporters.exporter import EXPORTERS, Exporter, export, register
from lightft.exporters.gguf_certificate import GgufCertificate
from lightft.exporters.hub import push_to_hub
from lightft.exporters.model_card import model_card
from lightft.exporters.onnx_certificate import OnnxCertificate

__all__ = [
    "EXPORTERS",
    "Exporter",
    "GgufCertificate",
    "MergeCertificate",
    "OnnxCertificate",
    "adapter",
    "bundle",
    "export",
    "gguf",
    "merged",
    "model_card",
    "onnx",
    "push_to_hub",
    "register",
]
