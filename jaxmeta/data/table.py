"""Tables of numbers, CSV or Parquet: a row an example."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxmeta.checks import check_names, check_paths, said
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.columns import (
    Columns,
    check_column,
    has_numbers,
    labels_of,
    numbers_of,
    read_csv,
    read_parquet,
)
from jaxmeta.data.dataset import Dataset


def from_csv(
    path: str | Path,
    *,
    label: str | None = None,
    task: str | None = None,
    target: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    group: str | None = None,
    name: str | None = None,
    split: str = "",
) -> Dataset:
    """A data set from a CSV file: UTF-8, separated by commas, names in its first row.

    Spaces around a field are left out, blank rows too. Features are taken as they are: of
    columns of different scales, standardize them first.

    Args:
        path: of the file.
        label: the column that says the class of a row, text or integers; "label" where
            neither it nor `task` is given.
        task: the column that says to which task (a user, a site) a row belongs, instead
            of `label`; then
        target: is the column to predict, or a list of columns.
        features: the columns to predict from; None = all others that have numbers (any
            that have only text are left out; leave numbers of rows out yourself).
        group: a column with a group for each class (its domain).
        name, split: what messages and reports call it; None = the file's name.

    Returns: a `Dataset`, x [examples, features] float32, targets [examples, columns]
        float32 or None, origin the numbers of the rows.
    Raises: FileNotFoundError if there is no such file; ValueError with file and line for
        what is no such table, a missing column, an empty cell, text among numbers, NaN,
        or labels with a decimal point.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "points.csv")
    ...     _ = file.write_text("u,v,label\\n1,2,cat\\n3,4,dog\\n5,6,cat\\n")
    ...     data = from_csv(file)
    >>> data.classes, data.of("cat").tolist()
    (('cat', 'dog'), [[1.0, 2.0], [5.0, 6.0]])
    """
    roles = _roles(label, task, target, features, group)
    return _read(read_csv, "from_csv", path, roles, name, split)


def from_parquet(
    path: str | Path,
    *,
    label: str | None = None,
    task: str | None = None,
    target: str | Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    group: str | None = None,
    name: str | None = None,
    split: str = "",
) -> Dataset:
    """A data set from a Parquet file, read by pyarrow (`pip install 'jaxmeta[parquet]'`).

    Args, Returns: as those of `from_csv`; numbers are columns of integers, floating or
        decimal numbers, True and False (1 and 0); text is strings, also of a dictionary.
    Raises: as `from_csv`, with the number of the row, from 0; ModuleNotFoundError where
        pyarrow is not installed.
    """
    roles = _roles(label, task, target, features, group)
    return _read(read_parquet, "from_parquet", path, roles, name, split)


Roles = dict[str, list[str]]  # argument -> the columns it names


def _roles(label, task, target, features, group) -> Roles:
    one = {"label": label, "task": task, "group": group}
    check_names(**{a: column for a, column in one.items() if column is not None})
    if label is not None and task is not None:
        raise ValueError(
            f"label: expected a column of classes (label={label!r}) or of tasks "
            f"(task={task!r}) with target=, got both; leave one out"
        )
    if label is None and task is None:
        one["label"] = "label"
    roles = {a: [column] for a, column in one.items() if column is not None}
    several = {"target": target, "features": features}
    roles |= {a: _listed(a, c) for a, c in several.items() if c is not None}
    if ("task" in roles) != ("target" in roles):
        raise ValueError(
            f"target: expected task= and target= together, got task={said(task)} and "
            f"target={said(target)}"
        )
    return roles


def _listed(argument: str, columns) -> list[str]:
    if argument == "target" and isinstance(columns, str):
        return [columns]
    listed = isinstance(columns, (list, tuple)) and len(columns)
    if not listed or not all(isinstance(c, str) for c in columns):
        raise ValueError(
            f"{argument}: expected a list of names of columns, got {said(columns)}"
        )
    if len(set(columns)) < len(columns):
        raise ValueError(
            f"{argument}: expected each column once, got {said(list(columns))}"
        )
    return list(columns)


def _read(read: Callable, what: str, path, roles: Roles, name, split: str) -> Dataset:
    """The data set of a file, once what is asked of it is found to be possible."""
    check_names(**({} if name is None else {"name": name}), split=split)
    check_paths(path=path)
    table = read(Path(path), what)
    return _made(table, roles, Path(path).stem if name is None else name, split)


def _made(table: Columns, roles: Roles, name: str, split: str) -> Dataset:
    """The data set of a table's columns."""
    features = _features(table, roles)
    by = "task" if "task" in roles else "label"
    targets, groups = roles.get("target"), roles.get("group")
    return from_arrays(
        _matrix(table, "features", features),
        labels_of(table, by, roles[by][0]),
        targets=_matrix(table, "target", targets) if targets else None,
        groups=labels_of(table, "group", groups[0]).astype(str) if groups else None,
        name=name,
        split=split,
    )


def _matrix(table: Columns, argument: str, columns: list[str]) -> np.ndarray:
    """[rows, columns] float32."""
    numbers = [numbers_of(table, argument, column) for column in columns]
    return np.stack(numbers, axis=1)


def _features(table: Columns, roles: Roles) -> list[str]:
    """The columns to predict from, once all roles are found to be possible."""
    for argument, columns in roles.items():
        for column in columns:
            check_column(table, argument, column)
    if set(roles.get("target", ())) & {*roles.get("task", ()), *roles.get("group", ())}:
        raise ValueError(
            f"target: expected other columns than task= and group=, got {roles['target']}"
        )
    taken = {c: a for a, columns in roles.items() if a != "features" for c in columns}
    features = roles["features"] if "features" in roles else _others(table, taken)
    for column in features:
        if column in taken:
            raise ValueError(
                f"features: column {column!r} is the {taken[column]} too, which is not "
                "known of an example to come; leave it out"
            )
    return features


def _others(table: Columns, taken) -> list[str]:
    """The columns of numbers that have no other role."""
    others = [c for c in table.values if c not in taken and has_numbers(table, c)]
    if not others:
        raise ValueError(
            f"features: {table.what} has no other column of numbers; expected at least one "
            f"besides {', '.join(taken)}, got {', '.join(table.values)}"
        )
    return others
