"""Files of texts in, files of entities out, and a page to look at them."""

from lightft.llm_ner.files.extraction import FileResult, TextExtractor, extract_file
from lightft.llm_ner.files.page import write_page

__all__ = ["FileResult", "TextExtractor", "extract_file", "write_page"]
