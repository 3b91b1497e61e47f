"""A stream, run through a method and tested after each part.

The accuracy matrix a [seen, tested] and what is read off it, after T parts: Lopez-Paz,
Ranzato. Gradient Episodic Memory. NIPS 2017, arXiv 1706.08840; Chaudhry et al. Riemannian
Walk. ECCV 2018, arXiv 1801.10112.

    average accuracy = mean_j a[T, j]
    forgetting       = mean_{j < T} (max_{t < T} a[t, j] - a[T, j])
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks, keys, losses
from jaxmeta.batches import blank_padding, examples
from jaxmeta.boundary import are_values, entered
from jaxmeta.data.dataset import Dataset, check_in_memory
from jaxmeta.task_axis import finite
from jaxmeta.types import Batch, Online


class Progress(NamedTuple):
    """What a run shows."""

    accuracy: jax.Array  # [seen, tested], 0..1; NaN once the network is not finite
    loss: jax.Array  # [seen] mean over the steps of a part
    came_back: jax.Array  # [seen] classes of a part that an earlier part had
    diverged: jax.Array  # [seen] whether the network was not finite after it
    state: Any  # at the end


def average_accuracy(accuracy: jax.Array) -> jax.Array:
    """Mean accuracy over all parts at the end: [seen, tested] -> [].

    >>> float(average_accuracy(jnp.array([[1.0, 0.0], [0.5, 1.0]])))
    0.75
    """
    _check_matrix(accuracy)
    return jnp.mean(accuracy[-1])


def forgetting(accuracy: jax.Array) -> jax.Array:
    """How much less is right at the end than at the best time before, mean over the
    earlier parts: [parts, parts] -> [].

    Raises: ValueError for less than two parts, or tests that are not those of the parts.

    >>> float(forgetting(jnp.array([[1.0, 0.0], [0.25, 1.0]])))
    0.75
    """
    _check_matrix(accuracy)
    seen, tested = accuracy.shape
    if seen != tested or seen < 2:
        raise ValueError(
            "accuracy: expected [parts, parts] of at least 2 parts, a test of each, got "
            f"shape {accuracy.shape}"
        )
    return jnp.mean(jnp.max(accuracy[:-1, :-1], axis=0) - accuracy[-1, :-1])


def _check_matrix(accuracy) -> None:
    if len(jnp.shape(accuracy)) != 2:
        raise ValueError(
            f"accuracy: expected [seen, tested], got {checks.said(accuracy)}; vmap over "
            "runs"
        )


def parts(dataset: Dataset, each: int = 2) -> Batch:
    """A class-incremental stream: the classes of a data set, some in each part.

    Args:
        dataset: examples by class, in memory; `dataset.select([3, 1, 0, 2])` for another
            order. each: classes of a part.

    Returns: a `Batch` of arrays [parts, examples, ...], padded to the largest part and
        masked; labels are the numbers of the classes in the data set, so that another
        split of the same classes is its test.
    Raises: ValueError for records, or classes that make no whole number of parts.

    >>> import numpy as np, jaxmeta as jm
    >>> data = jm.data.from_arrays(np.zeros((5, 3)), list("aabcd"))
    >>> stream = parts(data, 2)
    >>> stream.y.tolist(), stream.mask.tolist()
    ([[0, 0, 1], [2, 3, 2]], [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    """
    check_in_memory("dataset", dataset)
    classes = len(dataset.counts)
    checks.check_sizes(1, classes, each=each)
    if classes % each:
        raise ValueError(
            f"each: expected a divisor of the {classes} classes of {dataset.title}, got "
            f"{each}"
        )
    sizes = dataset.counts.reshape(-1, each).sum(axis=1)
    starts, place = np.cumsum(sizes) - sizes, np.arange(sizes.max())
    mask = place[None] < sizes[:, None]
    rows = starts[:, None] + np.where(mask, place[None], 0)
    y = np.repeat(np.arange(classes, dtype=np.int32), dataset.counts)
    x, y = jax.tree.map(lambda a: jnp.asarray(a[rows]), (dataset.x, y))
    return Batch(x, y, jnp.asarray(mask, jnp.float32))


def run(
    online: Online,
    stream: Batch,
    tests: Batch,
    key: jax.Array,
    *,
    batch_size: int = 10,
    epochs: int = 1,
) -> Progress:
    """Scan a method over a stream of classes, and test it after each part.

    A pure function of its arrays, and one program: `vmap` over keys runs many seeds.

    Args:
        online: the method, e.g. `jm.continual.replay(model, optimizer)`.
        stream: arrays [parts, examples, ...], as `parts` makes them; y are labels.
        tests: likewise, of as many parts or others.
        key: of first parameters, order and memory.
        batch_size: examples of a minibatch, in a random order within each part.
        epochs: passes over a part before the next one comes.

    Returns: a `Progress`. A class that comes back is counted in `came_back`, a network
        that is not finite in `diverged`.
    Raises: ValueError for an empty stream or part, targets that are no labels, or, where
        it can be seen, labels out of range.
    """
    checks.check_methods(
        "online", online, Online._fields[:3], "an Online, e.g. jm.continual.plain(...)"
    )
    checks.check_key(key)
    checks.check_sizes(batch_size=batch_size, epochs=epochs)
    stream, tests = _entered(stream, "stream"), _entered(tests, "tests")
    ways = _ways(online, stream)
    for name, (_, y, mask) in (("stream", stream), ("tests", tests)):
        assert mask is not None
        flat = Batch(None, jnp.ravel(y), jnp.ravel(mask))
        checks.check_labels(flat, ways, name)
    return _run(online, stream, tests, key, int(batch_size), int(epochs), ways)


def _entered(batch: Batch, name: str) -> Batch:
    """With a mask, its padding blank."""
    checks.check_kind(batch, Batch, name)
    shape = jnp.shape(batch.y)
    if len(shape) != 2 or not losses.are_labels(jnp.asarray(batch.y)):
        raise ValueError(
            f"{name}: expected labels y [parts, examples], integers, got "
            f"{checks.said(batch.y)}"
        )
    if 0 in shape:
        raise ValueError(
            f"{name}: it is empty, y has shape {shape}; expected at least one part with an "
            "example"
        )
    mask = jnp.ones(shape, jnp.float32) if batch.mask is None else batch.mask
    batch = Batch(entered(batch.x, name), jnp.asarray(batch.y), jnp.asarray(mask))
    if are_values(batch.mask) and not np.all(np.any(np.asarray(batch.mask) > 0, 1)):
        raise ValueError(f"{name}: a part is empty; expected an example in each")
    first = lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype)
    checks.check_batch(jax.tree.map(first, batch), name)
    return jax.vmap(blank_padding)(batch)


def _ways(online: Online, stream: Batch) -> int:
    """How many classes the network tells apart."""

    def outputs(batch):
        state = online.init(jax.random.key(0), batch)
        return online.predict(state, batch.x)

    first = jax.tree.map(lambda a: a[0], stream)
    return losses.classes_of(jax.eval_shape(outputs, first))


@partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _run(online, stream, tests, key, batch_size, epochs, ways) -> Progress:
    key_init, key_parts = jax.random.split(key)
    first = jax.tree.map(lambda a: a[0], stream)
    seen = jnp.zeros(ways, bool)

    def step(carry, given):
        (state, seen), (part, t) = carry, given
        key_steps, key_end = jax.random.split(keys.fold(key_parts, t))
        state, loss = _learnt(online, state, part, key_steps, batch_size, epochs)
        if online.end is not None:
            state = online.end(state, part, key_end)
        here = jnp.zeros(ways, bool).at[part.y].max(jnp.asarray(part.mask) > 0)
        fine = finite(state)
        right = jax.vmap(lambda test: _accuracy(online, state, test))(tests)
        right = jnp.where(fine, right, jnp.nan)
        return (state, seen | here), (right, loss, jnp.sum(seen & here), ~fine)

    start = online.init(key_init, first), seen
    (state, _), told = jax.lax.scan(step, start, (stream, jnp.arange(len(stream.y))))
    return Progress(*told, state)


def _learnt(online, state, part: Batch, key, size: int, epochs: int):
    """The state after some passes over a part, and the mean loss of its steps."""
    n, mask = examples(part), jnp.asarray(part.mask)
    steps = -(-n // size)

    def epoch(state, e):
        key_order, key_steps = jax.random.split(keys.fold(key, e))
        draws = jax.random.uniform(key_order, (n,))
        order = jnp.argsort(jnp.where(mask > 0, draws, 2.0))  # padding at the end
        order = jnp.pad(order, (0, steps * size - n))
        counts = jnp.where(jnp.arange(steps * size) < n, mask[order], 0)
        split = lambda a: jnp.reshape(a, (steps, size))
        given = split(order), split(counts), jnp.arange(steps)
        return jax.lax.scan(partial(step, key_steps), state, given)

    def step(key_steps, state, given):
        rows, mask, i = given
        x, y = jax.tree.map(lambda a: a[rows], (part.x, part.y))
        own = keys.fold(key_steps, i)
        new, metrics = online.observe(state, Batch(x, y, mask), own)
        counts = jnp.any(mask > 0)  # else there is nothing to learn
        kept = jax.tree.map(lambda a, b: jnp.where(counts, a, b), new, state)
        return kept, (jnp.where(counts, metrics["loss"], 0), counts)

    state, (values, counts) = jax.lax.scan(epoch, state, jnp.arange(epochs))
    return state, jnp.sum(values) / jnp.sum(counts)


def _accuracy(online: Online, state, test: Batch) -> jax.Array:
    return losses.score(online.predict(state, test.x), test)["accuracy"]
