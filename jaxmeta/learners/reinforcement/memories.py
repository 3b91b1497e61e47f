"""What agents remember with: a recurrent unit, or a look back at all that was seen.

    gru          Cho et al. 2014, arXiv 1406.1078: one state, read by a scan
    snail        Mishra et al. 2018, arXiv 1707.03141, sections 3 and 5.2: temporal
                 convolutions, then attention
    transformer  Vaswani et al. 2017, arXiv 1706.03762, with norms before each layer (Xiong
                 et al. 2020, arXiv 2002.04745)

The last two are causal networks of a whole trial. What a layer wants of earlier steps (keys
and values, or the early half of a convolution) is kept in a row a step, so acting costs one
step, and a recorded trial is read in one parallel pass.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.models import attention, parameters
from jaxmeta.models import gru as cell
from jaxmeta.models.layers import dense, gated, layer_norm


class Memory(NamedTuple):
    """How an agent remembers: pure functions of one trial.

    init: (key, inputs) -> params.
    start: params -> memory before the first step; its shapes never change.
    step: (params, memory, x [inputs]) -> (memory, features [features]).
    read: (params, memory, x [steps, inputs], counts [steps]) -> (memory, features [steps,
        features]): a scan of `step` that leaves out steps whose counts is 0; what it says
        of these is finite, and means nothing.
    features: how many.
    length: steps that it has room for; of any beyond the features are NaN. None = any
        number.
    """

    init: Callable[[jax.Array, int], Any]
    start: Callable[[Any], Any]
    step: Callable[[Any, Any, jax.Array], tuple[Any, jax.Array]]
    read: Callable[[Any, Any, jax.Array, jax.Array], tuple[Any, jax.Array]]
    features: int
    length: int | None = None


def gru(hidden: int = 64, length: int | None = None) -> Memory:
    """A gated recurrent unit; the features are its state.

    Args: hidden: size of the state. length: not used, it has room for any number of steps.
    Raises: ValueError for a size below 1.

    >>> gru(hidden=8).start(()).shape
    (8,)
    """
    checks.check_sizes(hidden=hidden)
    del length

    def step(params, h, x):
        h = cell.step(params, h, x)
        return h, h

    def read(params, h, x, counts):
        def one(h, row):
            x, counts = row
            new = cell.step(params, h, x)
            return jnp.where(counts > 0, new, h), new

        return jax.lax.scan(one, h, (x, counts))

    init = lambda key, inputs: cell.init(key, inputs, hidden)
    return Memory(init, lambda params: jnp.zeros(hidden), step, read, hidden)


class Past(NamedTuple):
    """The steps that counted, in their order."""

    rows: tuple[jax.Array, ...]  # of each layer [length, 2 hidden]; 0 = not yet
    count: jax.Array  # [] int32, how many


class Now(NamedTuple):
    """The steps of one pass, among those that count."""

    until: jax.Array  # [steps] how many count up to each, itself included
    slots: jax.Array  # [steps] the row where each is kept; from `length` on = nowhere

    def keep(self, rows: jax.Array, new: jax.Array) -> jax.Array:
        """Rows [length, n] with those of this pass [steps, n]."""
        return rows.at[self.slots].set(new, mode="drop")

    def back(self, rows: jax.Array, lag: int) -> jax.Array:
        """What was kept `lag` steps before each, [steps, n]; 0 before the first."""
        slot = self.until - 1 - lag
        slot = jnp.where(slot < 0, rows.shape[0], slot)
        return rows.at[slot].get(mode="fill", fill_value=0)

    def look(self, params: Any, x: jax.Array, rows: jax.Array, heads: int = 1):
        """(all rows of keys and values, what attention reads of them [steps, hidden])."""
        new = [dense(params[name], x) for name in ("key", "value")]
        rows = self.keep(rows, jnp.concatenate(new, axis=1))
        seen = jnp.arange(rows.shape[0])[None] < self.until[:, None]
        split = lambda a: jnp.reshape(a, (a.shape[0], heads, -1))
        k, v = map(split, jnp.split(rows, 2, axis=1))
        y = attention.attention(split(dense(params["query"], x)), k, v, seen)
        return rows, jnp.reshape(y, (x.shape[0], -1))


def snail(hidden: int = 32, length: int = 100) -> Memory:
    """Temporal convolutions and attention, SNAIL.

    Dense, TC(length, hidden), TC(length, hidden), Attention(hidden, hidden), each but the
    first beside its input:

        TC(T, D):           Convolution(2^i, D) for i = 0 .. ceil(log2 T) - 1
        Convolution(r, D):  tanh(f) sigmoid(g), f and g linear in x_t and x_{t - r}

    Departures: one network has both heads, where the authors' value has its own of half the
    width. Their lags are 2^i from i = 1, which reach every other step only. The order of
    the blocks is that of public reimplementations.

    Args: hidden: filters, and size of keys and values. length: steps of a trial, at most.
    Raises: ValueError for sizes below 1.

    >>> snail(hidden=8, length=10).features  # 8 (1 + 2 * 4 + 1)
    80
    """
    checks.check_sizes(hidden=hidden, length=length)
    lags = 2 * [2**i for i in range((length - 1).bit_length())]
    names = [f"convolution{i}" for i in range(1, len(lags) + 1)]
    size = hidden * (len(lags) + 1)

    def describe(inputs):
        layers = {"embed": parameters.dense(inputs, hidden)}
        for i, name in enumerate(names, start=1):
            layers[name] = parameters.dense(2 * i * hidden, 2 * hidden)
        read = {k: parameters.dense(size, hidden) for k in ("query", "key", "value")}
        return layers | {"attention": read}

    def forward(params, x, rows, now):
        x, kept = dense(params["embed"], x), []
        for name, lag, old in zip(names, lags, rows[:-1], strict=True):
            early, late = jnp.split(params[name]["kernel"], 2)
            kept.append(now.keep(old, x @ early))
            here = dense({"kernel": late, "bias": params[name]["bias"]}, x)
            x = jnp.concatenate([x, gated(here + now.back(kept[-1], lag))], axis=1)
        last, y = now.look(params["attention"], x, rows[-1])
        return (*kept, last), jnp.concatenate([x, y], axis=1)

    return _looking_back(
        describe, forward, len(lags) + 1, hidden, size + hidden, length
    )


def transformer(
    hidden: int = 64, length: int = 100, *, heads: int = 4, layers: int = 2
) -> Memory:
    """A causal transformer with sinusoidal positions, norms first.

    Args: hidden: width of the tokens, a multiple of heads; dense layers have twice that.
        length: steps of a trial, at most. heads, layers: how many.
    Raises: ValueError for sizes below 1, or a width that heads does not divide.

    >>> transformer(hidden=8, length=10, heads=2).features
    8
    """
    attention.check_heads(hidden, heads)
    checks.check_sizes(length=length, layers=layers)
    names = [f"block{i}" for i in range(1, layers + 1)]

    def describe(inputs):
        block = attention.block_parameters(hidden, 2 * hidden)
        ends = parameters.dense(inputs, hidden), parameters.layer_norm(hidden)
        return dict.fromkeys(names, block) | dict(
            zip(("embed", "norm"), ends, strict=True)
        )

    def forward(params, x, rows, now):
        x = dense(params["embed"], x) + _positions(now.until - 1, hidden).astype(
            x.dtype
        )
        kept = []
        for name, old in zip(names, rows, strict=True):
            p = params[name]
            new, y = now.look(p["attention"], layer_norm(p["norm1"], x), old, heads)
            kept.append(new)
            x = x + dense(p["attention"]["out"], y)
            y = jax.nn.relu(dense(p["dense1"], layer_norm(p["norm2"], x)))
            x = x + dense(p["dense2"], y)
        return tuple(kept), layer_norm(params["norm"], x)

    return _looking_back(describe, forward, layers, hidden, hidden, length)


MEMORIES: dict[str, Callable[[int, int], Memory]] = {
    memory.__name__: memory for memory in (gru, snail, transformer)
}


def _looking_back(
    describe: Callable[[int], Any],
    forward: Callable[..., tuple[tuple[jax.Array, ...], jax.Array]],
    layers: int,
    hidden: int,
    features: int,
    length: int,
) -> Memory:
    """The memory of a causal network.

    describe: inputs -> its parameters. forward: (params, x, rows, now) -> (rows, features).
    layers: that keep rows.
    """

    def start(params):
        del params
        rows = jnp.zeros((length, 2 * hidden))
        return Past((rows,) * layers, jnp.zeros((), jnp.int32))

    def read(params, memory, x, counts):
        if x.shape[0] > length:
            raise ValueError(
                f"length: a trial of {x.shape[0]} steps, this memory has room for {length}; "
                "make the agent with more episodes"
            )
        counts = counts > 0
        until = memory.count + jnp.cumsum(counts, dtype=memory.count.dtype)
        now = Now(until, jnp.where(counts, until - 1, length))
        rows, found = forward(params, x, memory.rows, now)
        lost = counts & (
            until > length
        )  # no array is out of bounds in a compiled program
        return Past(rows, until[-1]), jnp.where(lost[:, None], jnp.nan, found)

    def step(params, memory, x):
        memory, found = read(params, memory, x[None], jnp.ones(1))
        return memory, found[0]

    init = lambda key, inputs: parameters.fill(describe(inputs), key)
    return Memory(init, start, step, read, features, length)


def _positions(at: jax.Array, size: int) -> jax.Array:
    """Sines and cosines of positions [n], [n, size] (Vaswani et al., section 3.5)."""
    rates = 10_000.0 ** (-2 * (jnp.arange(size) // 2) / size)
    angles = at[:, None] * rates[None]
    return jnp.where(jnp.arange(size)[None] % 2 == 0, jnp.sin(angles), jnp.cos(angles))
