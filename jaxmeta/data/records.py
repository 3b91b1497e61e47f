"""Data sets that do not fit into memory: examples are read when they are drawn."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxmeta import checks
from jaxmeta.data.arrays import from_arrays
from jaxmeta.data.dataset import Dataset


def from_records(
    records: Any,
    labels: Any,
    *,
    groups: Any = None,
    name: str = "records",
    split: str = "",
) -> Dataset:
    """A data set whose examples are read when they are drawn: for what does not fit into
    memory. `jm.tasks.episodes` of it gives the same episodes as of the same arrays.

    Args:
        records: `len(records)`, and `records[i]` the example of number i: an array uint8 or
            floating, or a pytree of such, decoded and of one size. A list, a source of
            grain or of tensorflow-datasets, an object of your own. It is read by threads.
        labels: [examples], integers or strings. groups, name, split: as in `from_arrays`.

    Returns: a `Dataset`. Raises: ValueError for another number of labels, or as
        `from_arrays`.

    >>> import numpy as np
    >>> data = from_records([np.full(3, i, np.float32) for i in range(4)], list("baba"))
    >>> data.classes, data.of("a")[:, 0].tolist()
    (('a', 'b'), [1.0, 3.0])
    """
    for method in ("__len__", "__getitem__"):
        if not hasattr(records, method):
            raise ValueError(
                "records: expected an object with len(records) and records[i], got "
                f"{checks.said(records)}"
            )
    numbers = np.arange(len(records), dtype=np.int32)
    data = from_arrays(numbers, labels, groups=groups, name=name, split=split)
    return replace(data, records=records)


def from_array_record(
    path: str | Path,
    labels: Any,
    decode: Callable[[bytes], Any],
    *,
    groups: Any = None,
    name: str | None = None,
    split: str = "",
) -> Dataset:
    """A data set whose examples are the records of an ArrayRecord file.

    Args:
        path: of the file, written with `group_size:1` so that a record is read alone.
        labels: [records]. decode: bytes of a record -> example, as `records[i]` of
            `from_records`. groups, name, split: as in `from_arrays`.

    Returns: a `Dataset`.
    Raises: FileNotFoundError; ValueError for a file that can't be read, or as
        `from_records`. A record that can't be decoded is said by its number when it is
        drawn.
    """
    checks.check_paths(path=path)
    checks.check_functions(decode=decode)
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"from_array_record: no file {path}")
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    try:
        source = ArrayRecordDataSource(str(path))
        records = _Decoded(source, decode, path, len(source))
    except Exception as error:  # a library of another language: whatever it raises
        raise ValueError(
            f"from_array_record: {path} is no ArrayRecord file, or is truncated ({error}); "
            "write it again"
        ) from error
    return from_records(
        records, labels, groups=groups, name=name or path.stem, split=split
    )


@dataclass(frozen=True)
class _Decoded:
    source: Any
    decode: Callable[[bytes], Any]
    path: Path
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> Any:
        return self.__getitems__([i])[0]

    def __getitems__(self, numbers: list[int]) -> list[Any]:
        found = []
        try:
            contents = self.source.__getitems__(numbers)
        except Exception as error:
            raise ValueError(
                f"records: {self.path} can't be read ({error}); write it again"
            ) from error
        for i, content in zip(numbers, contents, strict=True):
            try:
                found.append(self.decode(content))
            except Exception as error:
                raise ValueError(
                    f"records: record {i} of {self.path} can't be decoded ({error})"
                ) from error
        return found
