"""Checkpoints by orbax: written whole or not at all."""

from pathlib import Path
from typing import Any

import jax

from jaxmeta import checks


class Checkpoints:
    """The checkpoints of one run; the newest two are kept.

    Args: folder: made if absent.
    """

    def __init__(self, folder: str | Path):
        checks.check_paths(folder=folder)
        import orbax.checkpoint as ocp

        self._ocp = ocp
        self._manager = ocp.CheckpointManager(
            Path(folder).resolve(),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=2, enable_async_checkpointing=False
            ),
        )

    def save(self, state: Any) -> None:
        """Write the state under its step; a crash meanwhile leaves the older ones."""
        checks.check_state(state)
        step = int(state.step)
        if step not in self._manager.all_steps():
            self._manager.save(step, args=self._ocp.args.StandardSave(state))

    def latest(self, like: Any) -> Any:
        """The newest state, or None if there is none.

        Args: like: a state (or its shapes) of the same learner and optimiser, or `Outer`.
        Raises: ValueError if the stored tree is another one.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        shapes = jax.tree.map(_on_device, jax.eval_shape(lambda: like))
        stored: Any = self._ocp.args.StandardRestore(shapes)
        return self._manager.restore(step, args=stored)

    def close(self) -> None:
        """Release orbax's threads."""
        self._manager.close()


def _on_device(shape):
    # restored to the device that is there, whatever device wrote it
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
