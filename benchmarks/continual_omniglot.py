"""Hundreds of unseen characters, one after the other, each example once: OML and ANML.

    python benchmarks/continual_omniglot.py --root ../shared/data/omniglot

Meta-trained on streams of one character, 20 examples, and the question what of all 964 is
still known; tested on streams of 100, 300 and 600 characters of the evaluation set, 15
examples of each in order, and 5 others of each after the whole stream. In a test the head
alone learns, from 0, by plain SGD, its rate chosen on other streams by what is right of
the stream itself. A GPU takes 7 minutes; for two cores the page has smaller commands.
"""

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from characters import alphabets
from report import device, save, table
from report import spelled as ranged

import jaxmeta as jm

FIRST = jm.FirstOrder()
LEARNERS = {
    "OML": partial(jm.oml, inner_lr=0.03),
    "OML, first order": partial(jm.oml, inner_lr=0.03, adjoint=FIRST),
    "ANML": partial(jm.anml, inner_lr=0.1),
    "ANML, first order": partial(jm.anml, inner_lr=0.1, adjoint=FIRST),
}


@dataclass
class Config:
    """The streams, the network and how it is trained."""

    root: Path | None = Path("../shared/data/omniglot")
    """Folder of Omniglot; None = printed letters."""
    learners: tuple[str, ...] = tuple(LEARNERS)
    seeds: tuple[int, ...] = (0,)
    steps: int = 20_000
    width: int = 64
    gate_width: int = 28
    remember: int = 64
    shots: int = 20
    lengths: tuple[int, ...] = (100, 300, 600)
    rates: tuple[float, ...] = (0.001, 0.0003, 0.0001, 0.00003, 0.00001, 0.000003)
    test_streams: int = 10
    untrained: bool = True
    """Whether a head learns on a network without meta-training, too."""
    scratch: bool = True
    """Whether all of such a network learns a stream of the first length, too: slow."""
    scratch_rates: tuple[float, ...] = (0.1, 0.01, 0.001)

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        return cls(
            None, ("OML",), steps=2, width=2, gate_width=2, remember=2, shots=2,
            lengths=(3,), rates=(0.1,), test_streams=1, scratch=False,
        )  # fmt: skip


def networks(width: int, gate_width: int) -> tuple[jm.Model, jm.Model]:
    """Encoder and gate, both with as many outputs: three poolings leave 3 x 3."""
    encoder = jm.models.conv4(None, widths=width, pools=3)
    gate = jm.models.conv4(9 * width, widths=gate_width, pools=3)
    return encoder, gate


def learner_of(name: str, ways: int, config: Config, **how) -> jm.MetaLearner:
    """A learner with an output for each of the ways."""
    encoder, gate = networks(config.width, config.gate_width)
    head = jm.models.mlp(9 * config.width, ways, ())
    parts = (encoder, gate, head) if name.startswith("ANML") else (encoder, head)
    how = {"ways": ways, "features": 9 * config.width, "reset": "head", **how}
    return LEARNERS[name](*parts, **how)


def trained(key: jax.Array, name: str, data, config: Config):
    """(meta-parameters, before and after training, its minutes)."""
    sampler = jm.tasks.streams(data, 1, config.shots, remember=config.remember)
    learner = learner_of(name, sampler.ways, config)
    start, optimizer = time.perf_counter(), optax.adam(1e-3)
    before = learner.init(jax.random.clone(key))
    state = jm.fit(
        learner, sampler, optimizer, steps=config.steps, key=key, tasks_per_step=1
    )
    after = jax.block_until_ready(state.params)
    return before, after, (time.perf_counter() - start) / 60


def seen_by(params, data, config: Config) -> jm.data.Dataset:
    """The data set as the meta-trained network sees it: gated features, which a test does
    not change."""
    images = jnp.asarray(data.x, jnp.float32)
    if np.max(data.x) <= 1:
        images = images * 255
    z = seen(params, images, width=config.width, gate_width=config.gate_width)
    labels = np.repeat(np.arange(len(data.counts)), data.counts)
    return jm.data.from_arrays(np.asarray(z), labels)


@partial(jax.jit, static_argnames=("width", "gate_width"))
def seen(params, images: jax.Array, *, width: int, gate_width: int) -> jax.Array:
    """Gated features [images, 9 * width]; one program for all parameters of a learner."""
    encoder, gate = networks(width, gate_width)

    def features(x):
        one = lambda model, p: model.apply(p, x[None] / 255, None)[0]
        z = one(encoder, params.encoder)
        if hasattr(params, "gate"):
            z = z * jax.nn.sigmoid(one(gate, params.gate))
        return z

    return jax.lax.map(features, images, batch_size=20)


def accuracies(key, data, length: int, config: Config) -> dict[str, np.ndarray]:
    """Of streams of features: what is right of other examples and of the stream itself,
    [streams], with the rate that other streams chose."""
    features = data.x.shape[1]
    shots = min(15, int(data.counts.min()) - 5)
    sampler = jm.tasks.episodes(data, length, shots, 5)

    def several(key, rate, number):
        keys = jax.random.split(key, number)
        sizes = {"ways": length, "features": features}
        found = [jax.device_get(learnt(k, rate, sampler, **sizes)) for k in keys]
        return np.array(found).T  # [2, number]

    key_choice, key_test = jax.random.split(key)
    few = max(1, config.test_streams // 3)
    again = lambda: jax.random.clone(key_choice)
    known = {rate: several(again(), rate, few)[1].mean() for rate in config.rates}
    rate = max(known, key=lambda r: known[r])
    new, old = several(key_test, rate, config.test_streams)
    return {"new": new, "stream": old, "rate": np.array(rate)}


@partial(jax.jit, static_argnames=("ways", "features"))
def learnt(key, rate, sampler, *, ways: int, features: int):
    """Of one stream of features, what is right of other examples and of itself."""
    same = jm.Model(lambda key: (), lambda params, x: x)
    head = jm.models.mlp(features, ways, ())
    sizes = {"ways": ways, "features": features, "reset": "head"}
    learner = jm.oml(same, head, inner_lr=rate, **sizes)
    task = sampler.sample(key)
    adapted = learner.adapt(learner.init(jax.random.key(0)), task.support)
    right = lambda b: jnp.mean(learner.predict(adapted, b.x).argmax(1) == b.y)
    return right(task.query), right(task.support)


def from_scratch(key, data, length: int, config: Config) -> dict[str, np.ndarray]:
    """Of a network that was never trained, all of which learns the stream."""
    shots = min(15, int(data.counts.min()) - 5)
    sampler = jm.tasks.episodes(data, length, shots, 5)
    learner = lambda rate: learner_of("ANML", length, config, inner_lr=rate, reset="")

    @jax.jit
    def one(key, rate, sampler):
        key_task, key_init = jax.random.split(key)
        task, online = sampler.sample(key_task), learner(rate)
        adapted = online.adapt(online.init(key_init), task.support)
        logits = lambda x: online.predict(adapted, x[None])[0]
        ask = lambda b: jax.lax.map(logits, b.x, batch_size=20).argmax(1)
        right = lambda b: jnp.mean(ask(b) == b.y)
        return right(task.query), right(task.support)

    known = {r: jax.device_get(one(jax.random.clone(key), r, sampler))
             for r in config.scratch_rates}  # fmt: skip
    rate = max(known, key=lambda r: known[r][1])
    new, old = (np.array([a]) for a in known[rate])
    return {"new": new, "stream": old, "rate": np.array(rate)}


def run(key: jax.Array, config: Config) -> dict:
    """Rows of learners and seeds: accuracies after streams of each length."""
    train_set, test_set = alphabets(config.root, "background")
    rows = []
    add = lambda **row: rows.append(row) or print(row, flush=True)
    for seed in config.seeds:
        key_seed = jax.random.fold_in(key, seed)
        key_train, key_test = jax.random.split(key_seed)
        for name in config.learners:
            before, after, minutes = trained(
                jax.random.clone(key_train), name, train_set, config
            )
            kinds = {name: after}
            if config.untrained and name == config.learners[0]:
                kinds = {"head on a network without training": before} | kinds
            for kind, params in kinds.items():
                data = seen_by(params, test_set, config)
                for n in config.lengths:
                    found = accuracies(jax.random.clone(key_test), data, n, config)
                    spent = minutes if kind == name else 0.0
                    add(learner=kind, seed=seed, classes=n, minutes=spent, **found)
        for n in config.lengths[:1] if config.scratch else ():
            found = from_scratch(jax.random.clone(key_test), test_set, n, config)
            add(learner="from scratch", seed=seed, classes=n, minutes=0.0, **found)
    return {"rows": rows}


def spelled(results: dict) -> list[dict]:
    """Lines of the table, in %, mean and range over streams."""
    said = lambda values: ranged(100 * np.asarray(values), ".1f")
    return [
        {
            "learner": row["learner"],
            "seed": row["seed"],
            "classes": row["classes"],
            "new examples, %": said(row["new"]),
            "the stream's own, %": said(row["stream"]),
            "rate": f"{float(row['rate']):g}",
            "minutes": f"{row['minutes']:.1f}",
        }
        for row in results["rows"]
    ]


def main(config: Config) -> None:
    """Train, test, keep the numbers of each learner as they come, print the table."""
    known = {n: v for n, v in asdict(config).items() if n != "root"}
    results, path = {"config": known, "rows": []}, None
    for name in config.learners:
        first, last = name == config.learners[0], name == config.learners[-1]
        alone = replace(
            config,
            learners=(name,),
            untrained=config.untrained and first,
            scratch=config.scratch and last,
        )
        results["rows"] += run(jax.random.key(0), alone)["rows"]
        path = save(f"continual_omniglot_{config.steps}", results)
    table(f"Streams of Omniglot, {config.steps} steps, {device()}", spelled(results))
    print(path)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
