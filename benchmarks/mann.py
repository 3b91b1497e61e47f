"""MANN on the pixels of Omniglot, 5 ways, with its training curve.

    python benchmarks/mann.py --root ../shared/data/omniglot
    python benchmarks/mann.py --steps 100000        # as many as published

Santoro et al. 2016, arXiv 1605.06065: memory 128 x 40, 4 reads, 200 units, no convolutions,
16 tasks a step, images turned by 0, 90, 180, 270 degrees. Trained on the 1,200 characters
of the Vinyals train and validation lists, tested on the 423 of the test list.

Theirs are images of 20 x 20, sequences of 10 examples a class and RMSprop at 1e-4; here
images of 14 x 14, 5 examples a class and a query of each, Adam at 2e-3, constant, in the
last part of the run falling to zero on a line. What is written to the memory is a vector
of its own (`add_vectors`), as in the public re-implementations that reach the published
accuracy; in the paper it is the key.

They report the accuracy of the k-th example of a class in a random sequence of 50:
`presentations`. Its second and fifth are what others quote as 1-shot and 5-shot. The
curve is of the test characters; nothing is chosen by it. A run goes on where its folder
left off.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import report
import tyro
from characters import few_shot
from networks import Pixels, build
from published import number, published

import jaxmeta as jm
from jaxmeta.types import Sampler

SHOTS = (1, 5)


@dataclass
class Config:
    """One run; the defaults are the row of mann.md."""

    root: Path | None = Path("../shared/data/omniglot")
    """Folder of Omniglot; None = printed letters."""
    folder: Path | None = Path("runs/mann")
    """Of its checkpoints; None = an interrupted run begins again."""
    ways: int = 5
    shots: int = 5
    queries: int = 1
    steps: int = 15_000
    decay: float = 0.4  # the part of the steps in which the rate falls
    tasks_per_step: int = 16
    learning_rate: float = 2e-3
    seed: int = 0
    every: int = 1000  # steps between two points of the curve
    curve_tasks: int = 200
    test_tasks: int = 1000
    test_queries: int = 5
    sequences: int = 200  # of 10 examples a class

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds; a curve of two points."""
        small = {"tasks_per_step": 2, "curve_tasks": 2, "test_tasks": 2, "sequences": 1}
        return cls(None, None, steps=2, every=1, **small)


def rate(config: Config) -> optax.Schedule:
    """Constant, then a line to zero."""
    falling = round(config.decay * config.steps)
    return optax.join_schedules(
        [
            optax.constant_schedule(config.learning_rate),
            optax.linear_schedule(config.learning_rate, 0.0, falling),
        ],
        [config.steps - falling],
    )


def test(learner, params, data, shots: int, tasks: int, config: Config, key):
    """Accuracy and the half of its 95 % interval, in %."""
    sampler = jm.tasks.episodes(
        data, config.ways, shots, config.test_queries, rotations=True
    )
    found = jm.evaluate(learner, params, sampler, num_tasks=tasks, key=key)
    return 100 * found.mean["accuracy"], 100 * found.ci95["accuracy"]


def train(key: jax.Array, learner, config: Config, data):
    """The parameters, and the curve: a dict a point."""
    key_train, key_test = jax.random.split(key)
    again = lambda key: jax.random.clone(key)
    optimizer, sampler = optax.adam(rate(config)), episodes(data[0], config)
    kept = jm.Checkpoints(config.folder) if config.folder else None
    like = jm.init_state(learner, optimizer, again(key_train))
    state = kept.latest(like) if kept else None
    curve = [] if state is None else stored(config)
    for end in range(config.every, config.steps + 1, config.every):
        if state is not None and int(state.step) >= end:
            continue
        start = time.perf_counter()
        state = jm.fit(
            learner,
            sampler,
            optimizer,
            steps=end,
            key=again(key_train),
            tasks_per_step=config.tasks_per_step,
            tasks_at_once=config.tasks_per_step,
            state=state,
        )
        point = {"step": end, "minutes": (time.perf_counter() - start) / 60}
        for shots in SHOTS:
            one = (learner, state.params, data[1], shots, config.curve_tasks)
            point[f"{shots}-shot"] = test(*one, config, again(key_test))[0]
        curve = [p for p in curve if p["step"] < end] + [point]
        print(point, flush=True)
        report.save(name(config), {"curve": curve})
        if kept:
            kept.save(state)
    if kept:
        kept.close()
    assert state is not None, "steps: fewer than `every`"
    return state.params, curve


def episodes(data, config: Config) -> Sampler:
    """Episodes for training."""
    shots, queries = config.shots, config.queries
    return jm.tasks.episodes(data, config.ways, shots, queries, rotations=True)


def presentations(learner, params, data, config: Config, key) -> list[float]:
    """Accuracy in % of the 2nd to 10th example of a class in sequences of 10 each."""
    sampler = jm.tasks.episodes(data, config.ways, 10, 1, rotations=True)

    def one(key):
        key_task, key_order = jax.random.split(key)
        batch = sampler.sample(key_task).support
        order = jax.random.permutation(key_order, len(batch.y))
        x, y = batch.x[order], batch.y[order]
        before = jnp.arange(len(y))[None, :] < jnp.arange(len(y))[:, None]

        def foretold(x_now, past):  # what has not been seen is padding
            adapted = learner.adapt(params, jm.Batch(x, y, past.astype(x.dtype)))
            return jnp.argmax(learner.predict(adapted, x_now[None]), axis=-1)[0]

        correct = jax.vmap(foretold)(x, before) == y
        nth = jnp.sum((y[:, None] == y[None, :]) & before, axis=1)  # 0: the first
        return jax.ops.segment_sum(correct.astype(x.dtype), nth, 10)

    keys = jax.random.split(key, config.sequences)
    several = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=10))
    hits = np.asarray(several(keys))
    return (100 * np.mean(hits, axis=0)[1:] / config.ways).tolist()


def name(config: Config) -> str:
    """Of the files in benchmarks/results."""
    return f"mann_{config.ways}way"


def stored(config: Config) -> list[dict]:
    """The curve of an interrupted run."""
    path = report.FOLDER / f"{name(config)}.json"
    return json.loads(path.read_text())["curve"] if path.exists() else []


def plot(results: dict, path: Path) -> None:
    """Test accuracy against meta-steps, and the published."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes, curve = figure.subplots(), results["curve"]
    steps = np.array([p["step"] for p in curve])
    theirs = published("mann", "mann")
    for shots in SHOTS:
        column = f"{shots}-shot"
        values = [p[column] for p in curve]
        axes.plot(steps, values, f"C{shots}.-", label=column)
        axes.axhline(number(theirs[column]), color=f"C{shots}", linestyle="--")
    axes.set_xlabel("meta-steps")
    axes.set_ylabel("test accuracy in % (dashed: published)")
    axes.legend()
    figure.savefig(path, dpi=120)


def run(key: jax.Array, config: Config) -> dict:
    """Train and test: accuracies with intervals, by presentation, and the curve."""
    data, results = few_shot(config.root), {}
    make = {"networks": Pixels, "add_vectors": True}
    learner = build("mann", episodes(data[0], config), **make)
    key_train, key_test, key_order = jax.random.split(key, 3)
    params, curve = train(key_train, learner, config, data)
    for shots in SHOTS:
        one = (learner, params, data[1], shots, config.test_tasks)
        mean, ci95 = test(*one, config, jax.random.clone(key_test))
        results[f"{shots}-shot"] = {"accuracy": mean, "ci95": ci95}
    nth = presentations(learner, params, data[1], config, key_order)
    minutes = sum(p["minutes"] for p in curve)
    known = {"presentations": nth, "steps": config.steps, "seed": config.seed}
    return results | known | {"minutes": minutes, "curve": curve}


def rows(results: dict) -> list[dict]:
    """The table: ours and the published."""
    line, nth = {"": "ours"}, results["presentations"]
    for shots in SHOTS:
        r = results[f"{shots}-shot"]
        line[f"{shots}-shot"] = f"{r['accuracy']:.2f} ± {r['ci95']:.2f}"
    line |= {"2nd": f"{nth[0]:.1f}", "5th": f"{nth[3]:.1f}", "10th": f"{nth[8]:.1f}"}
    steps, minutes = f"{results['steps']:,}", f"{results['minutes']:.0f}"
    line |= {"meta-steps": steps, "minutes": minutes}
    theirs = published("mann", "mann") | {"": "published"}
    return [line, {column: theirs.get(column, "-") for column in line}]


def main(config: Config) -> None:
    """Run, keep numbers and picture, print the row."""
    results = run(jax.random.key(config.seed), config)
    path = report.save(name(config), results)
    plot(results, path.with_suffix(".png"))
    report.table(f"MANN, {report.device()}", rows(results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
