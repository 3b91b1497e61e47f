"""Checkpoints by orbax: written whole or not at all, and known to be whole when read."""

import os
import re
import shutil
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmeta import checks


class Checkpoints:
    """The checkpoints of one run; each has a checksum of every array.

    They are written while training goes on; `wait` or `close` when the last must be there.
    Of several processes the first writes, for each has the whole state; all can read.

    Args:
        folder: made if absent. keep: how many, the newest ones.
        about: words and numbers by name that say what they belong to; kept with them.
        reading: for a look at a run that another process writes: changes nothing.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int = 2,
        about: dict[str, Any] | None = None,
        reading: bool = False,
    ):
        checks.check_paths(folder=folder)
        checks.check_sizes(keep=keep)
        checks.check_flags(reading=reading)
        if about is not None:
            checks.check_kind(about, dict, "about")
        import orbax.checkpoint as ocp

        self._ocp, self._about = ocp, about
        self._folder = Path(folder).resolve()
        self._writes = jax.process_index() == 0
        if self._writes and not reading:
            self._folder.mkdir(parents=True, exist_ok=True)
        _meet()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=False, multiprocessing_options=_alone(ocp)
        )
        self._manager = ocp.CheckpointManager(self._folder, options=options)
        self._bad: dict[int, str] = {}

    def save(self, state: Any) -> None:
        """Write the state under its step; a crash meanwhile leaves the older ones.

        Raises: OSError if it can't be written; perhaps only at the next call.
        """
        checks.check_state(state)
        if not self._writes:
            return
        step = int(state.step)
        self._set_aside()
        if step in self._manager.all_steps():
            return
        # copies: the next step of training takes the state's memory
        arrays = jax.tree.map(np.array, jax.device_get(state))
        said = {"sums": _sums(arrays), "about": self._about}
        of = self._ocp.args
        items = of.Composite(state=of.StandardSave(arrays), said=of.JsonSave(said))
        self._written(lambda: self._manager.save(step, args=items))

    def latest(self, like: Any, *, before: int | None = None) -> Any:
        """The newest state that is whole, or None if there is none at all.

        Each newer one that is not whole is named in a RuntimeWarning.

        Args:
            like: a state (or its shapes) of the same learner and optimiser, or `Outer`.
            before: of those of earlier steps than this.

        Raises: ValueError if none is whole, the stored tree is another one, or it belongs
            to another run.
        """
        self.wait()
        while steps := {s for s in self._steps() if before is None or s < before}:
            for step in sorted(steps, reverse=True):
                state = self._whole(step, like)
                if state is not None:
                    return state
            self._manager.reload()  # another process may have written and removed some
            if self._steps() <= steps:
                break
        if not self._bad:
            return None
        found = "; ".join(f"step {s}: {why}" for s, why in self._bad.items())
        raise ValueError(f"{self._folder}: no checkpoint can be restored ({found})")

    def wait(self) -> None:
        """Until all that was saved is on the disk, in every process that calls it. Raises:
        OSError if it can't be."""
        self._written(self._manager.wait_until_finished)
        _meet()

    def close(self) -> None:
        """Wait, and release orbax's threads."""
        self._written(self._manager.close)
        _meet()

    def _steps(self) -> set[int]:
        return set(self._manager.all_steps())

    def _whole(self, step: int, like: Any) -> Any:
        """The state of one step, or None, and `_bad` and a warning say why."""
        of = self._ocp.args
        try:
            found: Any = self._restored(step, said=of.JsonRestore())
            said = found.said or {}
            self._check_about(step, said.get("about"))
            shapes = jax.tree.map(_on_device, jax.eval_shape(lambda: like))
            found = self._restored(step, state=of.StandardRestore(shapes))
            state = found.state
        except _OtherRunError as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # orbax meets damage with errors of many kinds
            why = str(error).strip().split("\n")[0]
            self._bad[step] = why or type(error).__name__
        else:
            wrong = _differences(said.get("sums"), _sums(jax.device_get(state)))
            if int(state.step) != step:
                self._bad[step] = f"it is of step {int(state.step)}, and renamed"
            elif wrong:
                self._bad[step] = f"{wrong} is not what was written: a damaged file"
            else:
                return state
        warnings.warn(
            f"{self._folder / str(step)} can't be restored ({self._bad[step]}); an older "
            "checkpoint is tried",
            RuntimeWarning,
            stacklevel=3,
        )
        return None

    def _restored(self, step: int, **items: Any) -> Any:
        return self._manager.restore(step, args=self._ocp.args.Composite(**items))

    def _check_about(self, step: int, about: dict[str, Any] | None) -> None:
        """Raise an error if a checkpoint was written with other words about it."""
        if self._about is None or about is None:
            return
        other = [
            k for k in {**about, **self._about} if about.get(k) != self._about.get(k)
        ]
        if other:
            name = other[0]
            raise _OtherRunError(
                f"the checkpoint of step {step} is another run's: {name} was "
                f"{about.get(name)!r} when it was written, and is "
                f"{self._about.get(name)!r} now; put it back, or begin a new run"
            )

    def _set_aside(self) -> None:
        """Move what can't be restored out of the way, for training goes on before it."""
        for step in [s for s in self._bad if (self._folder / str(s)).exists()]:
            aside = self._folder.with_name(f"{self._folder.name}-damaged")
            aside.mkdir(exist_ok=True)
            shutil.rmtree(aside / str(step), ignore_errors=True)
            os.replace(self._folder / str(step), aside / str(step))
            self._manager.reload()
        self._bad.clear()

    def _written(self, act) -> None:
        """Do it; raise OSError in a sentence for whatever a disk does."""
        try:
            act()
        except Exception as error:
            if not _of_the_disk(error):
                raise
            raise OSError(
                f"{self._folder} can't be written ({str(error).strip().splitlines()[-1]});"
                " the checkpoints that are there are whole. Make room, then go on"
            ) from error


def _meet() -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("checkpoints")


def _alone(ocp: Any) -> Any:
    """Options by which a process reads and writes by itself, and waits for no other."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    own = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"of{own}"
    )


class _OtherRunError(Exception):
    """A checkpoint of another run."""


def _of_the_disk(error: BaseException | None) -> bool:
    """Whether a disk is what refused, however deep the error lies."""
    while error is not None:
        if isinstance(error, OSError) or re.search(
            r"ENOSPC|Failed to write|Failed writing", str(error)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _sums(arrays: Any) -> dict[str, int]:
    """A checksum of each array, by its path in the tree."""
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    return {
        jax.tree_util.keystr(path): zlib.crc32(np.asarray(a).tobytes())
        for path, a in leaves
    }


def _differences(written: dict[str, int] | None, found: dict[str, int]) -> str:
    """The first array that is not the one that was written, or ""."""
    written = written or {}
    return next((name for name, s in found.items() if written.get(name) != s), "")


def _on_device(shape):
    # restored to the device that is there, whatever device wrote it
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)
