"""CAGrad's valley: two losses of two parameters, whose mean descent gets stuck.

    python benchmarks/valley.py

Liu et al. 2021 (CAGrad), section 5.1, with the constants of the authors' code: three
starts, Adam 1e-3, 100,000 steps each. The best mean of the two losses is at the bottom
between the two optima. The losses have cusps, at which paths part: each start is taken
several times, shifted by a billionth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from report import device, save, table
from report import spelled as of_several

from jaxmeta import combiners
from jaxmeta.multitask.gradients import gramian_of, weighted


def rounded_mgda(gramian: jax.Array, key: jax.Array) -> jax.Array:
    """MGDA of two tasks as in the authors' code: with 1e-8 in the denominator, of which
    Adam makes a drift along the optima."""
    del key
    (a, b), (_, c) = gramian
    inside = b < jnp.minimum(a, c)
    w = jnp.where(inside, (c - b) / (a + c - 2 * b + 1e-8), (a < c).astype(a.dtype))
    return jnp.stack([w, 1 - w])


STARTS = ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))
METHODS: dict[str, Callable] = {
    "mean": combiners.mean,
    "PCGrad": combiners.pcgrad,
    "MGDA": combiners.mgda,
    "MGDA, 1e-8 added": rounded_mgda,
    "CAGrad": partial(combiners.cagrad, c=0.5),
    "IMTL-G": combiners.imtl_g,
    "Nash-MTL": combiners.nash_mtl,
    "Aligned-MTL": combiners.aligned_mtl,
    "UPGrad": combiners.upgrad,
    "DualProj": combiners.dualproj,
}


@dataclass
class Config:
    """How long, and which combiners."""

    steps: int = 100_000
    rate: float = 1e-3
    methods: tuple[str, ...] = ("mean", "PCGrad", "MGDA", "MGDA, 1e-8 added", "CAGrad")
    points: int = 200
    shifts: int = 3

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(steps=40, rate=0.1, methods=("mean", "CAGrad"), points=4, shifts=2)


def losses(at: jax.Array) -> jax.Array:
    """[2] the two losses at a point [2]: a valley above, two bowls below."""
    x, y = at
    far = lambda a: jnp.log(jnp.maximum(jnp.abs(a), 5e-6)) + 6
    bowl = lambda x: (x**2 + 0.1 * (y + 8) ** 2) / 10 - 20
    above, below = (jnp.maximum(jnp.tanh(s * y / 2), 0) for s in (1, -1))
    first, second = (-x - 7) / 2 + jnp.tanh(y), (3 - x) / 2 - jnp.tanh(y) + 2
    valley = jnp.stack([far(first), far(second)])
    return above * valley + below * jnp.stack([bowl(x - 7), bowl(x + 7)])


def run(key: jax.Array, config: Config) -> dict[str, np.ndarray]:
    """method -> mean loss along the paths, [starts, shifts, points + 1], in double
    precision, at the beginning of as many equal parts, and at the end."""
    with jax.enable_x64(True):
        return {m: np.asarray(paths(key, METHODS[m], config)) for m in config.methods}


def paths(key: jax.Array, combine: Callable, config: Config) -> jax.Array:
    """Mean losses [starts, shifts, points + 1] of one combiner."""
    optimizer = optax.adam(config.rate)
    length, rest = divmod(config.steps, config.points)
    assert not rest, "points: expected a divisor of steps"

    def step(carry, _):
        at, state, key = carry
        key, own = jax.random.split(key)
        jacobian = jax.jacobian(losses)(at)
        gradient = weighted(combine(gramian_of(jacobian), own), jacobian)
        updates, state = optimizer.update(gradient, state)
        return (at + updates, state, key), None

    def part(carry, _):
        value = jnp.mean(losses(carry[0]))
        return jax.lax.scan(step, carry, None, length)[0], value

    @jax.vmap
    def path(at, key):
        start = (at, optimizer.init(at), key)
        (at, *_), values = jax.lax.scan(part, start, None, config.points)
        return jnp.append(values, jnp.mean(losses(at)))

    shift = 1e-9 * jnp.arange(config.shifts)
    starts = jnp.array(STARTS)[:, None] + shift[None, :, None]  # [starts, shifts, 2]
    keys = jax.random.split(jax.random.clone(key), starts.shape[:2])
    return jax.jit(jax.vmap(path))(starts, keys)


def spelled(results: dict) -> list[dict]:
    """Rows of the table: the mean loss at the end, and its range over the shifts."""
    ends = lambda values: zip(STARTS, np.asarray(values)[:, :, -1], strict=True)
    return [
        {"combiner": name} | {f"from {s}": of_several(end) for s, end in ends(values)}
        for name, values in results.items()
    ]


def plot(results: dict[str, np.ndarray], path: Path) -> None:
    """Mean losses against steps, a picture a start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    for i, axes in enumerate(figure.subplots(1, len(STARTS), sharey=True)):
        for name, values in results.items():
            line = values[i, 0]
            axes.plot(np.linspace(0, 1, len(line)), line, label=name)
        axes.set_title(f"from {STARTS[i]}")
        axes.set_xlabel("share of the steps")
    figure.axes[0].set_ylabel("mean of the two losses")
    figure.axes[-1].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main(config: Config) -> None:
    """Descend, print the table, keep the numbers and the picture."""
    results = run(jax.random.key(0), config)
    path = save("valley", results)
    plot(results, path.with_suffix(".png"))
    title = f"Mean loss after {config.steps} steps of Adam, {device()}"
    table(title, spelled(results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
