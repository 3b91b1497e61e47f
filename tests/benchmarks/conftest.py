"""Experiments are scripts beside each other: tests import them from their folder."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    """Import an experiment; its results go to a folder of the test."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER / "speed"))
    monkeypatch.setattr(importlib.import_module("report"), "FOLDER", tmp_path)
    return importlib.import_module
