"""What a run was made with: versions, device, revision, date."""

import datetime
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import jax

PACKAGES = ("jaxmeta", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def environment() -> dict[str, str]:
    """By name; the revision only in a checkout of git."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found["python"] = platform.python_version()
    found["device"] = jax.devices()[0].device_kind
    found["devices"] = str(jax.device_count())
    if at := revision():
        found["revision"] = at
    found["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return found


def revision() -> str:
    """Of the checkout that this package is in, with + if it was changed; or ""."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return ""
    git = lambda *words: subprocess.run(
        ["git", "-C", str(here), *words], capture_output=True, text=True, check=False
    ).stdout.strip()
    try:
        return git("rev-parse", "HEAD")[:12] + "+" * bool(git("status", "--porcelain"))
    except OSError:  # there is no git
        return ""
