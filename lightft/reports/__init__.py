"""Reports: from a comparison to text. Each file of this folder is one, named by the suffix of the file it makes."""

from __future__ import annotations

from lightft.reports import csv_table, figures, html_page, markdown
from lightft.reports.report import REPORTS, Report, register

__all__ = ["REPORTS", "Report", "csv_table", "figures", "html_page", "markdown", "register"]
