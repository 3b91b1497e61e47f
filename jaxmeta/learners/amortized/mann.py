"""MANN: a memory-augmented neural network with least-recently-used access.

Santoro, Bartunov, Botvinick, Wierstra, Lillicrap. One-shot Learning with Memory-Augmented
Neural Networks. ICML 2016, arXiv 1605.06065. An LSTM reads (x_t, y_{t-1}, r_{t-1}), the
label and what was read one step late, and makes keys k_t for a memory M of N slots:

    w^r = softmax_i cosine(k_t, M(i)),   r_t = sum_i w^r(i) M(i)           (eqs. 2-4)
    w^u = gamma w^u_{t-1} + w^r + w^w                                      (eq. 5)
    w^lu = one-hot of one of the n least used slots, n the number of reads (eq. 6)
    w^w = sigmoid(alpha) w^r_{t-1} + (1 - sigmoid(alpha)) w^lu_{t-1}       (eq. 7)
    M_t(i) = M_{t-1}(i) + w^w(i) k_t, the least used slot set to 0 first   (eq. 8)

Outputs: linear in [h_t, r_t]. The support set is such a sequence; each query is then its
next step, from the same state. As in the paper each step is judged (L = sum_t -log p(y_t)):
the objective is the mean loss of the queries and that of the support set, predicted example
by example before the label is seen.

Departures:
- Each query is the next step from the state after the support set; the paper's episodes
  are one sequence of 50, each example predicted before its label is seen.
- Each read writes to a least used slot of its own; in the paper each to all n of them.
- There may be an encoder before the controller; the paper has none.
- `add_vectors=True` writes other vectors than the keys, as in NTM and in the public
  re-implementations (github: tristandeleu/ntm-one-shot, snowkylin/ntm).

Meta-parameters: those of the encoder, the controller and the outputs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks, losses
from jaxmeta.batches import examples, forward, shuffled
from jaxmeta.learners.features import cosines, embed_support, sized
from jaxmeta.learners.objectives import query_metrics
from jaxmeta.learners.registry import register
from jaxmeta.models import lstm
from jaxmeta.models.parameters import glorot
from jaxmeta.types import MetaLearner, Model, PyTree, Task

Dense = dict[str, jax.Array]  # w [inputs, outputs], b [outputs]


class MANNParams(NamedTuple):
    """Meta-parameters of MANN."""

    encoder: PyTree
    controller: dict[str, jax.Array]
    keys: Dense  # hidden -> reads * size
    adds: Dense | None  # hidden -> reads * size, what is written; None: the keys
    alpha: Dense  # hidden -> reads, the gates of writing
    head: Dense  # hidden + reads * size -> ways


class State(NamedTuple):
    """An adapted MANN: what is kept from one step to the next."""

    params: Any  # MANNParams
    cell: lstm.Cell
    memory: jax.Array  # [slots, size]
    read: jax.Array  # [reads, slots] w^r
    usage: jax.Array  # [slots] w^u
    seen: jax.Array  # [reads * size] r
    label: jax.Array  # [ways] of the step before


def _dense(key, inputs, outputs):
    w = glorot(key, (inputs, outputs))
    return {"w": w, "b": jnp.zeros(outputs)}


def _apply(layer, x):
    """[inputs] -> [outputs]."""
    return x @ layer["w"] + layer["b"]


def _least_used(usage, reads):
    """[slots] -> [reads, slots], a one-hot row for each of the smallest."""
    least = jax.lax.top_k(-usage, reads)[1]
    return jax.nn.one_hot(least, len(usage), dtype=usage.dtype)


def _step(state, x, gamma):
    """One step of one sequence; x [features]. Returns: state, logits [ways]."""
    params, (reads, _) = state.params, state.read.shape
    now = jnp.concatenate([x, state.label, state.seen])[None]
    cell = lstm.step(params.controller, state.cell, now)
    h = cell.h[0]
    made = lambda layer: jnp.tanh(jnp.reshape(_apply(layer, h), (reads, -1)))
    keys = made(params.keys)  # [reads, size]
    adds = keys if params.adds is None else made(params.adds)
    gate = jax.nn.sigmoid(_apply(params.alpha, h))[:, None]  # [reads, 1]
    least = _least_used(state.usage, reads)
    write = gate * state.read + (1 - gate) * least
    memory = jnp.where(least[0][:, None] > 0, 0, state.memory) + write.T @ adds
    read = jax.nn.softmax(cosines(keys, memory), axis=1)
    usage = gamma * state.usage + jnp.sum(read + write, axis=0)
    seen = jnp.reshape(read @ memory, -1)
    logits = _apply(params.head, jnp.concatenate([h, seen]))
    return State(params, cell, memory, read, usage, seen, state.label), logits


@register(
    paper="Santoro et al. 2016, arXiv 1605.06065",
    learns=("classification",),
    networks=lambda n: [n.encoder()],
    tiny={"hidden": 16, "slots": 12, "size": 4, "reads": 2},
)
def mann(
    encoder: Model,
    *,
    ways: int = 5,
    features: int = 64,
    hidden: int = 200,
    slots: int = 128,
    size: int = 40,
    reads: int = 4,
    gamma: float = 0.95,
    add_vectors: bool = False,
) -> MetaLearner:
    """MANN: an LSTM with an external memory reads the support set.

    With a key the support set is read in random order, without one as it comes.

    Args:
        encoder: the encoder, inputs -> [examples, features] (the paper has none).
        ways: classes of a task; the parameters depend on it.
        features: size of what the encoder makes of an example.
        hidden: units of the controller.
        slots: N, places in the memory.
        size: of a place.
        reads: n, keys of a step.
        gamma: how slowly usage fades.
        add_vectors: write vectors of their own, made like the keys, in place of the keys
            in eq. 8; learns to compare in fewer steps.

    Returns: a `MetaLearner`; `predict` gives logits [examples, ways].
    Raises: ValueError for fewer than 2 ways, sizes below 1, gamma not in [0, 1], or a
        support set of more rows than the memory has slots.
    """
    checks.check_sizes(2, ways=ways)
    encoder = sized(encoder, features)
    checks.check_sizes(hidden=hidden, slots=slots, size=size)
    checks.check_sizes(1, slots, reads=reads)  # of different slots
    checks.check_numbers(least=0, most=1, gamma=gamma)
    checks.check_flags(add_vectors=add_vectors)

    def init(key):
        keys = jax.random.split(key, 6)
        return MANNParams(
            encoder.init(keys[0]),
            lstm.init(keys[1], features + ways + reads * size, hidden),
            _dense(keys[2], hidden, reads * size),
            _dense(keys[5], hidden, reads * size) if add_vectors else None,
            _dense(keys[3], hidden, reads),
            _dense(keys[4], hidden + reads * size, ways),
        )

    def begin(dtype):
        """The fields of a `State` after its parameters, before the first example."""
        return (
            lstm.zero_state(1, hidden, dtype),
            jnp.full((slots, size), 1e-6, dtype),
            jnp.zeros((reads, slots), dtype),
            jnp.zeros(slots, dtype),
            jnp.zeros(reads * size, dtype),
            jnp.zeros(ways, dtype),
        )

    def read(params, support, key):
        """The state after the support set, and the mean loss of predicting it."""
        if examples(support) > slots:
            raise ValueError(
                f"slots: the support set has {examples(support)} rows and the memory "
                f"{slots} places; make it with slots={examples(support)} or more"
            )
        z, onehot = embed_support(encoder, params.encoder, support, ways)
        sequence = shuffled(key, (z, onehot))

        def step(state, row):
            x, label = row
            new, logits = _step(State(params, *state), x, gamma)
            counts = jnp.sum(label) > 0  # padding leaves everything as it is
            keep = lambda a, b: jnp.where(counts, a, b)
            now = tuple(new._replace(label=label)[1:])
            loss = -jnp.sum(label * jax.nn.log_softmax(logits))
            return jax.tree.map(keep, now, state), loss

        state, values = jax.lax.scan(step, begin(z.dtype), sequence)
        return State(params, *state), jnp.sum(values) / jnp.sum(onehot)

    def adapt(params, support, key=None):
        return read(params, support, key)[0]

    def predict(adapted, inputs, mask=None):
        z = forward(encoder, adapted.params.encoder, inputs, mask)
        return jax.vmap(lambda x: _step(adapted, x, gamma)[1])(z)

    judge = query_metrics(predict, losses.cross_entropy)

    def loss(params, task: Task, key=None):
        return judge(adapt(params, task.support, key), task)

    def objective(params, task: Task, key, step):
        del step
        adapted, early = read(params, task.support, key)
        late, metrics = judge(adapted, task)
        return early + late, metrics

    return MetaLearner(init, adapt, predict, loss, objective)
