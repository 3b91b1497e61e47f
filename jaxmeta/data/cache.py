"""A cache of decoded arrays that can be lost, broken or shared without harm."""

import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


def cached(name: str, version: str, make: Callable[[], np.ndarray]) -> np.ndarray:
    """`make()`, or what an earlier call of it left on disk.

    The file is written beside its place and renamed, so a reader sees all of it or
    nothing; its name has the version, its content a checksum. A file that can't be
    read is made again, and a folder that can't be written is done without.

    Args: name of the array; version, anything that the array depends on.
    """
    digest = hashlib.sha256(version.encode()).hexdigest()[:16]
    path = _folder() / f"{name}-{digest}.npz"
    found = _read(path)
    if found is None:
        found = make()
        _write(path, found)
    return found


def _folder() -> Path:
    """$JAXMETA_CACHE, else jaxmeta in $XDG_CACHE_HOME or ~/.cache."""
    if folder := os.environ.get("JAXMETA_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jaxmeta"


def _read(path: Path) -> np.ndarray | None:
    try:
        content = io.BytesIO(path.read_bytes())
        with np.load(content, allow_pickle=False) as stored:
            array, checksum = stored["array"], str(stored["checksum"])
    except Exception:  # absent, truncated, not ours: whatever it is, make it again
        return None
    return array if checksum == _checksum(array) else None


def _write(path: Path, array: np.ndarray) -> None:
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(file, array=array, checksum=_checksum(array))
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _checksum(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
