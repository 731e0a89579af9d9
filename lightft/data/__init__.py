"""Data from any source as examples: Hub sets, folders, files, and files inside installed packages."""

from lightft.data.loading import load_data, read_examples
from lightft.data.reference_sets import REFERENCE_SETS, ReferenceSet
from lightft.data.task_data import TaskData, count_duplicates, examples_fingerprint

__all__ = [
    "REFERENCE_SETS",
    "ReferenceSet",
    "TaskData",
    "count_duplicates",
    "examples_fingerprint",
    "load_data",
    "read_examples",
]
