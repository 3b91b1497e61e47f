"""Batches, masks and the checks of bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta import checks, learners, losses
from jaxmeta.batches import blank_padding

OLD_KEY = "typed key from jax.random.key"
TASKS = jm.Task(*[jm.Batch(np.zeros((2, 1, 1)), np.zeros((2, 1, 1)))] * 2)


def batch(x, y, mask=None):
    return jm.Batch(jnp.asarray(x), jnp.asarray(y), mask)


def test_blank_padding_removes_what_the_mask_hides():
    got = blank_padding(batch([[1.0], [np.nan]], [3, 99], jnp.array([1, 0])))
    assert got.x.tolist() == [[1.0], [1.0]]  # a copy of an example that counts
    assert got.y.tolist() == [3, 3]
    none = blank_padding(batch([[np.nan]], [99], jnp.array([0])))
    assert none.x.tolist() == [[0.0]] and none.y.tolist() == [0]


WAVES = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
SGD = optax.sgd(1.0)


@pytest.mark.parametrize(
    "call",
    [
        lambda key: jm.init_state(jm.maml(jm.models.mlp()), None, key),
        lambda key: jm.sample_tasks(jm.tasks.sinusoid(), key, 2),
        lambda key: jm.evaluate(None, None, jm.tasks.sinusoid(), key=key),
        lambda key: jm.fit(WAVES, jm.tasks.sinusoid(), SGD, steps=1, key=key),
        lambda key: jm.meta_loss(WAVES)(None, TASKS, key),
        lambda key: jm.meta_gradient(WAVES)(None, TASKS, key),
    ],
)
def test_a_key_of_the_old_type_is_refused(call):
    with pytest.raises(ValueError, match=OLD_KEY):
        call(jax.random.PRNGKey(0))
    with pytest.raises(ValueError, match=OLD_KEY):
        call(0)


def test_an_array_of_keys_is_refused():
    with pytest.raises(ValueError, match="expected one key"):
        checks.check_key(jax.random.split(jax.random.key(0)))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (batch(np.zeros((3, 1)), np.zeros((2, 1))), "x has 3 examples, y has 2"),
        (batch(np.zeros((2, 1)), [0, 1], jnp.ones(3)), r"mask has shape \(3,\)"),
        (batch(np.zeros((0, 1)), []), "support set is empty"),
        (batch(1.0, 2.0), r"leading \[examples\] axis"),
    ],
)
def test_batches_that_do_not_fit_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        checks.check_batch(wrong)


def test_labels_must_be_integers():
    with pytest.raises(ValueError, match="expected integers"):
        checks.check_labels(batch(np.zeros((2, 1)), [0.0, 1.0]), 2)
    # what the mask hides is not looked at, nor what is traced
    checks.check_labels(batch(np.zeros((2, 1)), [0, 9], jnp.array([1, 0])), 2)
    jax.jit(lambda y: checks.check_labels(batch(np.zeros((2, 1)), y), 2))(
        jnp.arange(8, 10)
    )


def test_nan_inputs_are_found_in_a_task():
    good = batch(np.zeros((2, 1)), [0, 1])
    bad = batch([[0.0], [np.nan]], [0, 1])
    with pytest.raises(ValueError, match="query inputs: 1 values are NaN"):
        checks.check_task(jm.Task(good, bad))
    hidden = bad._replace(mask=jnp.array([1, 0]))
    checks.check_task(jm.Task(good, hidden), ways=2)


def test_unknown_learner_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown learner 'mamll'.*did you mean 'maml'"
    ):
        learners.get("mamll")


def test_losses():
    logits, labels = jnp.array([[0.0, 1.0], [2.0, 0.0]]), jnp.array([1, 1])
    expected = [np.log(1 + np.exp(-1)), np.log(1 + np.exp(2))]
    np.testing.assert_allclose(
        losses.cross_entropy(logits, labels), expected, rtol=1e-6
    )
    assert jnp.isnan(losses.cross_entropy(logits, jnp.array([1, 2]))).tolist() == [
        False,
        True,
    ]
    with pytest.raises(
        ValueError, match=r"outputs have shape \(3,\), targets \(3, 1\)"
    ):
        losses.mse(jnp.zeros(3), jnp.zeros((3, 1)))
    assert losses.mean(jnp.array([[1.0, 3.0], [9.0, 9.0]]), jnp.array([1, 0])) == 2
    with pytest.raises(ValueError, match="one value an example"):
        losses.mean(jnp.array(1.0), jnp.array([1, 0]))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda m: jm.maml(m, inner_lr=-1), "inner_lr: expected a number >= 0"),
        (lambda m: jm.maml(m, inner_steps=-1), "inner_steps: expected a whole number"),
        (lambda m: jm.anil(m, head="top"), "no layer 'top'.*dense1, dense2, head"),
        (lambda m: jm.protonet(m, ways=1), "ways: expected a whole number >= 2, got 1"),
        (lambda m: jm.r2d2(m, penalty=0), "penalty: expected a number > 0"),
        (lambda m: jm.cnp(m, m, min_std=2), r"min_std: expected a number in \[0, 1\)"),
        (
            lambda m: jm.maml(m, adjoint=jm.Reverse(unroll=0)),
            "unroll: expected a whole number >= 1",
        ),
        (
            lambda m: jm.meta_gradient(jm.maml(m), 0),
            "tasks_at_once: expected a whole number >= 1",
        ),
    ],
)
def test_wrong_constructions_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(jm.models.mlp())
