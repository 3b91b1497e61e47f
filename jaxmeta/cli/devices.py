"""The devices of a run (`jaxmeta train --devices N`)."""

import contextlib

import jax
import numpy as np
from jax.sharding import Mesh

from jaxmeta import checks, meshes


def mesh_of(number: int | None) -> Mesh | None:
    """A mesh of the first so many devices; None = without.

    A CPU is one device, unless another number is asked for before its first use.
    Raises: ValueError if there are fewer.
    """
    if number is None:
        return None
    checks.check_sizes(devices=number)
    with contextlib.suppress(RuntimeError):  # it is in use
        jax.config.update("jax_num_cpu_devices", number)
    there = jax.devices()
    if len(there) < number:
        raise ValueError(
            f"devices: there are {len(there)} of kind {there[0].device_kind}, got {number}"
        )
    return Mesh(np.array(there[:number]), (meshes.TASKS,))
