"""What lies around the tests: beside the checkout, and in the environment."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


def shared(name: str) -> Path:
    """A folder of ../shared; skips where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"needs {path}, which is not in this checkout's surroundings")
    return path


def xla_flags(without: str) -> str:
    """XLA's flags of the tests for a process of its own, but for those with a word."""
    flags = os.environ.get("XLA_FLAGS", "").split()
    return " ".join(flag for flag in flags if without not in flag)
