"""A user is a task: what they will think of films, from what they rated.

    python benchmarks/movielens.py --root FOLDER

FOLDER has the files of MovieLens-100K. Users with 13 to 100 ratings are divided by 80, 10
and 10 %, ten random ratings of a test user are ranked, and the five best are relevant.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import generated_ratings
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from published import published
from report import device, save, table

import jaxmeta as jm
from jaxmeta.learners.gaussian import Gaussian
from jaxmeta.tasks import Users

METRICS = ("precision", "ndcg", "mrr", "mae")
YEARS = {1940: 12, 1955: 10, 1968: 8, 1980: 7, 1990: 5, 1996: 2}  # and how far is near
KINDNESS, TASTE = 0.6, 0.34  # of users, at first: deviations, in units of the noise's
RIDGE, ROUNDS = 20.0, 8  # of the factors of films
Scores = dict[str, jax.Array]


@dataclass(frozen=True)
class Config:
    """The protocol, and how learners are trained. root: None = generated ratings."""

    root: Path | None = None
    splits: int = 20
    draws: int = 5  # of the ten queries of each test user
    ratings: tuple[int, int] = (13, 100)
    steps: int = 500
    tasks_per_step: int = 8
    width: int = 16
    learning_rate: float = 1e-3
    rows: tuple[str, ...] | None = None  # titles; None = all

    @classmethod
    def tiny(cls) -> "Config":
        """Seconds."""
        rows = (
            "random",
            "item mean",
            "item mean + user bias",
            "R2D2 above the item mean",
            "ALPaCA above the item mean",
            "ALPaCA, all other users",
        )
        return cls(splits=2, draws=2, steps=2, tasks_per_step=2, width=2, rows=rows)


def run(key: jax.Array, config: Config) -> dict:
    """Rows: of each split the means over its test users of the three scores of the ranking
    and of the absolute error, in stars."""
    (everyone, more, films), found = users(config), {}
    for split, own in enumerate(jax.random.split(key, config.splits)):
        key_train, key_test = jax.random.split(own)
        parts = divided(everyone, split) | {"more": more, "films": films}
        parts["rated"] = (parts["train"],)
        for title, row in ROWS.items():
            if config.rows is None or title in config.rows:
                judged = row(
                    jax.random.clone(key_train),
                    jax.random.clone(key_test),
                    parts,
                    config,
                )
                found.setdefault(title, []).append(jax.device_get(judged))
    return {
        "data": "generated" if config.root is None else "MovieLens-100K",
        "rows": [
            {
                "learner": t,
                **{m: [float(s[m]) for s in f] for m in METRICS if m in f[0]},
            }
            for t, f in found.items()
        ],
    }


def users(config: Config) -> tuple[Users, Users, np.ndarray]:
    """All users of the protocol, those with more ratings, and what is known of films,
    [items, 24]."""
    if config.root is not None:
        return _read(config.root, config)
    with tempfile.TemporaryDirectory() as folder:
        generated_ratings.write(Path(folder), users=90, items=40)
        return _read(Path(folder), replace(config, ratings=(13, 25)))  # 30 at most


def _read(root: Path, config: Config) -> tuple[Users, Users, np.ndarray]:
    least, most = config.ratings
    everyone = jm.tasks.users(jm.data.ratings(root, least=least, most=most))
    more = jm.tasks.users(jm.data.ratings(root, least=most + 1))
    (known,) = everyone.everything()
    genres = np.zeros((everyone.items, known.x["genres"].shape[1]), np.float32)
    genres[known.x["item"]] = known.x["genres"]
    genres /= np.maximum(np.sqrt(genres.sum(axis=1, keepdims=True)), 1)
    lines = (root / "u.item").read_text("latin-1").splitlines()[: everyone.items]
    came = [re.search(r"\d{4}$", line.split("|")[2]) for line in lines]
    year = np.array([float(c.group()) if c else 1995.0 for c in came])
    middle, far = (np.array([*a], float) for a in (YEARS.keys(), YEARS.values()))
    near = np.exp(-(((year[:, None] - middle) / far) ** 2) / 2)
    return everyone, more, np.concatenate([genres, near], axis=1).astype(np.float32)


def divided(everyone: Users, seed: int) -> dict[str, Users]:
    """Users to train on and to test on, 80 and 10 %; the rest would choose between
    learners."""
    number = len(everyone.planner.counts)
    order = np.random.default_rng(seed).permutation(number)
    train, rest = order[: int(0.8 * number)], order[int(0.9 * number) :]
    return {"train": everyone.select(train), "test": everyone.select(rest)}


def rated(parts) -> tuple[np.ndarray, ...]:
    """Number of the film, rating and user of all ratings that item means are made of."""
    each, first = [], 0
    for sampler in parts["rated"]:
        (known,), counts = sampler.everything(), sampler.planner.counts
        user = first + np.repeat(np.arange(len(counts)), counts)
        each.append((known.x["item"], known.y, user))
        first += len(counts)
    item, rating, user = (np.concatenate(a) for a in zip(*each, strict=True))
    asked = item < parts["train"].items  # the others are in no task
    return item[asked], rating[asked], user[asked]


def item_means(parts, of_users: bool = False) -> jax.Array:
    """[items] shrunk by five ratings of the overall mean; of what users' biases leave?"""
    item, rating, user = rated(parts)
    who, items = user if of_users else None, parts["train"].items
    return jm.item_means(item, rating, items, user=who).mean


def by_chance(key, key_test, parts, config: Config) -> Scores:
    """The queries in random order."""
    del config
    test, found = parts["test"].everyone(key_test), jax.vmap(jm.metrics.ranking)
    order = jax.random.uniform(key, test.query.y.shape)
    return {name: jnp.mean(v) for name, v in found(order, test.query).items()}


def mean_of_items(user_shrinkage: float | None, key, key_test, parts, config) -> Scores:
    """Nothing is learned but the means."""
    del key
    learner = jm.item_mean(items=parts["test"].items, user_shrinkage=user_shrinkage)
    params = jm.learners.ItemMeans(item_means(parts))
    return judged(learner, params, parts["test"], key_test, config.draws)


def trained(make: Callable[..., Any], key, key_test, parts, config) -> Scores:
    """A learner of the ratings, from which 3.5 is subtracted: networks begin near 0."""
    offset = jnp.full(parts["train"].items, 3.5)
    return above(
        offset, make(parts["train"].items, config), key, key_test, parts, config
    )


def on_the_mean(make: Callable[..., Any], key, key_test, parts, config) -> Scores:
    """A learner of what the item mean leaves, the mean of what users' biases leave."""
    learner = made(make, parts["train"].items, config)
    offset = item_means(parts, of_users=True)
    return above(offset, learner, key, key_test, parts, config)


def with_tastes(
    make: Callable[..., Any], factors: int, key, key_test, parts, config
) -> Scores:
    """A learner of what the item mean leaves, from features that are known of a film: how
    good, how well known, of which genres, from when; and from factors of what was rated."""
    offset = item_means(parts, of_users=True)
    number = np.bincount(rated(parts)[0], minlength=len(offset))
    fame, quality = np.log1p(number) / 2 - 1, np.asarray(offset - jnp.mean(offset))
    tastes = TASTE * np.column_stack([parts["films"], fame, quality])
    found = latent(parts, np.asarray(offset), factors)
    features = np.column_stack([np.full(len(offset), KINDNESS), tastes, found])
    features = jnp.asarray(features, jnp.float32)
    seen = {name: described(features, parts[name]) for name in ("train", "test")}
    learner = made(make, features.shape[1], config)
    return above(offset, learner, key, key_test, parts | seen, config)


@jax.jit
def described(features: jax.Array, sampler: Users) -> Users:
    """The users, and of films the number and the features, [items, features]."""
    item = sampler.x["item"]
    return replace(sampler, x={"item": item, "features": features[item]})


def latent(parts, offset: np.ndarray, factors: int) -> np.ndarray:
    """[items, factors] of films such that users who differ in them by a variance of one
    rate as they do: alternating ridge regressions (Koren et al. 2009) of what is left by
    the offset and by users' biases."""
    if not factors:
        return np.zeros((len(offset), 0))
    item, rating, user = rated(parts)
    left, counts = rating[:, 0] - offset[item], np.bincount(user)
    left = left - (np.bincount(user, left) / (counts + 3))[user]
    of_films = 0.1 * np.random.default_rng(0).normal(size=(len(offset), factors))
    for _ in range(ROUNDS):
        of_users = _ridges(user, of_films[item], left, len(counts))
        of_films = _ridges(item, of_users[user], left, len(offset))
    spread = of_users.T @ of_users / len(counts)
    return of_films @ np.linalg.cholesky(spread + 1e-6 * np.eye(factors))


def _ridges(group: np.ndarray, x: np.ndarray, y: np.ndarray, groups: int) -> np.ndarray:
    """The weights [groups, factors] of the rows of each group."""
    size = x.shape[1]
    products, sums = np.zeros((groups, size, size)), np.zeros((groups, size, 1))
    np.add.at(products, group, x[:, :, None] * x[:, None])
    np.add.at(sums, group, (x * y[:, None])[..., None])
    return np.linalg.solve(products + RIDGE * np.eye(size), sums)[..., 0]


def of_more(row: Callable[..., Scores], key, key_test, parts, config) -> Scores:
    """A row that knows the ratings of users with more of them too, who are in no task."""
    both = {"rated": (parts["train"], parts["more"])}
    return row(key, key_test, parts | both, config)


def above(offset, learner: jm.MetaLearner, key, key_test, parts, config) -> Scores:
    """Scores of a learner of what ratings are above an offset of each item, [items]."""
    train, test = (without(offset, parts[name]) for name in ("train", "test"))
    state = jm.fit(
        learner,
        train,
        outer(config.learning_rate),
        steps=config.steps,
        tasks_per_step=config.tasks_per_step,
        key=key,
    )
    return judged(learner, state.params, test, key_test, config.draws, offset)


@jax.jit
def without(offset: jax.Array, sampler: Users) -> Users:
    """The users, and their ratings without an offset for each item."""
    return replace(
        sampler, targets=sampler.targets - offset[sampler.x["item"]][:, None]
    )


def judged(learner, params, test: Users, key, draws: int, offset=None) -> Scores:
    """Means over the test users and several draws of their queries."""
    offset = jnp.zeros(test.items) if offset is None else offset
    keys = jax.random.split(key, draws)
    each = [_judged(learner, params, test.everyone(k), offset) for k in keys]
    return jax.tree.map(lambda *a: jnp.mean(jnp.stack(a)), *each)


@partial(jax.jit, static_argnums=0)
def _judged(learner, params, tasks: jm.Task, offset: jax.Array) -> Scores:
    def one(task):
        query = task.query
        outputs = learner.predict(learner.adapt(params, task.support), query.x)
        outputs = outputs.mean if isinstance(outputs, Gaussian) else outputs
        more = offset[query.x["item"]][:, None]
        scores = jm.metrics.ranking(outputs + more, query._replace(y=query.y + more))
        return scores | {"mae": jnp.mean(jnp.abs(outputs - query.y))}

    return jax.tree.map(jnp.mean, jax.vmap(one)(tasks))


def melu(
    inner_lr: float, inner_steps: int, items: int, config: Config
) -> jm.MetaLearner:
    """MeLU's network, with an embedding of the film in place of director and actors."""
    model = jm.models.rater(items, width=config.width)
    return jm.melu(model, inner_lr=inner_lr, inner_steps=inner_steps)


def tanp(items: int, config: Config) -> jm.MetaLearner:
    """The sizes of the authors' code."""
    return jm.tanp(jm.models.rater(items, 32, (32,), width=config.width))


def ridge(items: int, config: Config) -> jm.MetaLearner:
    """R2D2 whose first feature is 1, so that it begins as the item mean and user bias."""
    return jm.r2d2(taste(items, config.width), ways=None, penalty=3.0)


def bayes(features: int, config: Config) -> jm.MetaLearner:
    """ALPaCA whose features are given: what it learns is the prior of users' tastes."""
    del config
    given = jm.Model(lambda key: {}, lambda params, x: x["features"])
    return jm.alpaca(given, features=features, std=0.92)


def taste(items: int, width: int) -> jm.Model:
    """Linear features of a film: 1, of its genres, and its own."""

    def init(key):
        key_genres, key_items = jax.random.split(key)
        return {
            "genres": 0.3 * jax.random.normal(key_genres, (18, width)),
            "items": 0.05 * jax.random.normal(key_items, (items, width)),
        }

    def apply(params, x):
        several = jnp.maximum(jnp.sum(x["genres"], axis=1, keepdims=True), 1)
        of_genres = x["genres"] / several @ params["genres"]
        one = jnp.ones((len(of_genres), 1), of_genres.dtype)
        return jnp.concatenate([one, of_genres + params["items"][x["item"]]], axis=1)

    return jm.Model(init, apply)


outer = cache(optax.adam)  # one object and one learner, one program for all splits


@cache
def made(make: Callable[..., jm.MetaLearner], size: int, config: Config):
    """The learner of a row."""
    return make(size, config)


ROWS: dict[str, Callable[..., Scores]] = {
    "random": by_chance,
    "item mean": partial(mean_of_items, None),
    "item mean + user bias": partial(mean_of_items, 3.0),
    "MeLU, 1 step of 5e-6": partial(trained, partial(melu, 5e-6, 1)),
    "MeLU, 3 steps of 0.02": partial(trained, partial(melu, 0.02, 3)),
    "TaNP": partial(trained, tanp),
    "R2D2 above the item mean": partial(on_the_mean, ridge),
    "ALPaCA above the item mean": partial(with_tastes, bayes, 0),
    "item mean, all other users": partial(of_more, partial(mean_of_items, None)),
    "ALPaCA, all other users": partial(of_more, partial(with_tastes, bayes, 8)),
}


def spelled(results: dict) -> list[dict]:
    """Lines of the table: mean and standard deviation over the splits, what is published."""
    lines = []
    for row in results["rows"]:
        theirs = published("movielens", row["learner"])
        line = {"learner": row["learner"]}
        for metric in METRICS:
            line |= {metric: said(row[metric]) if metric in row else "-"}
            if metric != "mae":
                line |= {f"{metric}, published": theirs.get(metric, "-")}
        lines.append(line)
    return lines


def said(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


def main(config: Config) -> None:
    """Train, test, print the table, keep the numbers."""
    results = run(jax.random.key(0), config)
    table(f"Users of {results['data']}, {device()}", spelled(results))
    print(save("movielens", results))


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
