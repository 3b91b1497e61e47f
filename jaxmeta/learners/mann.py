"""MANN: a memory-augmented neural network with least-recently-used access.

Santoro, Bartunov, Botvinick, Wierstra, Lillicrap. One-shot Learning with Memory-Augmented
Neural Networks. ICML 2016, arXiv 1605.06065. An LSTM reads (x_t, y_{t-1}), the label one
step late, and makes keys k_t for a memory M of N slots:

    w^r = softmax_i cosine(k_t, M(i)),   r_t = sum_i w^r(i) M(i)           (eqs. 2-4)
    w^u = gamma w^u_{t-1} + w^r + w^w                                      (eq. 5)
    w^lu = one-hot of the least used slots, one for each of the n reads    (eq. 6)
    w^w = sigmoid(alpha) w^r_{t-1} + (1 - sigmoid(alpha)) w^lu_{t-1}       (eq. 7)
    M_t(i) = M_{t-1}(i) + w^w(i) k_t, the least used slot set to 0 first   (eq. 8)

Outputs: linear in [h_t, r_t]. The support set is such a sequence; each query is then its
next step, from the same state. As in the paper each step is judged (L = sum_t -log p(y_t)):
the objective is the mean loss of the queries and that of the support set, foretold example
by example before the label is seen.

Meta-parameters: those of the encoder, the controller and the outputs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.learners.common import (
    check_ways,
    cosines,
    embed_support,
    judged,
    shuffled,
)
from jaxmeta.models import lstm
from jaxmeta.types import MetaLearner, Model, PyTree, Task, forward


class MANNParams(NamedTuple):
    """Meta-parameters of MANN."""

    encoder: PyTree
    controller: dict[str, jax.Array]
    keys: jax.Array  # [hidden, reads * size]
    alpha: jax.Array  # [hidden, reads] gates of writing
    head: jax.Array  # [hidden + reads * size, ways]


class State(NamedTuple):
    """An adapted MANN: what is kept from one step to the next."""

    params: Any  # MANNParams
    cell: lstm.Cell
    memory: jax.Array  # [slots, size]
    read: jax.Array  # [reads, slots] w^r
    usage: jax.Array  # [slots] w^u
    label: jax.Array  # [ways] of the step before


def _least_used(usage, reads):
    """[slots] -> [reads, slots], a one-hot row for each of the smallest."""
    order = jnp.argsort(usage)
    return jax.nn.one_hot(order[:reads], len(usage), dtype=usage.dtype)


def _step(state, x, gamma):
    """One step of one sequence; x [features]. Returns: state, logits [ways]."""
    params, (reads, _) = state.params, state.read.shape
    now = jnp.concatenate([x, state.label])[None]
    cell = lstm.step(params.controller, state.cell, now)
    h = cell.h[0]
    keys = jnp.tanh(jnp.reshape(h @ params.keys, (reads, -1)))  # [reads, size]
    gate = jax.nn.sigmoid(h @ params.alpha)[:, None]  # [reads, 1]
    least = _least_used(state.usage, reads)
    write = gate * state.read + (1 - gate) * least
    memory = jnp.where(least[0][:, None] > 0, 0, state.memory) + write.T @ keys
    read = jax.nn.softmax(cosines(keys, memory), axis=1)
    usage = gamma * state.usage + jnp.sum(read + write, axis=0)
    seen = jnp.reshape(read @ memory, -1)
    logits = jnp.concatenate([h, seen]) @ params.head
    return State(params, cell, memory, read, usage, state.label), logits


def mann(
    model: Model,
    *,
    ways: int = 5,
    features: int = 64,
    hidden: int = 200,
    slots: int = 128,
    size: int = 40,
    reads: int = 4,
    gamma: float = 0.95,
) -> MetaLearner:
    """MANN: an LSTM with an external memory reads the support set.

    With a key the support set is read in random order, without one as it comes.

    Args:
        model: the encoder, inputs -> [examples, features] (the paper has none).
        ways: classes of a task; the parameters depend on it.
        features: size of what the encoder makes of an example.
        hidden: units of the controller.
        slots: N, places in the memory.
        size: of a place.
        reads: n, keys of a step.
        gamma: how slowly usage fades.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, sizes below 1, gamma not in [0, 1], or a
        support set of more rows than the memory has slots.
    """
    check_ways(ways)
    checks.check_sizes(
        features=features, hidden=hidden, slots=slots, size=size, reads=reads
    )
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma: expected a number in [0, 1], got {gamma}")
    if reads > slots:
        raise ValueError(f"reads: expected at most {slots}, the slots, got {reads}")

    def init(key):
        keys = jax.random.split(key, 5)
        glorot = jax.nn.initializers.glorot_uniform()
        return MANNParams(
            model.init(keys[0]),
            lstm.init(keys[1], features + ways, hidden),
            glorot(keys[2], (hidden, reads * size)),
            glorot(keys[3], (hidden, reads)),
            glorot(keys[4], (hidden + reads * size, ways)),
        )

    def begin(dtype):
        """The fields of a `State` after its parameters, before the first example."""
        return (
            lstm.zero_state(1, hidden, dtype),
            jnp.full((slots, size), 1e-6, dtype),
            jnp.zeros((reads, slots), dtype),
            jnp.zeros(slots, dtype),
            jnp.zeros(ways, dtype),
        )

    def read(params, support, key):
        """The state after the support set, and the mean loss of what it foretold."""
        if len(support.x) > slots:
            raise ValueError(
                f"slots: the support set has {len(support.x)} rows and the memory "
                f"{slots} places; make it with slots={len(support.x)} or more"
            )
        z, belongs = embed_support(model, params.encoder, support, ways)
        sequence = shuffled(key, (z, belongs))

        def step(state, row):
            x, label = row
            new, logits = _step(State(params, *state), x, gamma)
            counts = jnp.sum(label) > 0  # padding leaves everything as it is
            keep = lambda a, b: jnp.where(counts, a, b)
            now = tuple(new._replace(label=label)[1:])
            loss = -jnp.sum(label * jax.nn.log_softmax(logits))
            return jax.tree.map(keep, now, state), loss

        state, values = jax.lax.scan(step, begin(z.dtype), sequence)
        return State(params, *state), jnp.sum(values) / jnp.sum(belongs)

    def adapt(params, support, key=None):
        return read(params, support, key)[0]

    def predict(adapted, inputs, mask=None):
        z = forward(model, adapted.params.encoder, inputs, mask)
        return jax.vmap(lambda x: _step(adapted, x, gamma)[1])(z)

    judge = judged(predict, losses.cross_entropy)

    def task_loss(params, task: Task, key=None):
        adapted, early = read(params, task.support, key)
        late, metrics = judge(adapted, task)
        objective = early + late
        return objective, metrics | {"objective": objective}

    return MetaLearner(init, adapt, predict, task_loss)
