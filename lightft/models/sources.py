"""Find the files of a base model, whatever its name is: a Hub id, a folder, a GGUF file or ``package:NAME/path``."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lightft.errors import ModelLoadError
from lightft.packaged import PREFIX, path_in_package

__all__ = ["ModelSource", "cache_folder", "find_model"]

_SAMPLED_BLOCKS = 64
_BLOCK_BYTES = 1 << 16
# The base of what the Hub's HTTP client raises, whichever client this version of huggingface_hub uses.
_NETWORK_ERROR: type[Exception] = vars(hub_errors)["HTTPError"]


@dataclass(frozen=True)
class ModelSource:
    """Where a base model was found.

    Attributes:
        name: as the user wrote it.
        location: what ``from_pretrained`` is given: a folder, or the Hub id.
        revision: the resolved commit of a Hub model, else None.
        gguf_file: the file's name inside ``location`` when the model is a GGUF file.
    """

    name: str
    location: str
    revision: str | None = None
    gguf_file: str | None = None

    @property
    def is_hub(self) -> bool:
        """Whether the files come from the Hub (or its cache)."""
        return self.revision is not None

    def digest(self) -> str:
        """Return a SHA-256 that tells this base from another of the same shape.

        It covers the size, the first block and 64 evenly spaced 64 KiB blocks of every weight file, so that a
        model of any size takes well under a second. A Hub model is named by its commit, which covers every byte.
        """
        if self.is_hub:
            return f"commit:{self.revision}"
        folder = Path(self.location)
        files = [folder / self.gguf_file] if self.gguf_file else _weight_files(folder)
        digest = hashlib.sha256()
        for file in files:
            size = file.stat().st_size
            digest.update(f"{file.name}:{size}".encode())
            with file.open("rb") as opened:
                for block in range(_SAMPLED_BLOCKS):
                    opened.seek(block * max(0, size - _BLOCK_BYTES) // (_SAMPLED_BLOCKS - 1))
                    digest.update(opened.read(_BLOCK_BYTES))
        return f"sha256:{digest.hexdigest()}"


def find_model(name: str | os.PathLike[str], revision: str | None = None) -> ModelSource:
    """Return where the model called ``name`` is.

    Args:
        name: ``owner/name`` of a Hub model, a folder, a ``.gguf`` file, or ``package:NAME/path`` for either inside an
            installed package (which is found without being imported).
        revision: commit, tag or branch of a Hub model; None is its default branch, resolved to a commit.

    Raises:
        ModelLoadError: nothing is there; the message says what to do.
    """
    name = os.fspath(name)
    if name.startswith(PREFIX):
        return _local_source(name, path_in_package(name, ModelLoadError))
    path = Path(name).expanduser()
    if path.exists():
        return _local_source(name, path)
    if path.suffix in (".gguf", ".safetensors", ".bin") or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelLoadError(
            f"There is no file or folder {name!r} (looked in {path.absolute().parent}). Give a folder with a config.json, "
            "a .gguf file, 'package:NAME/path', or a Hub id such as 'distilbert/distilbert-base-uncased'."
        )
    return _hub_source(name, revision)


def cache_folder() -> Path:
    """Return where converted models are kept: ``$LIGHTFT_HOME``, else ``~/.cache/lightft``."""
    return Path(os.environ.get("LIGHTFT_HOME", "~/.cache/lightft")).expanduser()


def _local_source(name: str, path: Path) -> ModelSource:
    if path.is_file() and path.suffix == ".gguf":
        return ModelSource(name, str(path.parent), gguf_file=path.name)
    if path.is_dir() and (path / "config.json").is_file():
        return ModelSource(name, str(path))
    if path.is_dir():
        ggufs = sorted(file.name for file in path.glob("*.gguf"))
        if len(ggufs) == 1:
            return ModelSource(name, str(path), gguf_file=ggufs[0])
        hint = (
            f"name one of its GGUF files ({', '.join(ggufs)})" if ggufs else "name a folder that save_pretrained wrote"
        )
        raise ModelLoadError(f"{name!r} is a folder without a config.json: {hint}.")
    raise ModelLoadError(f"{name!r} is neither a model folder nor a .gguf file. Name one of these, or a Hub id.")


def _hub_source(name: str, revision: str | None) -> ModelSource:
    asked = f"{name!r} at revision {revision!r}" if revision else repr(name)
    try:
        config = Path(hf_hub_download(name, "config.json", revision=revision))
    except GatedRepoError as cause:
        raise ModelLoadError(
            f"The Hub model {asked} is gated: accept its terms on its page, then log in with `hf auth login`."
        ) from cause
    except RevisionNotFoundError as cause:
        raise ModelLoadError(
            f"The Hub model {name!r} has no revision {revision!r}. Check the commit, tag or branch."
        ) from cause
    except RepositoryNotFoundError as cause:
        raise ModelLoadError(
            f"There is no model {name!r} on the Hub, or it is private. Check the spelling (owner/name), log in with "
            "`hf auth login` if it is private, or give a local folder."
        ) from cause
    except HFValidationError as cause:
        raise ModelLoadError(f"{name!r} is neither an existing path nor a Hub id of the form owner/name.") from cause
    except (EntryNotFoundError, _NETWORK_ERROR, OSError) as cause:
        # LocalEntryNotFoundError, "not in the cache and nobody to ask", is an EntryNotFoundError too.
        if isinstance(cause, EntryNotFoundError) and not isinstance(cause, LocalEntryNotFoundError):
            raise ModelLoadError(
                f"The Hub repository {asked} has no config.json, so it holds no transformers model."
            ) from cause
        raise ModelLoadError(
            f"The Hub cannot be reached and {asked} is not in the local cache. Connect once to download it, or give a "
            "local folder, a .gguf file, or 'package:NAME/path'."
        ) from cause
    return ModelSource(name, name, revision=config.parent.name)


def _weight_files(folder: Path) -> list[Path]:
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        files = sorted(folder.glob(pattern))
        if files:
            return files
    raise ModelLoadError(f"{folder} has a config.json but no weights (*.safetensors or pytorch_model*.bin).")
