"""Data sets of the Hugging Face Hub, read from their data files; no code of a data set is ever run."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lightft.data.readers import data_suffix
from lightft.data.splits import check_shards, split_name
from lightft.errors import DataError

__all__ = ["HubFiles", "download"]

CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps Parquet files of data sets that are written otherwise."""


@dataclass(frozen=True)
class HubFiles:
    """Data files of a Hub data set, on this machine.

    Attributes:
        splits: the files of each split; under ``""`` the one file of a set that has no splits.
        commit: the commit they belong to.
        from_cache: whether the Hub could not be asked, so that what was downloaded earlier is used.
    """

    splits: dict[str, list[Path]]
    commit: str
    from_cache: bool


def download(repo: str, config: str | None, revision: str | None, pattern: str | None) -> HubFiles:
    """Download the data files of a data set, or find them in the cache where the Hub cannot be reached.

    Args:
        repo: ``owner/name``.
        config: the configuration; may be None where there is one.
        revision: branch, tag or commit; the main branch unless given.
        pattern: file-name pattern; all data files unless given.

    Raises:
        DataError: there is no such data set or revision, it is only a loading script, its configuration is not
            named, or the Hub cannot be reached and nothing is cached. Each message says what to do.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    asked = f"{repo}{f' at {revision}' if revision else ''}"
    try:
        info = HfApi().dataset_info(repo, revision=revision, timeout=_TIMEOUT_SECONDS)
        names = [file.rfilename for file in info.siblings or []]
        chosen = _choose(repo, names, config, revision, pattern)
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=_literal(chosen)))
        from_cache = False
    except GatedRepoError as cause:
        raise DataError(
            f"The Hub data set {repo} asks for consent. Accept its terms at {HfApi().endpoint}/datasets/{repo}, "
            "then run `hf auth login`."
        ) from cause
    except RepositoryNotFoundError as cause:
        raise DataError(
            f"There is no data set {repo!r} on the Hub ({HfApi().endpoint}), or you may not see it, and no file or "
            "folder of that name here. Check the spelling; for a private set run `hf auth login`."
        ) from cause
    except RevisionNotFoundError as cause:
        raise DataError(
            f"The Hub data set {repo} has no revision {revision!r}. Give a branch, tag or commit that its page lists."
        ) from cause
    except (OSError, _network_error()) as cause:
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code < 500:
            raise DataError(f"The Hub refused {asked}: {cause}") from cause
        folder = _cached_folder(repo, revision, asked, cause)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        chosen = _choose(repo, names, config, revision, pattern)
        from_cache = True
    splits = {split: [folder / name for name in files] for split, files in chosen.items()}
    for paths in splits.values():
        check_shards(paths)
    return HubFiles(splits, commit=folder.name, from_cache=from_cache)


_TIMEOUT_SECONDS = 30.0

# Where a data set is there in several formats, the one with types and names of classes is read.
_PREFERRED = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".conll", ".iob2", ".bio", ".iob", ".txt")

_NOT_DATA = ("dataset_info", "dataset_infos", "dataset_dict", "state", "config", "requirements", "readme", "license")


def _network_error() -> type[Exception]:
    # The base of what the Hub's HTTP client raises, whichever client this version of huggingface_hub uses.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined,unused-ignore]

    return HTTPError  # type: ignore[no-any-return,unused-ignore]


def _cached_folder(repo: str, revision: str | None, asked: str, cause: BaseException) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(
            snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True, allow_patterns=[])
        )
    except LocalEntryNotFoundError:
        pass
    if isinstance(cause, OfflineModeIsEnabled):
        raise DataError(
            f"The Hub data set {asked} is not on this machine and HF_HUB_OFFLINE forbids to download it. Unset "
            "HF_HUB_OFFLINE, or name a folder or file that holds the data."
        ) from cause
    raise DataError(
        f"The Hub ({HfApi().endpoint}) cannot be reached for the data set {asked}, and no file or folder of that name "
        f"is here ({type(cause).__name__}). Check the network and HF_ENDPOINT, or name a folder or file that holds the "
        "data."
    ) from cause


def _choose(
    repo: str, names: Sequence[str], config: str | None, revision: str | None, pattern: str | None
) -> dict[str, list[str]]:
    """Return the data files of each split."""
    files = [PurePosixPath(name) for name in names if _is_data(PurePosixPath(name))]
    if not files:
        _refuse_without_data(repo, names, revision)
    files = [file for file in files if pattern is None or fnmatch.fnmatch(file.name, pattern)]
    files = _of_config(repo, files, config)
    suffixes = {data_suffix(file.name) for file in files}
    preferred = next((suffix for suffix in _PREFERRED if suffix in suffixes), None)
    files = sorted(file for file in files if data_suffix(file.name) == preferred)
    splits: dict[str, list[str]] = {}
    for file in files:
        splits.setdefault(_split_of_path(file) or "", []).append(str(file))
    if "" in splits and len(files) > 1:
        raise DataError(
            f"It is not clear which split of {repo} these files are: {_shown(splits[''])}. Download the files you need "
            'and name them: {"train": …, "test": …}.'
        )
    if not splits:
        raise DataError(f"No data file of {repo} is called {pattern!r}. Its files are {_shown(names)}.")
    return splits


def _is_data(file: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") for part in file.parts)
    described = file.name.split(".")[0].lower() in _NOT_DATA
    return data_suffix(file.name) is not None and not hidden and not described


def _refuse_without_data(repo: str, names: Sequence[str], revision: str | None) -> None:
    scripts = [name for name in names if name.endswith(".py")]
    if scripts and revision != CONVERTED:
        raise DataError(
            f"The Hub data set {repo} is only a loading script ({scripts[0]}), and code of data sets is not run here. "
            f'Read the Parquet files that the Hub made of it: revision="{CONVERTED}".'
        )
    raise DataError(
        f"The Hub data set {repo} holds no data file that can be read here. Its files are {_shown(names)}. Download "
        "and convert them to JSONL, CSV or Parquet."
    )


def _of_config(repo: str, files: Sequence[PurePosixPath], config: str | None) -> list[PurePosixPath]:
    configs = sorted({name for file in files if (name := _config_of_path(file))})
    if config is None and len(configs) <= 1:
        return list(files)
    config = config or "default"
    if config in configs:
        return [file for file in files if _config_of_path(file) == config]
    if config == "default":
        raise DataError(
            f"The Hub data set {repo} has the configurations {', '.join(configs)}. Name one: '{repo}:{configs[0]}'."
        )
    raise DataError(
        f"The Hub data set {repo} has no configuration {config!r}. It has {', '.join(configs) or 'no named ones'}."
    )


def _config_of_path(file: PurePosixPath) -> str | None:
    """Return the configuration a file belongs to: its first folder, unless that names a split or is just "data"."""
    folders = [part for part in file.parts[:-1] if part != "data" and split_name(part) is None]
    return folders[0] if folders else None


def _split_of_path(file: PurePosixPath) -> str | None:
    """Return the split a path speaks of: by the words of its file name, else by its folders, the nearest first."""
    words = file.name.split(".")[0].replace("_", "-").split("-")
    return next((split for name in (*words, *reversed(file.parts[:-1])) if (split := split_name(name))), None)


def _literal(chosen: dict[str, list[str]]) -> list[str]:
    # Patterns are matched with fnmatch: brackets in a file's name would be read as a set of characters.
    return [name.replace("[", "[[]") for files in chosen.values() for name in files]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
