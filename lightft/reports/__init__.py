"""Reports: from a comparison to text. Each file of this folder is one, named by the suffix of the file it makes."""

from __future__ import annotations

from lightft.reports import csv_table, html_page, markdown, scores_svg
from lightft.reports.report import REPORTS, Report, register, save_report

__all__ = ["REPORTS", "Report", "csv_table", "html_page", "markdown", "register", "save_report", "scores_svg"]
