"""Checkpoints under damage: what is restored is what was written, or a sentence."""

import resource
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmeta as jm

# what orbax's threads still say when a file that they read is damaged
pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)
LIKE = jm.MetaState({"w": jnp.zeros((40, 5))}, {"m": jnp.zeros(3)}, jnp.int32(0))


def state(step):
    random = np.random.default_rng(step)
    draw = lambda a: jnp.asarray(random.normal(size=a.shape), jnp.float32)
    params, moments = jax.tree.map(draw, LIKE[:2])
    return jm.MetaState(params, moments, jnp.int32(step))


@pytest.fixture
def folder(tmp_path):
    """With checkpoints of steps 10 and 20."""
    kept = jm.Checkpoints(tmp_path / "checkpoints", about={"seed": 3})
    kept.save(state(10))
    kept.save(state(20))
    kept.close()
    return tmp_path / "checkpoints"


def latest(folder, **how):
    kept = jm.Checkpoints(folder, **how)
    try:
        return kept.latest(LIKE)
    finally:
        kept.close()


def same(a, b):
    return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def files(folder) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


def flip(path, at, bit=4):
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.write_bytes(bytes(content))


def test_the_newest_are_kept(folder):
    kept = jm.Checkpoints(folder)
    kept.save(state(30))
    kept.wait()
    assert {p.name for p in folder.iterdir() if p.name.isdigit()} == {"20", "30"}
    assert same(kept.latest(LIKE), state(30))
    kept.close()


def test_saving_while_training_takes_the_memory_is_safe(tmp_path):
    """A state is copied before `save` returns: the next step may take its memory."""
    kept = jm.Checkpoints(tmp_path / "checkpoints")
    mine = state(5)
    kept.save(mine)
    jax.tree.map(lambda a: a.delete(), mine)
    assert same(kept.latest(LIKE), state(5))
    kept.close()


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_bit_is_never_restored(folder, part):
    """Of whatever file, near its end or its middle: what comes back was written."""
    newest = files(folder / "20")
    found = {"whole": 0, "older": 0}
    for path in newest[part::4]:
        for at in {path.stat().st_size // 2, path.stat().st_size - 1}:
            before = path.read_bytes()
            flip(path, at)
            with jm_warnings() as said:
                restored = latest(folder, reading=True)
            assert int(restored.step) in (10, 20)
            assert same(restored, state(int(restored.step)))
            found["older" if said else "whole"] += 1
            path.write_bytes(before)
    assert sum(found.values())


def test_a_flipped_bit_in_the_arrays_is_found(folder):
    data = max(files(folder / "20" / "state"), key=lambda p: p.stat().st_size)
    flip(data, data.stat().st_size // 2)
    with pytest.warns(
        RuntimeWarning, match="20 can't be restored .*an older checkpoint"
    ):
        assert same(latest(folder), state(10))


def test_training_goes_on_from_the_older_one(folder):
    shutil.rmtree(folder / "20" / "state")
    kept = jm.Checkpoints(folder)
    with pytest.warns(RuntimeWarning, match="20 can't be restored"):
        assert int(kept.latest(LIKE).step) == 10
    kept.save(state(15))  # before the one that is damaged
    kept.save(state(20))
    kept.close()
    assert same(latest(folder), state(20))
    assert (folder.with_name("checkpoints-damaged") / "20").is_dir()


def test_a_renamed_step_is_noticed(folder):
    (folder / "20").rename(folder / "4000")
    with pytest.warns(RuntimeWarning, match="it is of step 20, and renamed"):
        assert int(latest(folder).step) == 10


def test_none_that_is_whole_is_a_sentence(folder):
    for step in ("10", "20"):
        for path in files(folder / step):
            path.write_bytes(b"")
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ValueError, match="no checkpoint can be restored .*step 10"),
    ):
        latest(folder)


def test_another_runs_checkpoint_is_refused(folder):
    assert int(latest(folder, about={"seed": 3}).step) == 20
    with pytest.raises(ValueError, match="another run's: seed was 3 .* and is 4 now"):
        latest(folder, about={"seed": 4})


def test_what_it_belongs_to_is_looked_at_before_its_arrays(folder):
    """Another width is no damage."""
    wider = LIKE._replace(params={"w": jnp.zeros((40, 9))})
    kept = jm.Checkpoints(folder, about={"seed": 3, "width": 9})
    with pytest.raises(ValueError, match="another run's: width was None .* is 9 now"):
        kept.latest(wider)
    kept.close()


def test_a_reader_changes_nothing(folder, tmp_path):
    before = {p: p.read_bytes() for p in files(folder)}
    assert same(latest(folder, reading=True), state(20))
    assert {p: p.read_bytes() for p in files(folder)} == before


def test_a_full_disk_is_a_sentence_and_loses_nothing(folder):
    """Files that can't grow beyond 400 bytes, as a stand-in for a disk that is full."""
    kept = jm.Checkpoints(folder)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))
    try:
        with pytest.raises(OSError, match="can't be written .*are whole. Make room"):
            kept.save(state(30))
            kept.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert same(latest(folder), state(20))


class jm_warnings:  # noqa: N801 - a context, as pytest.warns is
    """Collects RuntimeWarnings, of which there may be none."""

    def __enter__(self):
        import warnings

        self._context = warnings.catch_warnings(record=True)
        said = self._context.__enter__()
        warnings.simplefilter("always")
        return said

    def __exit__(self, *error):
        return self._context.__exit__(*error)
