"""Whose statistics normalise: the support set's, or those of a fixed batch."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from flavours import (
    FEATURES,
    FLAVOURS,
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
    support, x = jm.Batch(inputs(1), jnp.arange(6) % WAYS), inputs(2)
    adapted = learner.adapt(params, support)
    same(adapted.adapted, plain.adapt(params, support))  # by its own statistics
    together = learner.predict(adapted, x)
    alone = jax.jit(jax.vmap(lambda x: learner.predict(adapted, x[None])[0]))(x)
    close(alone, together)
    assert jnp.abs(plain.predict(adapted.adapted, x) - together).max() > 1e-2

    fixed = jax.jit(jm.models.normalised_by(model, support.x).apply)
    close(fixed(params, x[2:3]), fixed(params, x)[2:3])
    close(fixed(params, support.x), jax.jit(model.apply)(params, support.x))


def maml_by_hand(params, task, reference=None):
    """Query loss after three steps; statistics of the support set or the reference."""

    def loss(params, x, y, seen):
        statistics = moments(hidden(params, seen))
        log_p = jax.nn.log_softmax(by_hand(params, x, None, statistics), axis=1)
        return -jnp.mean(jnp.take_along_axis(log_p, y[:, None], axis=1))

    seen = task.support.x if reference is None else reference
    for _ in range(3):
        gradient = jax.grad(loss)(params, task.support.x, task.support.y, seen)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient)
    return loss(params, task.query.x, task.query.y, seen)


@pytest.mark.slow
@pytest.mark.parametrize("whose", ["support", "reference"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_statistics_pass_the_meta_gradient(flavour, whose):
    """Three inner steps, several tasks at once, under jit, against plain autodiff."""
    tasks = [jm.Task(examples(i), examples(i + 10)) for i in range(2)]
    batch = jax.tree.map(lambda *a: jnp.stack(a), *tasks)
    make = partial(jm.maml, inner_lr=0.1, inner_steps=3)
    if whose == "support":
        reference, learner = None, jm.with_support_statistics(make, made(flavour))
    else:
        reference = normal(30, 5, FEATURES)
        learner = make(jm.models.normalised_by(made(flavour), reference))
    params = double(learner.init(key(0)))
    (_, _), found = jax.jit(jm.meta_gradient(learner, 2))(params, batch)
    mean = lambda p: sum(maml_by_hand(p, task, reference) for task in tasks) / 2
    same(found, jax.grad(mean)(params))


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
    params, task = double(learner.init(key(0))), jm.Task(examples(1), examples(2))
    loss = jax.jit(lambda task: learner.loss(params, task)[0])
    one = lambda x, y: loss(task._replace(query=jm.Batch(x[None], y[None])))
    close(jnp.mean(jax.vmap(one)(*task.query[:2])), loss(task))
    close(loss(task._replace(support=pad(task.support, 2, jnp.nan))), loss(task))


def test_statistics_need_a_model_that_leaves_examples_out():
    model = jm.Model(lambda k: (), lambda params, x: x)
    for make in (
        lambda: jm.models.normalised_by(model, jnp.ones((3, 2))),
        lambda: jm.with_support_statistics(jm.protonet, model),
    ):
        with pytest.raises(ValueError, match="the model takes no mask"):
            make()
