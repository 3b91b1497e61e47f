"""The processes of a run (`jaxmeta train --distributed`): each does the same, and the
first one writes and prints.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

import jax
import numpy as np

LEFT = 1  # exit code of a process that lost another
# how the runtime begins to tell of it, which it raises as errors of several types
LOST = (
    "UNKNOWN",
    "UNAVAILABLE",
    "INTERNAL",
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
)


def join() -> None:
    """Find the other processes, before the first use of a device, or know them already.

    Raises: ValueError if no cluster has started this one.
    """
    try:
        if not are_joined():
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"distributed: the other processes were not found ({error}); expected to be "
            "started by Slurm (srun), Open MPI (mpirun) or Kubernetes, once a process"
        ) from error


def are_joined() -> bool:
    """Whether this is a process of a cluster, which may be the only one."""
    return jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process writes and prints."""
    return jax.process_index() == 0


def told(text: str) -> str:
    """A text of the first process, in all of them; what the others give is ignored."""
    if jax.process_count() == 1:
        return text
    from jax.experimental import multihost_utils

    written = np.zeros(4096, np.uint8)
    raw = np.frombuffer(text.encode(), np.uint8)
    written[: len(raw)] = raw
    found = multihost_utils.broadcast_one_to_all(written)
    return bytes(np.asarray(found)).rstrip(b"\0").decode()


def largest_of(number: int) -> int:
    """The largest that a process says: the same in all, once all have been asked."""
    if jax.process_count() == 1:
        return number
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.asarray(number))))


@contextlib.contextmanager
def together(orderly: type[BaseException]) -> Iterator[None]:
    """Within it, a process of several that fails leaves at once.

    Python would wait for the others at its end, and they for it. What is lost is what was
    not saved; the others notice and leave too. orderly: what ends all processes alike.
    """
    try:
        yield
    except orderly:
        raise
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        said = str(error).partition("\n")[0]
        lost = said.startswith(tuple(f"{status}:" for status in LOST))
        ended = f"another process has ended ({said}); go on with jaxmeta train --resume"
        why = ended if lost else f"error: {error}"
        print(f"process {jax.process_index()}: {why}", file=sys.stderr, flush=True)
        os._exit(LEFT if lost else 2)


@contextlib.contextmanager
def quiet_but_first() -> Iterator[None]:
    """Within it, only the first process prints."""
    if is_first():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
