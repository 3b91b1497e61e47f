"""What the benchmarks share: seeds, naming the device, printing and keeping results."""

import datetime
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

FOLDER = Path(__file__).parent / "results"


def seeds(run: Callable[..., dict], config: Any) -> dict:
    """The results of `run` for each of `config.seeds`: arrays [seeds, ...]."""
    return stacked([run(jax.random.key(seed), config) for seed in config.seeds])


def stacked(runs: list[Any]) -> Any:
    """Results of one shape as one: arrays [runs, ...] in dictionaries."""
    if isinstance(runs[0], dict):
        return {name: stacked([r[name] for r in runs]) for name in runs[0]}
    return np.array(runs)


def device() -> str:
    """The device in words, with the versions and the date."""
    kind = jax.devices()[0].device_kind
    cores = f", {os.cpu_count()} cores" if jax.default_backend() == "cpu" else ""
    today = datetime.date.today().isoformat()
    return f"{kind}{cores} ({platform.machine()}), jax {jax.__version__}, {today}"


def table(title: str, rows: list[dict]) -> None:
    """Print rows of one shape as Markdown, ready for the page of an experiment."""
    columns = list(rows[0])
    print(f"\n{title}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[c]) for c in columns) + " |", flush=True)


def spelled(values, form: str = ".2f") -> str:
    """Mean and range of a few seeds; of one, its value."""
    values = np.asarray(values)
    mean, low, high = (f"{f(values):{form}}" for f in (np.mean, np.min, np.max))
    return f"{mean} ({low} to {high})" if values.size > 1 else mean


def temporaries(program) -> float:
    """Megabytes that a compiled program needs besides arguments and results."""
    analysis = program.memory_analysis()
    assert analysis is not None, "this backend does not analyse memory"
    return analysis.temp_size_in_bytes / 2**20


def save(name: str, results: dict) -> Path:
    """Write results, with the device, to benchmarks/results/NAME.json."""
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    kept = {"device": device(), **results}
    path.write_text(json.dumps(kept, indent=2, default=lambda a: a.tolist()) + "\n")
    return path
