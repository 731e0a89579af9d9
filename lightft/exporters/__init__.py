"""Exporters: what a trained adapter can be turned into."""

import lightft.stack  # noqa: F401  (first, so that it speaks before the packages it checks)

# isort: split
from lightft.exporters import merged
from lightft.exporters.certificate import MergeCertificate
from lightft.exporters.exporter import EXPORTERS, Exporter, export, register

__all__ = ["EXPORTERS", "Exporter", "MergeCertificate", "export", "merged", "register"]
