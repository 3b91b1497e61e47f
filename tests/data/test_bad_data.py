"""Data and networks that do not fit each other get a sentence: what was got, expected, to do.

Shapes, labels, masks, byte orders, parameters and objects of another kind, at the doors
of a learner, of `evaluate_episodes` and of the data sets.
"""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import TinyNetworks

import jaxmeta as jm
from jaxmeta import data, learners, losses, models, tasks
from jaxmeta.learners.registry import Facts

NAN = math.nan
KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).random((60, 4, 4, 1), np.float32)
DATA = data.from_arrays(IMAGES, np.arange(60) % 6)
SINE = jm.maml(models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
TASK = tasks.sinusoid(3, 3).sample(jax.random.key(1))


def refusal(call, *args):
    """The sentence of a ValueError; anything else is a failure of the test."""
    with pytest.raises(ValueError) as caught:
        call(*args)
    assert type(caught.value) is ValueError, caught.value
    return str(caught.value)


def at(model, *shape):
    return lambda: model.apply(model.init(KEY), jnp.zeros(shape))


MLP, CONV = models.mlp(6), models.conv4(input_shape=(16, 16, 1), widths=2)
MAPS = models.conv4(None, input_shape=(16, 16, 1), widths=2, grid=True)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (at(MLP, 3, 7), r"inputs: .* \[examples, 6\], got .*\(3, 7\)"),
        (at(MLP, 3, 2, 2), r"build it with inputs=\(2, 2\)"),
        (at(MLP, 3, 5), "build it with inputs=5"),
        (at(MLP, 2, 3, 6), "one task at a time: use jax.vmap"),
        (at(models.mlp((2, 3)), 3, 7), r"inputs: .*\[examples, 2, 3\]"),
        (at(CONV, 3, 8, 8, 1), r"build it with input_shape=\(8, 8, 1\)"),
        (at(CONV, 3, 16, 16, 3), r"build it with input_shape=\(16, 16, 3\)"),
        (at(CONV, 3, 16, 16), r"channel axis, x\[..., None\]"),
        (at(CONV, 3, 256), "input_shape: the network was built for"),
        (at(CONV, 2, 3, 16, 16, 1), "one task at a time: use jax.vmap"),
        (at(MAPS, 3, 16, 16, 3), "input_shape: the network"),
        (at(models.transformer(2, 2), 3, 3), "inputs: the network"),
        (at(models.set_encoder(2, 2), 3, 3), "inputs: the network"),
        (
            at(models.relation_module((4, 4, 2), widths=2), 3, 4, 4, 3),
            "input_shape: the",
        ),
        (partial(models.mlp, 1, 0), "outputs: expected a whole number >= 1, got 0"),
        (partial(models.mlp, hidden=40), "hidden: expected a tuple of whole numbers"),
        (
            partial(models.resnet12, widths=(1, 2, 3)),
            "widths: expected 4 whole numbers",
        ),
        (partial(models.conv4, input_shape=(28, 28)), "input_shape: expected 3 whole"),
    ],
)
def test_networks_say_what_they_were_built_for(call, sentence):
    assert re.search(sentence, refusal(call))


WITH_FEATURES = [n for n, e in learners.REGISTRY.items() if e.takes("features")]


@pytest.mark.parametrize("name", WITH_FEATURES)
def test_features_of_another_width_name_the_argument(name):
    entry = learners.REGISTRY[name]
    more = {"classes": 4, "full_context": True}
    more = {n: value for n, value in more.items() if entry.takes(n)}
    _, *others = entry.networks(TinyNetworks(Facts(ways=2, x_dims=6, features=8)))
    more |= {"features": 8} | ({"ways": 2} if entry.takes("ways") else {})
    learner = entry.constructor(models.mlp(6, 7, ()), *others, **more)
    batch = jm.Batch(jnp.zeros((4, 6)), jnp.array([0, 1, 0, 1]))
    params = jax.eval_shape(learner.init, KEY)

    def loss():
        return jax.eval_shape(learner.loss, params, jm.Task(batch, batch), KEY)

    assert "give the learner features=7" in refusal(loss)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([1, "1", 2, "2"], "labels: expected .* all of one type, got int, str"),
        ([1, True, 0, False], "labels: expected .* all of one type, got bool, int"),
        (np.array([1, "1", 2, 2], object), "all of one type, got int, str"),
        ([1, None, 2, 2], "all of one type, got NoneType, int"),
        ([0.0, 1.0, 0.0, 1.0], "labels: expected integers or strings, got float64"),
        ([NAN, 1.0, 0.0, 1.0], "labels: expected integers or strings, got float64"),
        ([[0, 1], [0, 1]], "labels"),
        ([[0], [0, 1], 2, 3], "labels: expected"),
        (5, "labels"),
        (None, "labels: expected"),
        ([0, 1, 2], r"got shapes \(4, 2\) and \(3,\)"),
    ],
)
def test_labels_are_of_one_type(labels, sentence):
    assert re.search(sentence, refusal(data.from_arrays, np.zeros((4, 2)), labels))


@pytest.mark.parametrize("labels", [list("abab"), np.array([3, 1, 3, 1], ">i8")])
@pytest.mark.parametrize(
    "kind", [">f4", ">f8", "<f8", "float16", jnp.bfloat16, "uint8"]
)
def test_arrays_of_any_float_type_and_byte_order_are_taken(labels, kind):
    images = np.arange(8).reshape(4, 2).astype(kind)
    made = data.from_arrays(images, labels)
    assert made.x.dtype.isnative and len(made.classes) == 2
    order = [0, 2, 1, 3] if made.classes == ("a", "b") else [1, 3, 0, 2]
    np.testing.assert_array_equal(made.x, images[order])
    task = tasks.episodes(made, 2, 1, 1).sample(jax.random.key(0))
    assert bool(jnp.isfinite(task.support.x.astype(jnp.float32)).all())


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((4, 2), complex), "floating, got complex128"),
        (np.zeros((4, 2), bool), "floating, got bool"),
        (np.zeros((4, 0)), "at least one number each"),
        ([[1.0], [1.0, 2.0], [1.0], [1.0]], "expected one array, got parts"),
        (np.full((4, 2), np.inf), "8 values are NaN or infinite"),
        (jnp.full((4, 2), jnp.nan, jnp.bfloat16), "8 values are NaN or infinite"),
        (5, "expected images .examples"),
        (5.0, "expected images .examples"),
    ],
)
def test_images_that_are_none(images, sentence):
    assert re.search(sentence, refusal(data.from_arrays, images, [0, 1, 0, 1]))


def test_classes_that_are_not_there():
    assert "chosen: expected" in refusal(DATA.select, [0, 6], "some")
    assert "chosen: expected" in refusal(DATA.select, [-1], "some")


def episodes(**change):
    """A batch of two tasks of two ways, with other arrays in the place of its own."""
    x = np.random.default_rng(0).random((2, 4, 3), np.float32)
    given = {"x": x, "y": np.array([[0, 1, 0, 1]] * 2), **change}
    return jm.Task(jm.Batch(x, np.array([[0, 1, 0, 1]] * 2)), jm.Batch(**given))


NEAREST = partial(jm.evaluate_episodes, jm.nearest_neighbour(ways=2), ())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (episodes(mask=np.ones((2, 3))), r"query set: mask has shape \(3,\)"),
        (episodes(mask=np.ones((2, 5))), r"query set: mask has shape \(5,\)"),
        (episodes(mask=np.ones(2)), "mask has shape"),
        (episodes(mask=np.ones((1, 4))), "of as many tasks"),
        (episodes(y=np.zeros((2, 3), int)), "x has 4 examples, y has 3"),
        (
            episodes(y=np.zeros((2, 4))),
            "targets that are integers|labels: expected int",
        ),
        (episodes(y=np.full((2, 4), "a")), "tasks: expected numbers"),
        (episodes(y=np.full((2, 4), 2)), r"expected integers in 0\.\.1"),
        (episodes(x=np.zeros((3, 4, 3))), "of as many tasks"),
        (episodes(x=np.full((2, 4, 3), NAN, "f4")), "NaN or infinite"),
        (episodes(x=[[1.0]]), "tasks: expected arrays"),
        (None, "tasks: expected jm.Task"),
        (5, "tasks: expected jm.Task"),
        ([1, 2], "tasks: expected jm.Task"),
        ([], "tasks: expected at least one"),
        (jm.Task(1, 2), "tasks: expected jm.Task"),
    ],
)
def test_episodes_that_do_not_fit(given, sentence):
    assert re.search(sentence, refusal(NEAREST, given))


@pytest.mark.parametrize("kind", [">f4", ">f8", jnp.bfloat16])
def test_episodes_of_any_float_type_and_byte_order(kind):
    right = NEAREST(episodes())
    x = episodes().query.x.astype(kind)
    swapped = NEAREST(episodes(x=x, y=episodes().query.y.astype(">i4")))
    assert swapped.mean["accuracy"] == right.mean["accuracy"]


@pytest.mark.parametrize("params", [None, {}, (), 5, [jnp.zeros(2)]])
def test_parameters_of_nothing(params):
    call = partial(jm.evaluate, SINE, params, tasks.sinusoid(), key=KEY)
    assert "params: expected" in refusal(call)
    call = partial(jm.evaluate_episodes, SINE, params, [TASK])
    assert "params: expected" in refusal(call)


X, Y = np.random.default_rng(1).random((4, 3), np.float32), np.array([0, 1, 0, 1])
BATCH = jm.Batch(X, Y)
GOOD = jm.Task(BATCH, BATCH)
TWO = jax.tree.map(lambda a: jnp.asarray(np.stack([a, a])), GOOD)
MAML = jm.maml(models.mlp(3, 2, (4,)))
PROTO = jm.protonet(models.mlp(3, 4, (4,)), ways=2)
PARAMS = MAML.init(jax.random.key(2))
DEEPER = jax.tree.map(lambda a: a[..., None], PARAMS)
SGD = optax.sgd(0.1)
STATE = jm.MetaState(PARAMS, SGD.init(PARAMS), jnp.zeros((), jnp.int32))


def adapted(**change):
    return partial(MAML.adapt, PARAMS, BATCH._replace(**change))


def judged(learner=MAML, **change):
    return run(learner, jm.Task(BATCH, BATCH._replace(**change)))


def run(learner, task):
    """Traced, not run: shapes and types are known then."""
    loss = lambda params: learner.loss(params, task, KEY)
    return lambda: jax.eval_shape(loss, jax.eval_shape(learner.init, KEY))


class Gives:
    """A sampler that gives whatever it was made with."""

    def __init__(self, task):
        self.task = task

    def sample(self, key):
        return self.task


def stepped(*args):
    return partial(jm.make_step(MAML, SGD), *args)


def fitted(sampler, **given):
    return partial(jm.fit, MAML, sampler, SGD, steps=1, key=KEY, **given)


def population(make, **swept):
    keys = jax.random.split(jax.random.key(0), 2)
    return partial(
        jm.fit_population, make, tasks.sinusoid(), keys=keys, steps=1, **swept
    )


def swept(rate):
    return jm.maml(models.mlp(), inner_lr=rate, loss=losses.mse), SGD


MIXED = TWO._replace(query=jax.tree.map(lambda a: a[:1], TWO.query))
THREE = jax.tree.map(lambda a: jnp.concatenate([a, a[:1]]), TWO)
GRID = models.conv4(None, input_shape=(4, 4, 1), widths=2, pools=1, grid=True)
PICTURES = jm.Task(*[jm.Batch(IMAGES[:4], Y)] * 2)
mlp = models.mlp


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            partial(MAML.adapt, PARAMS, "x"),
            r"support: expected a jm.Batch\(x, y, mask\)",
        ),
        (partial(MAML.adapt, PARAMS, None), "support: expected a jm.Batch"),
        (partial(MAML.adapt, PARAMS, GOOD), "support: expected a jm.Batch.* got Task"),
        (partial(MAML.adapt, PARAMS, BATCH, 0), "key: expected a typed key"),
        (partial(MAML.adapt, PARAMS, TWO.support), "use jax.vmap for a batch of tasks"),
        (partial(MAML.adapt, None, BATCH), "params: expected those of this network"),
        (
            partial(MAML.adapt, {"a": X}, BATCH),
            "params: expected those of this network",
        ),
        (partial(MAML.adapt, DEEPER, BATCH), "params: expected those of this network"),
        (partial(MAML.predict, None, X), "params: expected those of this network"),
        (partial(MAML.predict, PARAMS, "x"), "inputs: expected numbers"),
        (partial(MAML.predict, PARAMS, X[:, :2]), "inputs: the network was built for"),
        (partial(MAML.predict, PARAMS, X, np.ones(3)), r"mask: expected shape \(4,\)"),
        (partial(MAML.loss, PARAMS, BATCH), "task: expected a jm.Task.* got Batch"),
        (partial(MAML.loss, PARAMS, None), "task: expected a jm.Task"),
        (partial(MAML.loss, PARAMS, TWO), "use jax.vmap for a batch of tasks"),
        (
            adapted(y=None),
            "cross_entropy: expected targets that are integers .*got None",
        ),
        (adapted(x="x"), "support inputs: expected numbers"),
        (adapted(x=X.tolist()), "support set: expected arrays"),
        (adapted(x=np.array([None] * 4)), "support inputs: expected numbers"),
        (adapted(x=X[:, 0]), "inputs: the network was built for"),
        (adapted(x=X[:0], y=Y[:0]), "support set is empty"),
        (
            adapted(mask=np.ones(3)),
            r"support set: mask has shape \(3,\), expected \(4,\)",
        ),
        (adapted(mask=np.ones((4, 1))), "support set: mask has shape"),
        (adapted(mask="x"), "mask: expected numbers"),
        (adapted(y=Y * 1.0), "expected targets that are integers"),
        (adapted(y=Y[:, None]), "cross_entropy: outputs have shape"),
        (adapted(y=np.array(list("abab"))), "support targets: expected numbers"),
        (adapted(y=Y + 1), r"support labels: expected integers in 0\.\.1"),
        (judged(y=Y * 1.0), "query labels: expected integers"),
        (judged(y=np.array(list("abab"))), "query targets: expected numbers"),
        (judged(mask=np.ones(3)), "query set: mask has shape"),
        (judged(PROTO, y=Y * 1.0), "query labels: expected integers"),
        (judged(PROTO, y=Y[:, None]), "query labels: expected integers of shape"),
        (
            run(PROTO, GOOD._replace(support=jm.Batch(X, Y / 2))),
            "support labels: expected",
        ),
        (
            judged(jm.nearest_neighbour(2), x=X[:, :2]),
            "inputs: expected examples",
        ),
        (stepped(STATE, GOOD), r"tasks: expected arrays \[tasks, examples, ...\]"),
        (stepped(STATE, None), "tasks: expected a jm.Task"),
        (stepped(PARAMS, TWO), "state: expected a jm.MetaState"),
        (stepped(STATE, TWO, 0), "key: expected a typed key"),
        (partial(jm.meta_gradient(MAML), PARAMS, BATCH), "tasks: expected a jm.Task"),
        (
            partial(jm.meta_gradient(MAML, 2), PARAMS, THREE),
            "3 tasks can't be run 2 at",
        ),
        (partial(jm.meta_loss(MAML), PARAMS, MIXED), "of as many tasks in the query"),
        (partial(jm.meta_loss(None), PARAMS, TWO), "learner: expected a MetaLearner"),
        (
            partial(jm.meta_gradient("x"), PARAMS, TWO),
            "learner: expected a MetaLearner",
        ),
        (fitted(Gives(5)), r"task \(what the sampler gives\): expected a jm.Task"),
        (fitted(Gives(GOOD._replace(query=jm.Batch(X, Y * 1.0)))), "query labels"),
        (fitted(Gives(GOOD), state=jm.MetaState(None, None, 0)), "params: expected"),
        (population(lambda: 5), r"make: expected to get \(learner, optimizer\)"),
        (population(lambda: (MAML, 5)), "optimizer: expected an optax optimiser"),
        (population(lambda lr: 5, lr=[0.1, NAN]), "lr: 1 values are NaN"),
        (
            population(lambda lr: 5, lr=[0.1]),
            "lr: expected one value for each of the 2",
        ),
        (population(lambda lr: 5, lr="x"), "lr: expected numbers"),
        (population(swept, rate=[0.1, -0.1]), "inner_lr: expected a number >= 0"),
        (
            run(jm.maml(mlp(3, 2), rule=lambda lr: None), GOOD),
            "rule: expected an optax",
        ),
        (
            run(jm.maml(mlp(3, 2), loss=lambda o, t: 0.0), GOOD),
            "loss: expected a function",
        ),
        (partial(jm.maml, mlp(), inner_lr=lambda k: None), "inner_lr: expected a sch"),
        (
            partial(jm.maml, mlp(), inner_lr=optax.sgd),
            "inner_lr: expected a number, or a",
        ),
        (partial(losses.cross_entropy, X, Y[:3]), r"shape \(4, 3\), targets \(3,\)"),
        (partial(losses.mean, X, np.ones(3)), r"mask: expected one entry an example"),
        (
            run(jm.protonet(GRID, ways=2), PICTURES),
            r"expected outputs \[examples, features",
        ),
        (
            run(jm.r2d2(GRID, ways=2), PICTURES),
            r"expected outputs \[examples, features",
        ),
        (run(jm.cnp(mlp(2, 8), mlp(4, 2)), TASK), "build it with inputs=9"),
        (run(jm.cnp(mlp(2, 8), mlp(9, 3)), TASK), "decoder: expected an even number"),
        (
            run(
                jm.neural_process(mlp(2, 8), models.set_encoder(2, 7), mlp(12, 2)), TASK
            ),
            "latent: expected one vector",
        ),
        (run(jm.tnpd(x_dims=2, layers=1), TASK), "inputs: the network was built for"),
        (run(jm.snail(mlp(3, 64), ways=2, length=2), GOOD), "length: the support set"),
    ],
)
def test_what_a_learner_is_called_with(call, sentence):
    said = refusal(call)
    assert re.search(sentence, said), said
