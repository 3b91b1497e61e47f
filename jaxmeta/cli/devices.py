"""The devices of a run (`jaxmeta train --devices N`, `--distributed`)."""

import contextlib
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta import checks, meshes
from jaxmeta.cli import processes


def mesh_of(number: int | None, distributed: bool = False) -> Mesh | None:
    """A mesh of the first so many devices; None = without, or all that there are if this
    is one of several processes, of each of which as many are taken.

    A CPU is one device, unless another number is asked for before its first use.
    Raises: ValueError if there are fewer, or no other processes are found.
    """
    if number is not None:
        checks.check_sizes(devices=number)
        with contextlib.suppress(RuntimeError):  # it is in use
            jax.config.update("jax_num_cpu_devices", number)
    if distributed:
        processes.join()
    elif number is None:
        return None
    each = [jax.devices()] if not distributed else _by_process()
    least = min(each, key=len)
    if number is not None and len(least) < number:
        kind = least[0].device_kind
        raise ValueError(
            f"devices: there are {len(least)} of kind {kind}, got {number}"
        )
    return Mesh(np.array([d for own in each for d in own[:number]]), (meshes.TASKS,))


def _by_process() -> list[list[Any]]:
    own = lambda n: [d for d in jax.devices() if d.process_index == n]
    return [own(n) for n in range(jax.process_count())]
