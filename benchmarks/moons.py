"""Two moons turned: error on new points of the target, which has no labels.

    python benchmarks/moons.py

The source are two moons, the target the same turned; each draw has points and networks of
its own, which are judged one by one and together. No label of the target chooses anything.
"""

from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
import optax
import tyro
from across import SOFTMAX, Domain, Row, chosen, errors_of_starts, said, tasks_of
from published import published
from report import device, save, table

from jaxmeta.learners.registry import Facts

PLAIN = {"inner_lr": 0.5, "rule": optax.sgd}
GAME = {"inner_lr": 3e-3, "batch_size": None}  # of players against each other
ROWS = (
    Row("source only", "source_only"),
    Row("DANN", "dann", GAME),
    Row("CDAN", "cdan", GAME | {"entropy": False}),
    Row("CDAN+E", "cdan", GAME),
    Row("MCD", "mcd"),
    Row("Deep CORAL", "deep_coral"),
    Row("MMD", "mmd"),
    Row("JAN", "jan"),
    Row("CORAL", "coral", PLAIN | SOFTMAX, inputs=True),
    Row("optimal transport", "optimal_transport", PLAIN, inputs=True),
    Row("optimal transport, class-regularised", "optimal_transport",
        PLAIN | {"class_penalty": "group_lasso"}, inputs=True),
    Row("target labels known", "source_only", on="in-domain"),
)  # fmt: skip


@dataclass
class Config:
    """The moons, the network and how it is trained."""

    angles: tuple[float, ...] = (20.0, 30.0, 40.0)
    points: int = 150  # of a class and domain
    test_points: int = 1000
    noise: float = 0.05
    draws: int = 10
    starts: int = 8  # networks of a draw
    width: int = 10
    inner_steps: int = 3200  # 800 passes over 150 points, 34 at once
    inner_lr: float = 1e-3
    batch_size: int = 34
    seed: int = 0
    rows: tuple[str, ...] | None = None  # titles; None = all

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        few = {"draws": 2, "starts": 2, "width": 4, "inner_steps": 3, "batch_size": 4}
        return cls((30.0,), 6, 10, **few, rows=("source only", "DANN"))


def run(key: jax.Array, config: Config) -> dict:
    """Rows: the errors of each angle, [draws], of one network and of all together."""
    key_points, key_networks = jax.random.split(key)
    keys = jax.random.split(key_points, config.draws)
    training = {
        n: getattr(config, n) for n in ("inner_steps", "inner_lr", "batch_size")
    }
    rows = []
    for row in chosen(ROWS, config.rows):
        learner = row.make(Facts(ways=2, x_dims=2), config.width, training)
        one, together = {}, {}
        for angle in config.angles:
            drawn = jax.jit(jax.vmap(lambda k, a=angle: pair(k, a, config)))
            pairs = drawn(jax.random.clone(keys))
            own = jax.random.clone(key_networks)
            found = errors_of_starts(
                learner, pairs[row.on], own, config.starts, at_once=config.draws
            )
            one[f"{angle:g}"], together[f"{angle:g}"] = found
        rows.append({"learner": row.title, "errors": one, "together": together})
    return {"rows": rows}


def pair(key: jax.Array, angle: float, config: Config) -> dict:
    """Source, target and new points of the target."""
    keys = jax.random.split(key, 3)
    here, there = (moons(k, 2 * config.points, config.noise) for k in keys[:2])
    test = moons(keys[2], config.test_points, config.noise)
    return tasks_of(here, turned(there, angle), turned(test, angle))


def moons(key: jax.Array, number: int, noise: float) -> Domain:
    """Half of the points on each of two half circles, around the origin."""
    key_places, key_noise = jax.random.split(key)
    t = jax.random.uniform(key_places, (number // 2,), maxval=jnp.pi)
    upper = jnp.stack([jnp.cos(t) - 0.5, jnp.sin(t) - 0.25], axis=1)
    x = jnp.concatenate([upper, -upper])
    x = x + noise * jax.random.normal(key_noise, x.shape)
    return Domain(x, jnp.arange(2).repeat(number // 2))


def turned(domain: Domain, angle: float) -> Domain:
    """Counterclockwise, about the origin."""
    cos, sin = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
    return domain._replace(x=domain.x @ jnp.array([[cos, sin], [-sin, cos]]))


def spelled(results: dict) -> list[dict]:
    """Lines of the table, each with what is published."""
    lines = []
    for row in results["rows"]:
        line, theirs = {"learner": row["learner"]}, published("moons", row["learner"])
        for angle, found in row["errors"].items():
            line |= {f"{angle} degrees": said(found)}
            line |= {f"{angle}, together": said(row["together"][angle])}
            line |= {f"{angle}, published": theirs.get(f"{angle} degrees", "-")}
        lines.append(line)
    return lines


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(config.seed), config)}
    table(f"Two moons turned, error of the target, {device()}", spelled(results))
    print(save("moons", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
