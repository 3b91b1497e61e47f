"""Digits, two classes at a time and no class again: who remembers the first ones.

    python benchmarks/split_digits.py

scikit-learn's digits as a class-incremental stream of five parts: a network with one output
a digit is told at no time which part a test comes from.
"""

from dataclasses import asdict, dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from report import device, save, table

import jaxmeta as jm
from jaxmeta import continual


@dataclass
class Config:
    """The stream, the network and the methods."""

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    width: int = 100  # of the hidden layer
    epochs: int = 5  # passes over a part
    batch_size: int = 10
    learning_rate: float = 1e-3  # of Adam
    ewc: float = 100.0  # strengths
    si: float = 1.0
    memory: int = 200  # examples, of 1,000
    replayed: int = 10
    methods: tuple[str, ...] | None = None  # None = all

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls((0,), 4, 1, 100, methods=("plain", "replay", "joint"))


def methods(config: Config) -> dict[str, jm.Online]:
    """Name -> how it learns; "joint" is plain training on all parts at once."""
    model = jm.models.mlp((8, 8, 1), 10, (config.width,))
    adam = optax.adam(config.learning_rate)
    size, some = config.memory, config.replayed
    return {
        "plain": continual.plain(model, adam),
        "EWC": continual.ewc(model, adam, strength=config.ewc),
        "SI": continual.si(model, adam, strength=config.si),
        "A-GEM": continual.agem(model, adam, memory=size),
        "replay": continual.replay(model, adam, memory=size, replayed=some),
        "La-MAML": continual.look_ahead(
            jm.la_maml(model, inner_lr=0.1),
            jm.asynchronous(),
            memory=size,
            replayed=some,
            adapted=lambda params: params.theta,
        ),
        "joint": continual.plain(model, adam),
    }


def run(key: jax.Array, config: Config) -> dict:
    """Rows: accuracy at the end of all parts and of each, and what was forgotten,
    [seeds, ...]."""
    train, test = (continual.parts(jm.data.digits(s)) for s in ("train", "test"))
    whole = jax.tree.map(lambda a: jnp.reshape(a, (1, -1, *a.shape[2:])), train)
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.asarray(config.seeds))
    sizes = {"batch_size": config.batch_size, "epochs": config.epochs}
    rows = []
    for name, online in methods(config).items():
        if config.methods is not None and name not in config.methods:
            continue
        stream = whole if name == "joint" else train
        several = lambda key, o=online, s=stream: continual.run(
            o, s, test, key, **sizes
        )._replace(state=None)
        found = jax.jit(jax.vmap(several))(jax.random.clone(keys))
        assert not found.diverged.any(), name
        rows.append({"method": name, **jax.device_get(measured(found.accuracy))})
        print(rows[-1]["method"], rows[-1]["accuracy"].mean(), flush=True)
    return {"rows": rows}


@jax.jit
def measured(accuracy: jax.Array) -> dict[str, jax.Array]:
    """Of the matrices [seeds, seen, tested]."""
    mean = jax.vmap(continual.average_accuracy)(accuracy)
    lost = jnp.zeros_like(mean)  # of one part there is nothing to forget
    if accuracy.shape[1] > 1:
        lost = jax.vmap(continual.forgetting)(accuracy)
    return {"accuracy": mean, "forgetting": lost, "ends": accuracy[:, -1]}


def spelled(results: dict) -> list[dict]:
    """Lines of the table, in %."""

    def said(values):
        values = 100 * np.asarray(values)
        return f"{values.mean():.1f} ± {values.std():.1f}"

    return [
        {
            "method": row["method"],
            "all parts, %": said(row["accuracy"]),
            "forgotten, %": said(row["forgetting"]),
            "first to last part, %": " / ".join(
                f"{100 * part:.0f}" for part in np.mean(row["ends"], axis=0)
            ),
        }
        for row in results["rows"]
    ]


def main(config: Config) -> None:
    """Run all methods, print the table, keep the numbers."""
    results = {"config": asdict(config), **run(jax.random.key(0), config)}
    title = f"Split digits, {len(config.seeds)} seeds, mean and standard deviation"
    table(f"{title}, {device()}", spelled(results))
    print(save("split_digits", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
