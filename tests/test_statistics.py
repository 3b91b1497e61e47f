"""Whose statistics normalise: the support set's, or those of a fixed batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flavours import (
    FEATURES,
    WAYS,
    by_hand,
    close,
    examples,
    hidden,
    key,
    made,
    moments,
    normal,
    same,
)
from problems import double, pad

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def images(seed, n=6):
    return normal(seed, n, 16, 16, 1)


SMALL = {"input_shape": (16, 16, 1), "widths": (2, 2, 2, 2)}
NETWORKS = {  # with the inputs that it takes, by a seed
    "conv4": (lambda: jm.models.conv4(WAYS, **SMALL), images),
    "resnet12": (lambda: jm.models.resnet12(WAYS, **SMALL), images),
    "linen": (lambda: made("linen"), lambda seed: normal(seed, 6, FEATURES)),
    "nnx": (lambda: made("nnx"), lambda seed: normal(seed, 6, FEATURES)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_one_query_at_a_time_is_a_batch_of_queries(name):
    make, inputs = NETWORKS[name]
    model = make()
    learner = jm.with_support_statistics(lambda m: jm.protonet(m, ways=WAYS), model)
    plain = jm.protonet(model, ways=WAYS)
    params = double(learner.init(key(0)))
    support, x = jm.Batch(inputs(1), np.arange(6) % WAYS), inputs(2)

    @jax.jit
    def found(params):
        adapted = learner.adapt(params, support)
        alone = jax.vmap(lambda x: learner.predict(adapted, x[None])[0])(x)
        together = learner.predict(adapted, x), plain.predict(adapted.adapted, x)
        return adapted.adapted, plain.adapt(params, support), alone, *together

    ours, theirs, alone, together, transductive = jax.device_get(found(params))
    same(ours, theirs)  # by its own statistics
    close(alone, together)
    assert np.abs(transductive - together).max() > 1e-2

    fixed = jax.jit(jm.models.normalised_by(model, support.x).apply)
    close(fixed(params, x[2:3]), fixed(params, x)[2:3])
    close(fixed(params, support.x), jax.jit(model.apply)(params, support.x))


def maml_by_hand(params, task, reference=None):
    """Query loss after two steps; statistics of the support set or the reference."""

    def loss(params, x, y, seen):
        statistics = moments(hidden(params, seen))
        log_p = jax.nn.log_softmax(by_hand(params, x, None, statistics), axis=1)
        return -jnp.mean(jnp.take_along_axis(log_p, y[:, None], axis=1))

    seen = task.support.x if reference is None else reference
    for _ in range(2):
        gradient = jax.grad(loss)(params, task.support.x, task.support.y, seen)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient)
    return loss(params, task.query.x, task.query.y, seen)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flavour", "whose"), [("linen", "support"), ("nnx", "reference")]
)
def test_statistics_pass_the_meta_gradient(flavour, whose):
    """Two inner steps, several tasks at once, under jit, against plain autodiff."""
    tasks = [jm.Task(examples(i), examples(i + 10)) for i in range(2)]
    batch = jax.tree.map(lambda *a: np.stack(a), *tasks)
    make = partial(jm.maml, inner_lr=0.1, inner_steps=2)
    if whose == "support":
        reference, learner = None, jm.with_support_statistics(make, made(flavour))
    else:
        reference = normal(30, 5, FEATURES)
        learner = make(jm.models.normalised_by(made(flavour), reference))
    params = double(learner.init(key(0)))
    (_, _), found = jax.jit(jm.meta_gradient(learner, 2))(params, batch)
    mean = lambda p: sum(maml_by_hand(p, task, reference) for task in tasks) / 2
    same(found, jax.jit(jax.grad(mean))(params))


OF_EVERY_KIND = {
    "maml": partial(jm.maml, inner_steps=2, inner_lr=0.1),
    "protonet": partial(jm.protonet, ways=WAYS),
    "leo": partial(jm.leo, ways=WAYS, features=WAYS, latent=4),
    "siamese": partial(jm.siamese, ways=WAYS, features=WAYS),
    "mann": partial(
        jm.mann, ways=WAYS, features=WAYS, hidden=4, slots=8, size=3, reads=1
    ),
}


@pytest.mark.parametrize("name", OF_EVERY_KIND)
def test_with_support_statistics_no_query_sees_another(name):
    """The loss of a query set is the mean of the losses of its queries; padding in the
    support set changes nothing."""
    model = jm.Model(lambda k: made("linen").init(k), by_hand, uses_mask=True)
    learner = jm.with_support_statistics(OF_EVERY_KIND[name], model)
    params = double(learner.init(key(0)))
    task = jm.Task(examples(1), examples(2))
    padded = task._replace(support=pad(task.support, 2, np.nan))

    @jax.jit
    def found(task, padded):
        loss = lambda task: learner.loss(params, task)[0]
        one = lambda x, y: loss(task._replace(query=jm.Batch(x[None], y[None])))
        return loss(task), jnp.mean(jax.vmap(one)(*task.query[:2])), loss(padded)

    whole, of_each, of_padded = found(task, padded)
    close(of_each, whole)
    close(of_padded, whole)


def test_statistics_need_a_model_that_leaves_examples_out():
    model = jm.Model(lambda k: (), lambda params, x: x)
    for make in (
        lambda: jm.models.normalised_by(model, jnp.ones((3, 2))),
        lambda: jm.with_support_statistics(jm.protonet, model),
    ):
        with pytest.raises(ValueError, match="the model takes no mask"):
            make()
