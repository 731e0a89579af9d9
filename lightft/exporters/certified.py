"""What the certificate of an export says, in one line."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightft.wording import percent_words

__all__ = ["certificate_line"]

_ENDING = "_certificate.json"


def certificate_line(written: Path) -> str | None:
    """Return how alike the exported model and the adapter answered; None for an export that was not compared.

    Args:
        written: the folder or the archive that an exporter returned.
    """
    for name, content in _certificates(written):
        found = content.get("agreement")
        if found is not None:
            return (
                f"Certified on {found['rows']:,} rows: {percent_words(found['argmax_agreement'])} of {found['positions']:,} "
                f"answers alike, logits at most {found['largest_logit_gap']:.2g} apart ({name})"
            )
    return None


def _certificates(written: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if written.is_dir():
        for path in sorted(written.rglob(f"*{_ENDING}")):
            yield path.name, json.loads(path.read_text(encoding="utf-8"))
    elif written.name.endswith(".tar.gz"):
        with tarfile.open(written) as archive:
            for member in archive:
                if member.name.endswith(_ENDING) and (file := archive.extractfile(member)) is not None:
                    yield Path(member.name).name, json.load(file)
