"""Episodes frozen to a file, so that everybody is judged on the same ones."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmeta import checks
from jaxmeta.outer import sample_tasks
from jaxmeta.types import Batch, Sampler, Task


def freeze(sampler: Sampler, num_tasks: int, key: jax.Array, path: str | Path) -> Task:
    """Draw tasks and write them to a file, an uncompressed .npz without pickles.

    Args: sampler: of the tasks; task i is `sampler.sample(fold_in(key, i))`. num_tasks;
        key: typed key. path: of the file; it is written beside its place and renamed.
    Returns: the tasks, [tasks, ...], for `jm.evaluate_episodes`.
    Raises: ValueError for inputs that are other trees than dicts and tuples of arrays.

    >>> import tempfile, jaxmeta as jm
    >>> path = tempfile.mkdtemp() + "/sines.npz"
    >>> tasks = freeze(jm.tasks.sinusoid(), 20, jax.random.key(0), path)
    >>> learner = jm.nearest_neighbour(ways=None)
    >>> jm.evaluate_episodes(learner, (), frozen(path)).num_tasks
    20
    """
    checks.check_paths(path=path)
    tasks = jax.device_get(sample_tasks(sampler, key, num_tasks))
    arrays = {}
    for name, batch in tasks._asdict().items():
        for part, tree in batch._asdict().items():
            arrays |= _named(tree, f"{name}.{part}")
    content = io.BytesIO()
    np.savez(content, checksum=_checksum(arrays), **arrays)
    path = Path(path)
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    beside.write_bytes(content.getvalue())
    beside.replace(path)
    return tasks


def frozen(path: str | Path) -> Task:
    """The tasks of a file that `freeze` wrote, [tasks, ...].

    Raises: FileNotFoundError; ValueError for a file that is damaged, or holds pickles.
    """
    checks.check_paths(path=path)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"frozen: no file {path}; jm.tasks.freeze(sampler, num_tasks, key, path) "
            "writes one"
        )
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        checksum = str(arrays.pop("checksum"))
        if checksum != _checksum(arrays):
            raise ValueError("its checksum is another")
        return Task(_batch(arrays, "support"), _batch(arrays, "query"))
    except Exception as error:  # whatever a damaged file makes of the readers
        raise ValueError(
            f"frozen: {path} is damaged, or was not written by jm.tasks.freeze ({error}); "
            "write it again"
        ) from error


def _named(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of a tree of dicts and tuples, by their way to it."""
    if tree is None:
        return {}
    if isinstance(tree, dict):
        parts = [(f"{prefix}/:{name}", part) for name, part in tree.items()]
    elif isinstance(tree, tuple):
        parts = [(f"{prefix}/{i}", part) for i, part in enumerate(tree)]
    elif isinstance(tree, np.ndarray):
        return {prefix: tree}
    else:
        raise ValueError(
            f"freeze: expected dicts and tuples of arrays, got {type(tree).__name__} at "
            f"{prefix}"
        )
    return {name: a for way, part in parts for name, a in _named(part, way).items()}


def _batch(arrays: dict[str, np.ndarray], name: str) -> Batch:
    parts = [_tree(arrays, f"{name}.{part}") for part in Batch._fields]
    return Batch(*parts)


def _tree(arrays: dict[str, np.ndarray], prefix: str) -> Any:
    """The inverse of `_named`; None where there is nothing."""
    if prefix in arrays:
        return arrays[prefix]
    below = [n[len(prefix) + 1 :] for n in arrays if n.startswith(f"{prefix}/")]
    steps = list(dict.fromkeys(n.split("/")[0] for n in below))
    parts = [_tree(arrays, f"{prefix}/{step}") for step in steps]
    if not steps:
        return None
    if steps[0].startswith(":"):
        return dict(zip((s[1:] for s in steps), parts, strict=True))
    return tuple(parts)


def _checksum(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {a.dtype.str} {a.shape}".encode() + a.tobytes())
    return digest.hexdigest()
