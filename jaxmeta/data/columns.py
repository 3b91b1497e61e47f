"""Tables as columns of text or numbers: the one place that trusts no CSV or Parquet file."""

import csv
import difflib
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Columns:
    """A table that was read.

    what: the caller and the file, for messages. values: of each column, text (a list of
    stripped strings, "" = empty) or numbers (an array). empty: the first row without a
    value, of the columns that have one. place: row -> where it stands in the file.
    other: the type of each column that has neither text nor numbers.
    """

    what: str
    values: dict[str, list[str] | np.ndarray]
    empty: dict[str, int]
    place: Callable[[int], str]
    other: dict[str, str] = field(default_factory=dict)


def content_of(file: Path, what: str) -> bytes:
    """The bytes of a file.

    Raises: FileNotFoundError if there is none; ValueError if it is a folder, empty, or
        can't be read.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{what}: there is no such file; expected the path of a table"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{what} can't be read ({error.strerror}); expected a file with a table"
        ) from error
    if not content:
        raise ValueError(f"{what}: the file is empty (0 bytes); fetch or save it again")
    return content


def read_csv(file: Path, caller: str) -> Columns:
    """The columns of a CSV file: UTF-8, fields separated by commas, names in its first row.

    Raises: FileNotFoundError; ValueError with file and line for what is no such table.
    """
    what = f"{caller}: {file}"
    rows, lines = _rows(_text(content_of(file, what), what), what)
    names, rows, lines = rows[0], rows[1:], lines[1:]
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        raise ValueError(
            f"{what}: the first row is {names[0]!r}; expected names separated by commas"
        )
    check_names_of(names, what)
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(names):
            raise ValueError(
                f"{what}, line {line}: expected {len(names)} fields as in the first row, "
                f"got {len(row)}; quote fields that have a comma"
            )
    cells = {n: [row[i] for row in rows] for i, n in enumerate(names)}
    empty = {n: column.index("") for n, column in cells.items() if "" in column}
    return Columns(what, dict(cells), empty, lambda row: f"line {lines[row]}")


def _text(content: bytes, what: str) -> str:
    try:
        text = content.decode("utf-8-sig")
        wrong, start = "a NUL byte", content.find(b"\0")
    except UnicodeDecodeError as error:
        wrong, start = "bytes that are not UTF-8", error.start
    if start < 0:
        return text
    line = content.count(b"\n", 0, start) + 1
    raise ValueError(
        f"{what}, line {line}: {wrong}; expected a text file, save it again as CSV in UTF-8"
    )


def _rows(text: str, what: str) -> tuple[list[list[str]], list[int]]:
    """Stripped fields of each row that is not blank, and the line in which it ends."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, lines = [], []
    try:
        for row in reader:
            if row:
                rows.append([field.strip() for field in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(
            f"{what}, line {reader.line_num}: not a row of CSV ({error}); expected fields "
            "separated by commas, quotes closed"
        ) from error
    if len(rows) < 2:
        raise ValueError(
            f"{what}: the table has no row; expected names of columns in the first row and "
            "an example in each of the others"
        )
    return rows, lines


def check_names_of(names: Sequence[str], what: str) -> None:
    """Raise ValueError for a column without a name, or two of one name."""
    if "" in names:
        raise ValueError(
            f"{what}: column {list(names).index('') + 1} has no name; give it one, or leave "
            "it out (pandas: to_csv(..., index=False))"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(
            f"{what}: two columns are called {twice[0]!r}; expected each name once"
        )


def read_parquet(file: Path, caller: str) -> Columns:
    """The columns of a Parquet file.

    Raises: FileNotFoundError; ValueError for what is no such table; ModuleNotFoundError
        where pyarrow is not installed.
    """
    try:
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{caller}: expected pyarrow, which is not installed; "
            "pip install 'jaxmeta[parquet]'"
        ) from error
    what = f"{caller}: {file}"
    source = io.BytesIO(content_of(file, what))
    try:
        table = parquet.ParquetFile(source, page_checksum_verification=True).read()
        names = [str(name) for name in table.column_names]
        read = dict(zip(names, map(_arrow_column, table.columns), strict=False))
    except Exception as error:  # what pyarrow raises on broken bytes has no end
        said = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{what} is truncated, broken or not a Parquet file ({said}); fetch or save it "
            "again"
        ) from error
    check_names_of(names, what)
    if not table.num_rows:
        raise ValueError(f"{what}: the table has no row; expected an example in each")
    other = {n: column for n, (column, _) in read.items() if isinstance(column, str)}
    values = {
        n: column for n, (column, _) in read.items() if not isinstance(column, str)
    }
    empty = {n: row for n, (_, row) in read.items() if row is not None}
    return Columns(what, values, empty, lambda row: f"row {row}", other)


def _arrow_column(column) -> tuple[list[str] | np.ndarray | str, int | None]:
    """Numbers or text, or the name of another type; and the first row without a value."""
    from pyarrow import types

    column.validate(full=True)
    none = np.flatnonzero(np.asarray(column.is_null().to_numpy()))
    first = int(none[0]) if len(none) else None
    kind = column.type
    if types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return np.asarray(column.to_numpy()), first
    if types.is_decimal(kind):
        return np.array([float(v or 0) for v in column.to_pylist()]), first
    if not (types.is_string(kind) or types.is_large_string(kind)):
        return str(kind), None
    cells = ["" if cell is None else cell.strip() for cell in column.to_pylist()]
    return cells, cells.index("") if "" in cells else None


def check_column(table: Columns, argument: str, name: str) -> None:
    """Raise ValueError unless the table has the column, with a value in each row."""
    if name in table.other:
        raise ValueError(
            f"{argument}: {table.what}: column {name!r} is of type {table.other[name]}; "
            "expected text or numbers"
        )
    if name not in table.values:
        near = difflib.get_close_matches(name, table.values, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(list(table.values)[:9])
        raise ValueError(
            f"{argument}: {table.what} has no column {name!r}; expected one of {known}{hint}"
        )
    if name in table.empty:
        raise ValueError(
            f"{table.what}, {table.place(table.empty[name])}: column {name!r} is empty "
            f"there ({argument}); expected a value in each row, fill it or drop the row"
        )


def labels_of(table: Columns, argument: str, name: str) -> Any:
    """A column as labels: integers if all are, else strings.

    Numbers that are not spelled as Python would (01) stay strings, so that two spellings
    stay two classes.
    Raises: ValueError for a column that is not there, has an empty cell, or floating
        numbers.
    """
    check_column(table, argument, name)
    cells = table.values[name]
    if isinstance(cells, np.ndarray):
        if cells.dtype.kind == "f":
            _refuse_floats(table, argument, name, str(cells[0]))
        return cells.astype(str) if cells.dtype.kind == "b" else cells
    if all(map(_is_integer, cells)):
        return np.array([int(cell) for cell in cells], np.int64)
    read = list(map(to_number, cells))
    points = [c for c in cells if not c.lstrip("+-").isdigit()]
    if all(number is not None for number in read) and points:
        _refuse_floats(table, argument, name, points[0])
    return np.array(cells)


def _refuse_floats(table: Columns, argument: str, name: str, cell: str) -> None:
    raise ValueError(
        f"{argument}: {table.what}: column {name!r} has floating numbers ({cell}); expected "
        "integers or text, a class each; numbers to predict are target= with task="
    )


def _is_integer(cell: str) -> bool:
    digits = cell.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and len(digits) < 19
    return plain and str(int(cell)) == cell


def to_number(cell: str) -> float | None:
    """The number that is written there, or None."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def has_numbers(table: Columns, name: str) -> bool:
    """Whether any value of a column is a number."""
    cells = table.values[name]
    if isinstance(cells, np.ndarray):
        return True
    return any(to_number(cell) is not None for cell in cells)


def numbers_of(table: Columns, argument: str, name: str) -> np.ndarray:
    """A column as numbers, [rows] float32.

    Raises: ValueError for a column that is not there, and with the row for text, an empty
        cell, NaN, or what 32 bits can't hold.
    """
    check_column(table, argument, name)
    cells = table.values[name]
    if isinstance(cells, list):
        read = list(map(to_number, cells))
        if None in read:
            row = read.index(None)
            raise ValueError(
                f"{table.what}, {table.place(row)}: column {name!r} has the text "
                f"{cells[row][:40]!r} ({argument}); expected a number, correct it or leave "
                "the column out of features="
            )
        cells = np.array(read, np.float64)
    numbers = cells.astype(np.float64)
    bad = np.flatnonzero(~(np.abs(numbers) <= MOST))
    if len(bad):
        value = float(numbers[bad[0]])
        large = "; divide it" if math.isfinite(value) else "; fill it or drop the row"
        raise ValueError(
            f"{table.what}, {table.place(int(bad[0]))}: column {name!r} is {value:g} "
            f"({argument}); expected a finite number of 32 bits{large}"
        )
    return numbers.astype(np.float32)
