"""What every registered learner keeps. A learner without a row can't exist: the rows
are the registry."""

import inspect

import docstring_parser
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import (
    CORE,
    ONE_EACH,
    ROWS,
    double,
    largest_difference,
    make,
    pad,
    row,
    training_sampler,
)

import jaxmeta as jm
from jaxmeta import learners

rows = pytest.mark.parametrize(("name", "problem"), ROWS)
costly, one_each = (
    pytest.mark.parametrize(
        ("name", "problem"), [row(*r, core=r[0] in CORE) for r in some]
    )
    for some in (ROWS, ONE_EACH)
)
registered = pytest.mark.parametrize("name", learners.REGISTRY)


@pytest.fixture(scope="module")
def built(blobs):
    """(learner, sampler, params, task, loss, gradient), the functions jitted: one of a
    row for all tests, since compiling them is what takes the time."""
    made = {}

    def get(name, problem):
        if (name, problem) not in made:
            if len(made) == 12:  # a process can't hold the programs of all
                made.clear()
                jax.clear_caches()
            with jax.enable_x64(False):  # whichever test asks first
                learner, sampler = make(name, problem, blobs)
                params = learner.init(jax.random.key(0))
                task = jax.jit(sampler.sample)(jax.random.key(1))
            loss = jax.jit(learner.loss)
            gradient = jax.jit(jax.grad(lambda p, t: learner.loss(p, t)[0]))
            made[name, problem] = learner, sampler, params, task, loss, gradient
        return made[name, problem]

    return get


OPTIMIZER = optax.adam(3e-3)  # one object: `fit` compiles anew for another


def train(learner, sampler, *, steps, seed):
    return jm.fit(
        learner,
        sampler,
        OPTIMIZER,
        steps=steps,
        key=jax.random.key(seed),
        tasks_per_step=8,
        chunk=100,
    )


@costly
def test_loss_falls(built, blobs, name, problem):
    learner, sampler, params, *_ = built(name, problem)
    before = jm.evaluate(learner, params, sampler, num_tasks=400, key=jax.random.key(2))
    state = train(learner, training_sampler(name, sampler, blobs), steps=300, seed=3)
    after = jm.evaluate(
        learner, state.params, sampler, num_tasks=400, key=jax.random.key(2)
    )
    gain = before.per_task["loss"] - after.per_task["loss"]  # on the same tasks
    assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5


@one_each
def test_jit_equals_eager(x64, built, name, problem):
    learner, _, params, task, loss, _ = built(name, problem)
    params, task = double(params), double(task)
    eager, jitted = learner.loss(params, task), loss(params, task)
    np.testing.assert_allclose(eager[0], jitted[0], rtol=1e-12)
    assert eager[1].keys() == jitted[1].keys()
    assert eager[0].dtype == jnp.float64  # nothing fell back to single precision


@one_each
def test_tasks_at_once_changes_no_number(x64, built, name, problem):
    learner, sampler, params, *_ = built(name, problem)
    params = double(params)
    tasks = double(jm.sample_tasks(sampler, jax.random.key(4), 6))
    results = [
        jax.jit(jm.meta_gradient(learner, size))(params, tasks, jax.random.key(5))
        for size in (3, 1)  # a loop of two vmaps, and a loop of six tasks
    ]
    assert largest_difference(results[1][1], results[0][1]) < 1e-9
    np.testing.assert_allclose(results[1][0][0], results[0][0][0], rtol=1e-10)


@costly
def test_state_is_stable_and_the_second_call_compiles_nothing(
    built, blobs, name, problem
):
    learner, sampler, *_ = built(name, problem)
    sampler = training_sampler(name, sampler, blobs)
    optimizer = optax.adam(1e-3)
    state = jm.init_state(learner, optimizer, jax.random.key(0))
    step = jm.make_step(learner, optimizer)
    tasks = jm.sample_tasks(sampler, jax.random.key(1), 2)
    shapes = jax.eval_shape(lambda s: s, state)
    assert jax.eval_shape(step, state, tasks, jax.random.key(2))[0] == shapes
    for i in range(3):
        state, _ = step(state, tasks, jax.random.key(i))
    assert step._cache_size() == 1
    assert int(state.step) == 3


@costly
def test_masked_examples_change_nothing(built, name, problem):
    _, _, params, task, loss, *_ = built(name, problem)
    plain, _ = loss(params, task)
    masked = [
        loss(params, jm.Task(pad(task.support, 3, fill), pad(task.query, 2, fill)))
        for fill in (0.0, 1e30, float("nan"))
    ]
    # whatever stands in the padding: the same bits
    for value, metrics in masked:
        assert value == masked[0][0]
        assert metrics == masked[0][1]
    # and without padding the same up to rounding: sums over another number of terms
    # are added up in another order (test_masked_examples_change_no_gradient: to 1e-12)
    np.testing.assert_allclose(masked[0][0], plain, rtol=1e-5, atol=1e-6)


@one_each
def test_masked_examples_change_no_gradient(x64, built, name, problem):
    _, _, params, task, _, gradient = built(name, problem)
    params, task = double(params), double(task)
    padded = jm.Task(pad(task.support, 3, jnp.nan), pad(task.query, 2, jnp.nan))
    assert largest_difference(gradient(params, padded), gradient(params, task)) < 1e-12


@costly
def test_same_key_same_result(built, blobs, name, problem):
    learner, sampler, *_ = built(name, problem)
    sampler = training_sampler(name, sampler, blobs)

    states = [train(learner, sampler, steps=3, seed=seed) for seed in (0, 0, 1)]
    first, again, other = (jax.tree.leaves(state.params) for state in states)
    assert all(bool((a == b).all()) for a, b in zip(first, again, strict=True))
    assert any(bool((a != b).any()) for a, b in zip(first, other, strict=True))


@one_each
def test_meta_gradient_is_that_of_finite_differences(x64, built, name, problem):
    _, _, params, task, loss, gradient = built(name, problem)
    if not learners.REGISTRY[name].exact:
        pytest.skip("its adjoint is not exact, and says so")
    params, task = double(params), double(task)
    random, slope = np.random.default_rng(0), gradient(params, task)
    draw = lambda a: jnp.asarray(random.normal(size=a.shape))
    for along in (jax.tree.map(draw, params), jax.tree.map(draw, params)):
        up, down = (
            loss(jax.tree.map(lambda p, v, e=e: p + e * v, params, along), task)[0]
            for e in (1e-6, -1e-6)
        )
        np.testing.assert_allclose(
            optax.tree.vdot(slope, along), (up - down) / 2e-6, rtol=1e-5, atol=1e-7
        )


@rows
def test_adapted_is_self_contained(built, name, problem):
    """predict(adapt(...)) is all that the query loss is made of."""
    learner, _, params, task, loss, *_ = built(name, problem)
    adapted = jax.jit(learner.adapt)(params, task.support)
    outputs = jax.jit(learner.predict)(adapted, task.query.x)
    _, metrics = loss(params, task)
    if problem == "classification":
        accuracy = np.mean(np.argmax(outputs, axis=-1) == np.asarray(task.query.y))
        np.testing.assert_allclose(accuracy, metrics["accuracy"], rtol=1e-6)
    else:
        gaussian = isinstance(outputs, jm.learners.Gaussian)
        mean = outputs.mean if gaussian else outputs
        error = np.mean(np.square(np.asarray(mean) - np.asarray(task.query.y)))
        key = "mse" if gaussian else "loss"
        np.testing.assert_allclose(error, metrics[key], rtol=1e-5)


@rows
def test_an_empty_support_set_is_refused(built, name, problem):
    learner, _, params, task, *_ = built(name, problem)
    empty = jax.tree.map(lambda a: a[:0], task.support)
    with pytest.raises(ValueError, match="support set is empty"):
        learner.adapt(params, empty)


@pytest.mark.parametrize("label", [-1, 3])
@pytest.mark.parametrize("name", [n for n, p in ROWS if p == "classification"])
def test_labels_out_of_range_are_refused(x64, built, name, label):
    learner, _, params, task, *_ = built(name, "classification")
    params, task = double(params), double(task)  # as in test_jit_equals_eager: compiled
    if learners.REGISTRY[name].unlabelled and label == -1:
        label = -2  # -1 is the label of an unlabelled example
    wrong = task.support._replace(y=task.support.y.at[1].set(label))
    with pytest.raises(ValueError, match=rf"integers in 0\.\.2 .*got \[{label}\]"):
        learner.adapt(params, wrong)
    # a query always has a label
    label = -1 if label == -2 else label
    wrong = task._replace(query=task.query._replace(y=task.query.y.at[1].set(label)))
    with pytest.raises(ValueError, match=r"query labels: expected integers in 0\.\.2"):
        learner.loss(params, wrong)


@registered
def test_constructor_is_documented(name):
    """The command line's help is made from it."""
    constructor = learners.REGISTRY[name].constructor
    assert name == constructor.__name__
    said = docstring_parser.parse(inspect.getdoc(constructor)).params
    parameters = inspect.signature(constructor).parameters
    assert parameters.keys() <= {p.arg_name for p in said}
    assert getattr(jm, name) is constructor


def spoilt(batch: jm.Batch, classify: bool) -> dict[str, jm.Batch]:
    """What no number may come of: all of one shape, so that one program serves all."""
    n = len(batch.x)
    whole = batch._replace(mask=jnp.ones(n))
    made = {
        "NaN input": whole._replace(x=batch.x.at[0].set(jnp.nan)),
        "infinite input": whole._replace(x=batch.x.at[1].set(jnp.inf)),
        "empty": whole._replace(mask=jnp.zeros(n)),
        "NaN mask": whole._replace(mask=jnp.full(n, jnp.nan)),
        "one NaN in the mask": whole._replace(mask=jnp.ones(n).at[0].set(jnp.nan)),
    }
    if classify:
        labels = {-1: batch.y.at[0].set(-1), 3: batch.y.at[n - 1].set(3)}
        made |= {f"label {k}": whole._replace(y=y) for k, y in labels.items()}
        made["labels far out"] = whole._replace(y=jnp.full_like(batch.y, 2**30))
    else:
        made["NaN target"] = whole._replace(y=batch.y.at[0].set(jnp.nan))
    return made


@pytest.fixture(scope="module")
def asked(built):
    """(name, problem) -> a program of (params, task): the loss, and what is predicted
    through the other door, adapt and predict. Compiled once for all tests of a row."""
    made = {}

    def get(name, problem):
        learner = built(name, problem)[0]
        if made.get("row") != (name, problem):

            def both(params, task):
                adapted = learner.adapt(params, task.support)
                outputs = learner.predict(adapted, task.query.x, task.query.mask)
                return learner.loss(params, task), outputs

            made.update(row=(name, problem), program=jax.jit(both))
        return made["program"]

    return get


# their outputs are a network's, whose classes are not made of the support set's examples
OPEN = {"mann", "snail", "in_context"}
MAKES_CLASSES = [
    n for n, e in learners.REGISTRY.items() if e.takes("ways") and n not in OPEN
]


@costly
def test_what_cannot_be_learnt_from_is_nan_under_jit(built, asked, name, problem):
    _, _, params, task, *_ = built(name, problem)
    loss = asked(name, problem)
    unlabelled = learners.REGISTRY[name].unlabelled
    sound = jm.Task(*(b._replace(mask=jnp.ones(len(b.x))) for b in task))
    (value, metrics), outputs = loss(params, sound)
    assert all(bool(jnp.isfinite(v)) for v in [value, *metrics.values()])
    assert not any(bool(jnp.isnan(a).any()) for a in jax.tree.leaves(outputs))
    for where in ("support", "query"):
        for what, batch in spoilt(
            getattr(task, where), problem == "classification"
        ).items():
            (value, metrics), outputs = loss(params, sound._replace(**{where: batch}))
            if what == "label -1" and where == "support" and unlabelled:
                assert bool(jnp.isfinite(value))  # an unlabelled example
                continue
            seen = {"value": value, **metrics}
            if where == "support" and seen.get("accuracy") == 0:
                del seen["accuracy"]  # a prediction of NaN is no right one
            assert all(bool(jnp.isnan(v)) for v in seen.values()), (where, what)
            if where == "support":  # the other door: adapt, then predict
                leaves = jax.tree.leaves(outputs)
                gone = [bool((jnp.isnan(a) | jnp.isneginf(a)).all()) for a in leaves]
                assert all(gone), what


@pytest.mark.parametrize("name", [row(n, core=n in CORE) for n in MAKES_CLASSES])
def test_a_class_without_examples_has_no_chance(built, asked, name):
    _, _, params, task, *_ = built(name, "classification")
    keep = (task.support.y != 2).astype(jnp.float32)
    query = task.query._replace(mask=(task.query.y != 2).astype(jnp.float32))
    support = task.support._replace(mask=keep)
    (value, _), outputs = asked(name, "classification")(params, jm.Task(support, query))
    assert np.isfinite(value)
    counted = np.asarray(outputs)[np.asarray(query.mask) > 0]
    assert np.isneginf(counted[:, 2]).all() and np.isfinite(counted[:, :2]).all()


@one_each
def test_bytes_are_images_through_every_door(built, name, problem):
    learner, _, params, task, *_ = built(name, problem)
    random = np.random.default_rng(0)
    as_bytes = lambda b: b._replace(
        x=random.integers(0, 256, b.x.shape).astype(np.uint8)
    )
    given = jm.Task(*map(as_bytes, task))
    scaled = jm.Task(*(b._replace(x=b.x.astype(np.float32) / 255) for b in given))
    value = learner.loss(params, given)[0]
    np.testing.assert_allclose(value, learner.loss(params, scaled)[0], 1e-5, 1e-7)
    batch = jax.tree.map(lambda a: np.asarray(a)[None], given)
    report = jm.evaluate_episodes(learner, params, batch)
    again = learner.loss(params, scaled)[1]["loss"]
    np.testing.assert_allclose(report.mean["loss"], again, rtol=1e-4)


@registered
def test_half_precision_is_learnt_from(built, name):
    """Traced only: what has no half precision says so while it is traced."""
    problem = learners.REGISTRY[name].learns[0]
    learner, _, params, task, *_ = built(name, problem)
    half = lambda tree: jax.tree.map(
        lambda a: (
            a.astype(jnp.bfloat16) if jnp.issubdtype(a.dtype, jnp.floating) else a
        ),
        tree,
    )
    gradient = jax.grad(lambda p, t: learner.loss(p, t)[0].astype(jnp.float32))
    found = jax.eval_shape(gradient, half(params), half(task))
    assert jax.tree.structure(found) == jax.tree.structure(params)
