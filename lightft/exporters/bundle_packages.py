"""What a bundled model is served with: the installed versions of all packages, and lightft itself as a wheel."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections import deque
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

__all__ = ["requirements", "write_own_wheel"]

_CPU_WHEELS = "https://download.pytorch.org/whl/cpu"
_FOR_ONNX = ("numpy", "onnxruntime", "safetensors", "tokenizers")
_FOR_GPUS = ("nvidia-", "cuda-", "triton")
_LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
_MOMENT = (1980, 1, 1, 0, 0, 0)


def requirements(*, with_torch: bool) -> str:
    """Return a requirements file for ``lightft serve`` on Linux without a GPU, in the versions installed here.

    Args:
        with_torch: whether a checkpoint is served, which takes all that lightft needs; an ONNX model takes much less.
    """
    pins = sorted(_pin(name, found) for name, found in _needed(with_torch=with_torch).items())
    return "\n".join([*([f"--extra-index-url {_CPU_WHEELS}"] if with_torch else []), *pins]) + "\n"


def _needed(*, with_torch: bool) -> dict[str, Distribution | Requirement]:
    """Return by name what is needed, directly or not: as installed, or as required where it is not installed here."""
    found: dict[str, Distribution | Requirement] = {}
    waiting = deque(_named_by_lightft(with_torch=with_torch))
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        required = waiting.popleft()
        name = canonicalize_name(required.name)
        asked = (name, frozenset(required.extras))
        if name.startswith(_FOR_GPUS) or asked in seen:
            continue
        seen.add(asked)
        try:
            found[name] = installed = distribution(name)
        except PackageNotFoundError:
            # Such as a package that only Linux has, when the bundle is made on Windows.
            found[name] = required
            continue
        waiting += _required_by(installed, {"", *required.extras})
    return found


def _named_by_lightft(*, with_torch: bool) -> list[Requirement]:
    own = distribution("lightft")
    if with_torch:
        return list(_required_by(own, {"", "serve"}))
    of_service = [required for required in _required_by(own, {"serve"}) if required.marker is not None]
    return [*of_service, *map(Requirement, _FOR_ONNX)]


def _required_by(package: Distribution, extras: set[str]) -> Iterator[Requirement]:
    for line in package.requires or ():
        required = Requirement(line)
        marker = required.marker
        if marker is None or any(marker.evaluate({**_LINUX, "extra": extra}) for extra in extras):
            yield required


def _pin(name: str, found: Distribution | Requirement) -> str:
    if isinstance(found, Requirement):
        return f"{name}{found.specifier}"
    installed = Version(found.version)
    if name == "torch":
        return f"torch=={installed.public}+cpu"
    return f"{name}=={installed.public}"


def write_own_wheel(folder: Path) -> Path:
    """Write lightft, as it is installed or checked out here, as a wheel into ``folder``, and return it.

    So the bundle is served by the very code that made its certificate, whatever a package index holds.
    """
    own = distribution("lightft")
    contents = {**_package_files(), **_description_files(own)}
    information = f"lightft-{own.version}.dist-info"
    contents[f"{information}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: lightft\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    record = f"{information}/RECORD"
    lines = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in sorted(contents.items())]
    contents[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    folder.mkdir()
    wheel = folder / f"lightft-{own.version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in sorted(contents.items()):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            file.writestr(entry, content)
    return wheel


def _package_files() -> dict[str, bytes]:
    package = Path(__file__).resolve().parents[1]
    return {
        path.relative_to(package.parent).as_posix(): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _description_files(own: Distribution) -> dict[str, bytes]:
    """Return name, version, requirements, commands and licence, as they were installed."""
    kept = ("METADATA", "entry_points.txt", "LICENSE")
    return {
        str(file): file.locate().read_bytes()  # type: ignore[attr-defined]
        for file in own.files or ()
        if file.parts[0].endswith(".dist-info") and file.name in kept
    }


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
