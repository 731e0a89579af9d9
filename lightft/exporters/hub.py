"""Upload of what was exported to a model repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, errors
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from lightft.errors import InvalidSettingError, LightFTError

__all__ = ["check_repository_name", "is_repository_name", "push_to_hub"]

_NETWORK_ERROR: type[Exception] = vars(errors)["HTTPError"]
_REASONS = {
    401: "the Hub does not know the token. Log in with `hf auth login`, or give token=...",
    403: "the token may not write there. Make one with the role write at https://huggingface.co/settings/tokens",
    404: "there is no such owner, or the token may not see it. Check the spelling (owner/name)",
    413: "a file is larger than the Hub takes",
    429: "the Hub was asked too often. Wait a few minutes",
}


def push_to_hub(
    path: str | Path, repo_id: str, *, private: bool = True, token: str | None = None, message: str | None = None
) -> str:
    """Upload a folder, or one file, as a commit of a model repository, which is made if it does not exist.

    Args:
        path: what an exporter returned, or an adapter folder.
        repo_id: ``owner/name``.
        private: whether a repository that is made now is seen by its owner alone; one that exists stays as it is.
        token: of an account that may write there; by default the one that ``hf auth login`` stored, or ``HF_TOKEN``.
        message: of the commit.

    Returns:
        The address of the commit.

    Raises:
        InvalidSettingError: there is nothing at ``path``, or ``repo_id`` is no name of a repository.
        LightFTError: the Hub refuses it or cannot be reached; the sentence says why, and holds no token.
    """
    path = Path(path)
    check_repository_name(repo_id)
    if not path.exists():
        raise InvalidSettingError(f"There is nothing at {path} to upload. Name what an export wrote.")
    hub = HfApi(token=token, library_name="lightft")
    message = message or f"Upload {path.name} with lightft"
    try:
        hub.create_repo(repo_id, private=private, exist_ok=True)
        if path.is_dir():
            commit = hub.upload_folder(repo_id=repo_id, folder_path=path, commit_message=message)
        else:
            commit = hub.upload_file(
                path_or_fileobj=path, path_in_repo=path.name, repo_id=repo_id, commit_message=message
            )
    except HfHubHTTPError as cause:
        status = cause.response.status_code
        reason = _REASONS.get(status, "try again later")
        # What the client and the server say may hold headers and signed addresses; the status says enough.
        raise LightFTError(f"{path} was not uploaded to {repo_id!r} (HTTP status {status}): {reason}.") from None
    except (_NETWORK_ERROR, OSError) as cause:
        raise LightFTError(
            f"{path} was not uploaded to {repo_id!r}: the Hub cannot be reached ({type(cause).__name__}). What was exported "
            "is whole; upload it with lightft.exporters.push_to_hub when there is a connection."
        ) from None
    return str(commit.commit_url)


def check_repository_name(repo_id: str) -> None:
    """Refuse what is no ``owner/name``.

    Raises:
        InvalidSettingError: it is none.
    """
    if not is_repository_name(repo_id):
        raise InvalidSettingError(
            f"{repo_id!r} is no name of a Hub repository: give owner/name, of letters, digits, '-', '_' and '.'."
        )


def is_repository_name(name: str) -> bool:
    """Whether the Hub would take ``name`` as ``owner/name``."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return name.count("/") == 1
