"""Inputs and targets that are trees of arrays: through every door what arrays do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import double, largest_difference, one_task, pad, row

import jaxmeta as jm
from jaxmeta import keys
from jaxmeta.tasks.plain import as_pytree
from jaxmeta.training.fit import first_task

WORDS, LONGEST, WAYS = 12, 5, 3
ADAM = optax.adam(1e-2)


def texts(seed=0):
    """6 classes of 10 short texts, each with words of its own: ids and what is one."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(6), 10)
    ids = 2 * y[:, None] + random.integers(0, 2, (60, LONGEST))
    mask = np.arange(LONGEST) < random.integers(2, LONGEST + 1, (60, 1))
    x = {"ids": np.where(mask, ids, 0).astype(np.int32), "mask": mask.astype(float)}
    return jm.data.from_arrays(x, y)


def twos(seed=0):
    """6 classes of 10 pairs of vectors."""
    random = np.random.default_rng(seed)
    y = np.repeat(np.arange(6), 10)
    centres = random.normal(size=(2, 6, 4))
    near = lambda c, n: (c[y] + 0.2 * random.normal(size=(60, 4)))[:, :n]
    return jm.data.from_arrays((near(centres[0], 3), near(centres[1], 2)), y)


def bag_of_words(outputs):
    """Mean of the words' vectors, then a layer."""

    def init(key):
        keys = jax.random.split(key)
        return {
            "table": jax.random.normal(keys[0], (WORDS, 8)),
            "head": 0.3 * jax.random.normal(keys[1], (8, outputs)),
        }

    def apply(params, x):
        assert jnp.issubdtype(x["ids"].dtype, jnp.integer)  # they stay integers
        rows = params["table"][x["ids"]] * x["mask"][..., None]
        mean = rows.sum(axis=1) / x["mask"].sum(axis=1, keepdims=True)
        return mean @ params["head"]

    return jm.Model(init, apply)


def side_by_side(outputs):
    mlp = jm.models.mlp(5, outputs, (8,))
    join = lambda x: jnp.concatenate(x, axis=1)
    return jm.Model(mlp.init, lambda params, x: mlp.apply(params, join(x)))


INPUTS = {"dict": (texts, bag_of_words), "tuple": (twos, side_by_side)}
CLASSIFIERS = {
    "maml": lambda network: jm.maml(network(WAYS), inner_lr=0.5, inner_steps=3),
    "protonet": lambda network: jm.protonet(network(8), ways=WAYS),
}


class Sums:
    """Sums of parts of the inputs, with weights of the task's own."""

    def __init__(self, targets):
        self.targets = targets

    def sample(self, key):
        keys = jax.random.split(key, 3)
        weights = jax.random.normal(keys[0], (3,))

        def batch(key):
            place = jax.random.normal(key, (6, 2))
            day = jax.random.randint(jax.random.fold_in(key, 7), (6,), 0, 3)
            value = place @ weights[:2] + weights[2] * day
            x = {"place": place, "day": day}
            y = {
                "scalars": value,
                "vectors": jnp.stack([value, -value], axis=1),
                "trees": {"up": value[:, None], "down": -value},
            }[self.targets]
            return jm.Batch(x, y)

        return jm.Task(batch(keys[1]), batch(keys[2]))


def drawn(sampler, number):
    """Tasks by the program with which `fit` looks at its first one."""
    draw = lambda i: first_task(
        as_pytree(sampler), keys.data(jax.random.key(3)), jnp.int32(i)
    )
    tasks = jax.device_get([draw(i) for i in range(number)])
    return jax.tree.map(lambda *a: np.stack(a), *tasks)


def every_door(learner, sampler):
    """Train, evaluate, evaluate given episodes, adapt and predict; padding changes
    nothing. Returns: what evaluate reported before and after."""
    before = learner.init(jax.random.key(0))
    state = jm.fit(
        learner, sampler, ADAM, steps=150, key=jax.random.key(1), tasks_per_step=4
    )
    reports = [
        jm.evaluate(learner, p, sampler, num_tasks=100, key=jax.random.key(2))
        for p in (before, state.params)
    ]
    tasks = drawn(sampler, 4)
    given = jm.evaluate_episodes(learner, state.params, tasks)
    one = jax.tree.map(lambda a: a[1], tasks)
    with jax.enable_x64(True):
        params, one = double(state.params), double(one)
        both = jax.jit(jax.value_and_grad(lambda p, t: learner.loss(p, t)[0]))
        padded = jm.Task(*(pad(batch, 2, 7.0) for batch in one))
        (loss, gradient), found = both(params, one), both(params, padded)
    assert largest_difference(found[1], gradient) < 1e-10
    np.testing.assert_allclose(given.per_task["loss"][1], loss, rtol=1e-4, atol=1e-6)
    return reports


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("inputs", [row(i, core=i == "dict") for i in INPUTS])
def test_classifiers_learn_from_trees(name, inputs):
    data, network = INPUTS[inputs]
    sampler = jm.tasks.episodes(data(), WAYS, shots=2, queries=3)
    before, after = every_door(CLASSIFIERS[name](network), sampler)
    assert after.mean["accuracy"] > max(0.9, before.mean["accuracy"])


def test_episodes_of_trees_are_those_of_their_parts():
    whole = twos()
    parts = [one_task(jm.tasks.episodes(jm.data.from_arrays(
        a.reshape(60, -1), np.repeat(np.arange(6), 10)), WAYS, 2, 3
    ), jax.random.key(5)) for a in whole.x]  # fmt: skip
    both = one_task(jm.tasks.episodes(whole, WAYS, 2, 3), jax.random.key(5))
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(both.support.x[i], part.support.x)
        np.testing.assert_array_equal(both.query.x[i], part.query.x)
        np.testing.assert_array_equal(both.query.y, part.query.y)
    sampler = jm.tasks.classes(texts(), batch=7)
    batch = jax.eval_shape(sampler.sample, jax.random.key(0)).query
    assert batch.x["ids"].shape == (7, LONGEST)
    assert batch.x["ids"].dtype == jnp.int32


def network_of_sums(outputs):
    def apply(params, x):
        columns = [x["place"], x["day"][:, None].astype(x["place"].dtype)]
        y = jnp.concatenate(columns, axis=1) @ params
        return {
            "scalars": lambda: y[:, 0],
            "vectors": lambda: y,
            "trees": lambda: {"up": y[:, :1], "down": y[:, 1]},
        }[outputs]()

    return jm.Model(lambda key: 0.1 * jax.random.normal(key, (3, 2)), apply)


def squares(outputs, targets):
    """Of trees: summed over their parts."""
    of_part = lambda o, t: jnp.square(o - t).reshape(len(t), -1).sum(axis=1)
    parts = jax.tree.map(of_part, outputs, targets)
    return sum(jax.tree.leaves(parts))


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["scalars", "vectors", "trees"])
def test_maml_learns_targets_of_any_shape(targets):
    loss = squares if targets == "trees" else jm.losses.mse
    learner = jm.maml(network_of_sums(targets), inner_lr=0.1, loss=loss)
    before, after = every_door(learner, Sums(targets))
    assert after.mean["loss"] < before.mean["loss"]


@pytest.mark.parametrize(
    "targets", [row("scalars", core=False), "vectors", row("trees", core=False)]
)
def test_neural_processes_take_trees_side_by_side(targets):
    dims = 1 if targets == "scalars" else 2
    encoder = jm.models.mlp(3 + dims, 16, (16,))
    decoder = jm.models.mlp(3 + 16, 2 * dims, (16,))
    before, after = every_door(jm.cnp(encoder, decoder), Sums(targets))
    assert after.mean["log_likelihood"] > before.mean["log_likelihood"]
    shape = jax.eval_shape(Sums(targets).sample, jax.random.key(0))
    facts = jm.learners.registry.facts_of(Sums(targets))
    assert (facts.x_dims, facts.y_dims, facts.length) == (3, dims, 6), shape


def test_a_task_without_targets():
    """An autoencoder: what is wanted is the input itself."""

    class Lines:
        def sample(self, key):
            key_line, *keys = jax.random.split(key, 3)
            line = jax.random.normal(key_line, (1, 4))
            points = [jax.random.normal(k, (5, 1)) * line for k in keys]
            return jm.Task(*map(jm.Batch, points))

    code = jm.models.mlp(4, 4, (2,), activation=lambda x: x)
    model = jm.Model(code.init, lambda p, x: (code.apply(p, x), x))
    loss = lambda outputs, targets: jnp.square(outputs[0] - outputs[1])
    learner = jm.maml(model, inner_lr=0.01, loss=loss)
    before, after = every_door(learner, Lines())
    assert after.mean["loss"] < before.mean["loss"]


def test_trees_that_do_not_fit_are_said():
    x = {"a": jnp.zeros((3, 2)), "b": jnp.zeros((4, 2))}
    learner = jm.protonet(jm.Model(lambda key: (), lambda p, x: x["a"]), ways=2)
    with pytest.raises(ValueError, match=r"expected as many examples in each"):
        learner.adapt((), jm.Batch(x, jnp.array([0, 1, 0])))
    good = {"a": jnp.zeros((3, 2)), "b": jnp.zeros((3, 2))}
    with pytest.raises(
        ValueError, match="mse: expected arrays, got outputs of type dict"
    ):
        jm.losses.mse(good, good)
    with pytest.raises(ValueError, match=r"from_arrays: expected images .*labels"):
        jm.data.from_arrays({"a": np.zeros((3, 2)), "b": np.zeros((2, 2))}, [0, 1, 1])
    with pytest.raises(ValueError, match="rotations and jitter: expected images"):
        jm.tasks.episodes(twos(), 3, rotations=True)
