"""Exporters: what a trained adapter can be turned into."""

from lightft.exporters import merged
from lightft.exporters.exporter import EXPORTERS, Exporter, export, register

__all__ = ["EXPORTERS", "Exporter", "export", "merged", "register"]
