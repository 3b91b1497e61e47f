"""Parameters that were trained elsewhere: files, names, and the order of axes."""

import difflib
import os
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from jaxmeta import checks
from jaxmeta.types import PyTree


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of a safetensors file, under their names in it.

    Args: path: of the file. Needs `pip install 'jaxmeta[safetensors]'`.
    Returns: name -> array, what `renamed` takes.
    Raises: ValueError for what is no such file, FileNotFoundError if it isn't there;
        ImportError without the package.
    """
    checks.check_paths(path=path)
    try:
        from safetensors import SafetensorError, numpy
    except ImportError as error:
        raise ImportError(
            "safetensors files are read by the package of that name: pip install "
            "'jaxmeta[safetensors]'"
        ) from error
    try:
        return numpy.load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"path: {os.fspath(path)} is no safetensors file ({error}); expected one, "
            "e.g. made by safetensors.torch.save_file"
        ) from error


def renamed(
    arrays: Mapping[str, Any],
    names: Mapping[str, str],
    layout: Literal["torch"] | None = None,
) -> PyTree:
    """A tree of parameters from a flat dict of arrays with other names.

    Args:
        arrays: name -> array, as a file has them; what is not in `names` is left out.
        names: name here, layers and arrays with slashes between -> name there, e.g.
            {"conv1/kernel": "features.0.weight"}.
        layout: "torch" for its order of axes, [out, in, ...space]: arrays of two to five
            axes become [...space, in, out], but tables named `embedding` here. What no
            array tells is the order within a flattened image: there channels come
            first, in our networks last.

    Returns: a dict of dicts of arrays, for `jm.models.pretrained`, `restricted`,
        `fine_tune`, which hold its shapes against the network's.
    Raises: ValueError for names that are not in `arrays`, or one that is both an array
        and a layer.

    >>> theirs = {"fc.weight": np.zeros((3, 4)), "fc.bias": np.zeros(3)}
    >>> names = {"head/kernel": "fc.weight", "head/bias": "fc.bias"}
    >>> renamed(theirs, names, layout="torch")["head"]["kernel"].shape
    (4, 3)
    """
    if layout is not None:
        checks.check_choice("layout", layout, ("torch",))
    _check_named(arrays, names)
    tree = {}
    for ours, theirs in names.items():
        *path, last = ours.split("/")
        layer = tree
        for name in path:
            layer = layer.setdefault(name, {})
            if not isinstance(layer, dict):
                raise ValueError(f"names: {ours} lies in what is an array itself")
        if last in layer:
            raise ValueError(f"names: {ours} is a layer, it can't be an array as well")
        array = np.asarray(arrays[theirs])
        layer[last] = _from_torch(array, last) if layout == "torch" else array
    return tree


def _from_torch(array: np.ndarray, name: str) -> np.ndarray:
    """[out, in, ...space] -> [...space, in, out]."""
    if array.ndim < 2 or array.ndim > 5 or name == "embedding":
        return array
    return np.ascontiguousarray(np.moveaxis(array, (1, 0), (-2, -1)))


def _check_named(arrays, names) -> None:
    """Raise ValueError unless each name is that of an array, naming the first few."""
    for argument, given in (("arrays", arrays), ("names", names)):
        if not isinstance(given, Mapping) or not given:
            raise ValueError(
                f"{argument}: expected a dict that is not empty, got {checks.said(given)}"
            )
    absent = [theirs for theirs in names.values() if theirs not in arrays]
    if absent:
        near = [n for a in absent for n in difflib.get_close_matches(str(a), arrays, 1)]
        raise ValueError(
            f"names: arrays has no {checks.few(absent)}; nearest are "
            f"{checks.few(near or list(arrays))}"
        )
