"""Five public data sets of the Hub that load by a short name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightft.spans import bio_labels

__all__ = ["REFERENCE_SETS", "ReferenceSet"]


@dataclass(frozen=True)
class ReferenceSet:
    """Where a well-known data set lies on the Hub and how its rows are read.

    Attributes:
        repo: ``owner/name`` of the data set.
        revision: a commit, or the branch of converted Parquet files where the set itself is a loading script.
        task: what it is a data set for.
        config: the configuration, where there are several.
        label_column: the column of tags or classes, where the usual one is not meant.
        files: file-name pattern of the files to read; all data files unless given.
        tag_names: names of numbered tags, where the files do not tell them.
        only: rows are kept where these columns have these values.
    """

    repo: str
    revision: str
    task: str
    config: str | None = None
    label_column: str | None = None
    files: str | None = None
    tag_names: tuple[str, ...] = ()
    only: Mapping[str, str] = field(default_factory=dict)


# The order in which the authors number them: https://huggingface.co/datasets/Babelscape/multinerd
_MULTINERD_TYPES = (
    "PER", "ORG", "LOC", "ANIM", "BIO", "CEL", "DIS", "EVE", "FOOD", "INST", "MEDIA", "MYTH", "PLANT", "TIME", "VEHI",
)  # fmt: skip

REFERENCE_SETS: Mapping[str, ReferenceSet] = {
    "conll2003": ReferenceSet("eriktks/conll2003", "refs/convert/parquet", "token-classification", config="conll2003"),
    "few-nerd": ReferenceSet(
        "DFKI-SLT/few-nerd",
        "205f3e9c9f3577ea2561d43f2f62dc249ab92d5b",
        "token-classification",
        config="supervised",
        label_column="fine_ner_tags",
    ),
    "guanaco-llama2-1k": ReferenceSet(
        "mlabonne/guanaco-llama2-1k", "27db19ecdc5fa7cd983280d1019ac2f1f96c96c1", "causal-lm"
    ),
    "multinerd": ReferenceSet(
        "Babelscape/multinerd",
        "2814b78e7af4b5a1f1886fe7ad49632de4d9dd25",
        "token-classification",
        files="*_en.jsonl",
        tag_names=bio_labels(_MULTINERD_TYPES),
        only={"lang": "en"},
    ),
    "sst2": ReferenceSet("stanfordnlp/sst2", "8d51e7e4887a4caaa95b3fbebbf53c0490b58bbb", "text-classification"),
}
"""By short name: the data of five well-known systems. SST-2's own test rows carry no gold labels and are left out."""
