"""Which kind a task is of, for what is learned of each kind."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.types import Task

Which = Callable[[Task], jax.Array]


def member(kind: Any, kinds: int) -> jax.Array:
    """[kinds] 1 at the kind, else 0; NaN if there is no such kind.

    Raises: ValueError unless it is one whole number.
    """
    whole = jnp.issubdtype(jnp.result_type(kind), jnp.integer)
    if jnp.shape(kind) != () or not whole:
        raise ValueError(
            "which: expected the kind of one task, a whole number of shape [] in "
            f"0..{kinds - 1}, got {checks.said(kind)}"
        )
    known = (kind >= 0) & (kind < kinds)
    return jnp.where(known, (jnp.arange(kinds) == kind).astype(float), jnp.nan)
