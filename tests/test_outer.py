"""The outer loop on a network with batch norm; the contract suite has the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from problems import double, largest_difference, make, pad

import jaxmeta as jm
from jaxmeta import defaults
from jaxmeta.models import layers
from jaxmeta.task_axis import inputs_of


def init(key):
    kernel = 0.5 * jax.random.normal(key, (3, 3, 1, 4))
    norm = {"scale": jnp.ones(4), "offset": jnp.zeros(4)}
    return {"kernel": kernel, **norm, "head": jnp.eye(4)[:, :3]}


def apply(params, x, mask=None):
    block = [params[name] for name in ("kernel", "scale", "offset")]
    x = jnp.transpose(x, (1, 2, 0, 3))
    h = layers.conv_block(x, *block, mask, stride=2, pool=False)
    return jnp.mean(jnp.square(h), axis=(0, 1)) @ params["head"]


ONE_BLOCK = jm.Model(init, apply, uses_mask=True)  # of a Conv4


@pytest.fixture(scope="module")
def conv():
    learner = jm.maml(ONE_BLOCK, inner_lr=0.1)
    sampler = jm.tasks.episodes(jm.data.glyphs("test"), 3, 1, 2)
    tasks = jm.sample_tasks(sampler, jax.random.key(0), 4)
    return learner, init(jax.random.key(1)), tasks


@pytest.mark.slow
def test_vmap_chunks_and_sequence_agree_with_batch_norm(x64, conv):
    learner, params, tasks = conv
    params, tasks = double(params), double(tasks)
    whole, *others = (
        jax.jit(jm.meta_gradient(learner, size))(params, tasks) for size in (4, 2, 1)
    )
    for other in others:
        assert largest_difference(other[1], whole[1]) < 1e-10
        assert largest_difference(other[0], whole[0]) < 1e-10
    loss, metrics = jax.jit(jm.meta_loss(learner))(params, tasks)
    np.testing.assert_allclose(loss, whole[0][0], rtol=1e-12)
    assert metrics["diverged"] == 0


def test_masked_images_do_not_touch_batch_norm(conv):
    learner, params, tasks = conv
    task = jax.tree.map(lambda a: a[0], tasks)
    loss = jax.jit(learner.loss)
    padded = [
        loss(params, jm.Task(pad(task.support, 2, fill), pad(task.query, 2, fill)))[0]
        for fill in (0.0, 1.0, jnp.nan)
    ]
    assert padded[0] == padded[1] == padded[2]
    np.testing.assert_allclose(padded[0], loss(params, task)[0], rtol=1e-4)


def test_a_task_alone_gives_what_it_gives_in_a_batch(conv):
    """Batch norm takes no statistics over tasks."""
    learner, params, tasks = conv
    both = jax.jit(jax.vmap(learner.loss, (None, 0)))(params, tasks)[0]
    one = jax.jit(learner.loss)(params, jax.tree.map(lambda a: a[2], tasks))[0]
    np.testing.assert_allclose(both[2], one, rtol=1e-4)


def test_chunks_must_divide_the_tasks(conv):
    learner, params, tasks = conv
    with pytest.raises(ValueError, match="4 tasks can't be run 3 at once"):
        jm.meta_gradient(learner, 3)(params, tasks)


def test_default_runs_large_tasks_one_by_one_on_a_cpu(conv, monkeypatch):
    _, _, images = conv
    waves = jm.sample_tasks(jm.tasks.sinusoid(), jax.random.key(0), 25)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert defaults.tasks_at_once(25, inputs_of(waves)) == 25
    assert defaults.tasks_at_once(4, inputs_of(images)) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert defaults.tasks_at_once(4, inputs_of(images)) == 4


def test_task_keys_are_folded_in():
    """Task i of any batch can be drawn again from (key, i)."""
    sampler, key = jm.tasks.sinusoid(), jax.random.key(0)
    tasks = jm.sample_tasks(sampler, key, 5)
    alone = sampler.sample(jax.random.fold_in(key, 3))
    np.testing.assert_allclose(tasks.query.y[3], alone.query.y, rtol=1e-5)


def test_diverged_tasks_are_counted(conv):
    learner, params, tasks = conv
    x = tasks.query.x.at[1].set(jnp.inf)
    broken = tasks._replace(query=tasks.query._replace(x=x))
    _, metrics = jax.jit(jm.meta_loss(learner))(params, broken)
    assert metrics["diverged"] == 0.25


@pytest.mark.parametrize("size", [1, 2])
def test_a_chunk_that_diverged_is_left_out_of_the_means(size):
    """One task of six has a NaN: its chunk alone is lost, unless all tasks are in one."""
    learner = jm.maml(jm.models.mlp(hidden=(4,)), inner_lr=0.01, loss=jm.losses.mse)
    params = learner.init(jax.random.key(0))
    tasks = jm.sample_tasks(jm.tasks.sinusoid(), jax.random.key(1), 6)
    y = tasks.query.y.at[3].set(jnp.nan)
    broken = tasks._replace(query=tasks.query._replace(y=y))
    gradient = jax.jit(jm.meta_gradient(learner, size))
    (value, metrics), found = gradient(params, broken)
    kept = np.flatnonzero(np.arange(6) // size != 3 // size)
    rest = jax.tree.map(lambda a: a[kept], tasks)
    (wanted, _), slope = jax.jit(jm.meta_gradient(learner))(params, rest)
    np.testing.assert_allclose(value, wanted, rtol=1e-6)
    assert largest_difference(found, slope) < 1e-6
    assert metrics["loss"] == value and metrics["diverged"] == pytest.approx(size / 6)
    nothing = broken._replace(query=broken.query._replace(y=jnp.nan * y))
    (value, metrics), _ = gradient(params, nothing)
    assert np.isnan(value) and metrics["diverged"] == 1


def test_step_is_the_optimiser_on_the_meta_gradient(conv):
    learner, params, tasks = conv
    optimizer = optax.sgd(0.5)
    state = jm.MetaState(params, optimizer.init(params), jnp.zeros((), jnp.int32))
    (_, _), gradient = jax.jit(jm.meta_gradient(learner))(params, tasks)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
    state = jax.tree.map(jnp.copy, state)  # the step consumes what it is given
    state, metrics = jm.make_step(learner, optimizer)(state, tasks, jax.random.key(0))
    assert largest_difference(state.params, expected) < 1e-4
    assert set(metrics) == {"loss", "accuracy", "diverged", "skipped"}


@pytest.mark.parametrize("name", ["maml", "protonet"])
def test_a_second_meta_step_compiles_nothing(name, blobs):
    learner, sampler = make(name, "classification", blobs)
    optimizer = optax.adam(1e-3)
    state = jm.init_state(learner, optimizer, jax.random.key(0))
    step, tasks = (
        jm.make_step(learner, optimizer),
        jm.sample_tasks(sampler, jax.random.key(1), 2),
    )
    for i in range(3):
        state, _ = step(state, tasks, jax.random.key(i))
    assert step._cache_size() == 1 and int(state.step) == 3
