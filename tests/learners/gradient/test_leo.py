"""LEO: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from linear_task import close
from problems import double, one_task

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_leo_is_its_equations(blobs):
    """Means without a key; pairs, classes and steps as loops.

    As in the authors' code each of the 2 shots of a class has a code and a classifier of
    its own, the classifier of a class is their mean, and losses are summed.
    """
    task = one_task(jm.tasks.episodes(blobs, 3, 2, 4), jax.random.key(0))
    task = double(task)
    identity = jm.Model(lambda key: (), lambda p, x: x)
    learner = jm.leo(
        identity, ways=3, features=6, latent=5, inner_lr=0.3, tuning_lr=0.2,
        inner_steps=2, tuning_steps=2,
    )  # fmt: skip
    params = learner.init(jax.random.key(1))
    x, y = (np.asarray(a, float if a.ndim == 2 else int) for a in task.support[:2])
    encoder, decoder = (np.asarray(a, float) for a in (params.encoder, params.decoder))
    relation = [np.asarray(a, float) for a in params.relation]

    def related(a, b):
        out = np.concatenate([a, b])
        for layer in relation[:-1]:
            out = np.maximum(out @ layer, 0)
        return out @ relation[-1]

    codes = x @ encoder
    z = np.array(
        [
            np.mean([related(a, b) for a in codes[y == n] for b in codes], axis=0)[:5]
            for n in range(3)
        ]
    )

    def classifier_slopes(each):  # [6, 6], of the sum of the losses of 6 examples
        w = np.stack([each[y == n].mean(axis=0) for n in range(3)])
        p = np.exp(x @ w.T) / np.exp(x @ w.T).sum(1, keepdims=True)
        return ((p - np.eye(3)[y]).T @ x / 2)[y]

    each = z[y]
    for _ in range(2):
        each = each - 0.3 * classifier_slopes(each @ decoder[:, :6]) @ decoder[:, :6].T
    each = each @ decoder[:, :6]
    for _ in range(2):
        each = each - 0.2 * classifier_slopes(each)
    w = np.stack([each[y == n].mean(axis=0) for n in range(3)])
    np.testing.assert_allclose(
        jax.jit(learner.adapt)(params, task.support).w, w, rtol=1e-4, atol=1e-6
    )
    # with a key it samples
    sample = jax.jit(learner.adapt)
    a, b = (
        np.asarray(sample(params, task.support, jax.random.key(k)).w) for k in (0, 1)
    )
    assert np.abs(a - b).max() > 1e-3
    with pytest.raises(ValueError, match=r"give the learner features=6"):
        jm.leo(identity, ways=3, features=7).adapt(params, task.support)


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, jax.random.key(2)])
def test_a_class_without_examples_is_no_part_of_leo(blobs, key):
    """Three classes of four have examples: as if there were three, probability 0."""
    task = one_task(jm.tasks.episodes(blobs, 3, 2, 4), jax.random.key(0))
    make = lambda ways: jm.leo(jm.models.mlp(6, 8, (16,)), ways=ways, features=8)
    params = make(3).init(jax.random.key(1))

    def outputs(learner):
        found = lambda p: learner.predict(learner.adapt(p, task.support), task.query.x)
        return np.asarray(jax.jit(found)(params))

    three, four = outputs(make(3)), outputs(make(4))
    assert np.isneginf(four[:, 3]).all()
    np.testing.assert_allclose(four[:, :3], three, rtol=1e-6)
    # and so in training, its derivative and its noise included
    loss = lambda p: make(4).loss(p, task, key)[0]
    value, slopes = jax.jit(jax.value_and_grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, slopes)))
    if key is None:
        theirs = jax.jit(jax.grad(lambda p: make(3).loss(p, task)[0]))(params)
        jax.tree.map(lambda a, b: close(a, b), slopes, theirs)


def test_leo_learns_a_rate_for_each_dimension(blobs):
    """Twice the rate of one dimension: twice its first step, and no other's."""
    task = one_task(jm.tasks.episodes(blobs, 3, 2, 4), jax.random.key(0))
    learner = jm.leo(
        jm.models.mlp(6, 8, (16,)), ways=3, features=8, inner_steps=0, tuning_steps=1
    )
    params = learner.init(jax.random.key(1))
    assert params.log_alpha.shape == (64,) and params.log_gamma.shape == (8,)
    adapt = jax.jit(lambda given: learner.adapt(given, task.support).w)
    w = lambda log_gamma: np.asarray(adapt(params._replace(log_gamma=log_gamma)))
    log_gamma, third = np.asarray(params.log_gamma), np.arange(8) == 3
    start = w(np.full_like(log_gamma, -np.inf))
    step = w(log_gamma) - start
    twice = w(np.where(third, log_gamma + np.log(2), log_gamma)) - start
    np.testing.assert_allclose(twice, step * np.where(third, 2, 1), rtol=1e-4)
