"""Reports: from a comparison to text or bytes. Each is a file of this folder, named by the suffix of the file it makes."""

from __future__ import annotations

from lightft.reports import csv_table, html_page, latex, markdown, parquet_table, scores_svg
from lightft.reports.report import REPORTS, Report, register, save_report

__all__ = [
    "REPORTS",
    "Report",
    "csv_table",
    "html_page",
    "latex",
    "markdown",
    "parquet_table",
    "register",
    "save_report",
    "scores_svg",
]
