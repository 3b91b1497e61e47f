"""Trees of parameters, array by array, with their names."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxmeta.types import PyTree

Path = tuple[Any, ...]  # names of an array, from the outermost: ("conv1", "kernel")


def picked(pick: Callable, tree: PyTree, path: Path = ()) -> PyTree:
    """What `pick(names, w)` gives of each array; dicts lose the names where it is None."""
    if isinstance(tree, Mapping):
        found = {n: picked(pick, a, (*path, n)) for n, a in tree.items()}
        return {n: a for n, a in found.items() if jax.tree.leaves(a)}
    return jax.tree_util.tree_map_with_path(
        lambda inner, w: pick((*path, *map(_name, inner)), w), tree
    )


def filled(
    tree: PyTree,
    moved: PyTree,
    merge: Callable = lambda path, w, m: m,
    path: Path = (),
) -> PyTree:
    """`merge(names, w, m)` in place of each array w of which there is an m in `moved`.

    Raises: ValueError for a name in `moved` that is not in the tree.
    """
    if isinstance(tree, Mapping):
        if unknown := [n for n in moved if n not in tree]:
            raise ValueError(
                f"moved: the parameters have no {said((*path, unknown[0]))}; expected a "
                "tree like init(params), of the same parameters"
            )
        return {
            n: filled(a, moved[n], merge, (*path, n)) if n in moved else a
            for n, a in tree.items()
        }
    return jax.tree_util.tree_map_with_path(
        lambda inner, w, m: (
            w if m is None else merge((*path, *map(_name, inner)), w, m)
        ),
        tree,
        moved,
    )


def _name(entry) -> str:
    return jax.tree_util.keystr((entry,), simple=True)


def arrays(tree: PyTree) -> list[tuple[Path, jax.Array]]:
    """All of them, with their names."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(tuple(map(_name, path)), w) for path, w in leaves]


def said(path: Path) -> str:
    """The names of an array in a sentence: conv1/kernel."""
    return "/".join(map(str, path))
