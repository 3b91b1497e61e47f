"""Noise in training: a key of its own for every pass, and none elsewhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flavours import FEATURES, WAYS, examples, given, key, made, normal, same, trained
from problems import double, pad

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


PASSES = {  # learner, passes of a task's training objective that must differ
    "maml": (partial(jm.maml, inner_steps=3), 3 + 1),
    "anil": (partial(jm.anil, inner_steps=3), 1 + 1),
    "reptile": (partial(jm.reptile, inner_steps=2, inner_batch=3), 2 + 1),
    "maml_plus_plus": (partial(jm.maml_plus_plus, inner_steps=2), 2 + 2),
    "bmaml": (partial(jm.bmaml, particles=2, inner_steps=2), 2 + 1 + 1),
    "bootstrapped": (partial(jm.bootstrapped, inner_steps=2, target_steps=2), 2 + 2 + 1),
    "leo": (partial(jm.leo, ways=WAYS, features=WAYS, latent=4), 1 + 1),
    "protonet": (partial(jm.protonet, ways=WAYS), 1 + 1),
    "transductive_finetuning": (
        partial(jm.transductive_finetuning, classes=WAYS, ways=WAYS, features=WAYS), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_of_a_task_has_its_own_noise(name):
    """As many keys as passes and tasks, and none without training."""
    make, passes = PASSES[name]
    seen = set()

    def noisy(params, x, mask, key, step):
        note = lambda data, step: seen.add((*data.tolist(), int(step)))
        jax.debug.callback(note, jax.random.key_data(key), step)
        return x[:, :WAYS] * params["head"]["w"][None]

    model = jm.Model(
        lambda key: {"head": {"w": jnp.ones(WAYS)}},
        lambda params, x, mask: x[:, :WAYS] * params["head"]["w"][None],
        uses_mask=True,
        noisy=noisy,
    )
    learner = jm.with_noise(make, model)
    params, task = double(learner.init(key(0))), jm.Task(examples(1), examples(2))
    jax.block_until_ready(jax.jit(learner.loss)(params, task, key(1)))
    jax.effects_barrier()
    assert not seen
    keys = jax.random.split(key(2), 2)
    train = jax.vmap(lambda key: learner.objective(params, task, key, 7)[0])
    jax.block_until_ready(jax.jit(train)(keys))
    jax.effects_barrier()
    assert len(seen) == 2 * passes and {s[-1] for s in seen} == {7}


def test_noise_passes_the_meta_gradient():
    """MixedMode is Reverse, with dropout in each step, in a padded task too."""
    gradients = []
    task = jm.Task(pad(examples(1), 2, jnp.nan), examples(2))
    tasks = jax.tree.map(lambda a: jnp.stack([a, a]), task)
    for adjoint in (jm.MixedMode(), jm.Reverse()):
        make = partial(jm.maml, inner_steps=3, adjoint=adjoint)
        learner = jm.with_noise(make, given("linen", statistics="batch"))
        gradient = jax.jit(jm.meta_gradient(learner, 2))
        params = jax.tree.map(jnp.asarray, trained()[0])
        gradients.append(gradient(params, tasks, key(3), 0)[1])
    same(*map(jax.device_get, gradients))


def test_noise_has_no_implicit_gradient_and_no_place_in_processes():
    model, task = given("linen"), jm.Task(examples(1), examples(2))
    implicit = partial(jm.imaml, inner_steps=2)
    process = lambda m: jm.cnp(m, jm.models.mlp(8, 2))
    values = jm.Task(*(b._replace(y=normal(3, 6, 1)) for b in task))
    for make, given_task, sentence in (
        (implicit, task, "Implicit.* differentiates the solution of one objective"),
        (process, values, "computes with the inputs themselves"),
    ):
        learner = jm.with_noise(make, model)
        params = learner.init(key(0))
        with pytest.raises(ValueError, match=sentence):
            learner.objective(params, given_task, key(1), 0)


def test_what_a_learner_settles_passes_the_wrappers():
    """SimpleShot's mean of the training set, with noise and support statistics."""
    make = partial(jm.simpleshot, classes=6, ways=WAYS, features=WAYS)
    support = partial(jm.with_support_statistics, make)
    learner = jm.with_noise(support, made("linen"))
    random = np.random.default_rng(0)
    data = jm.data.from_arrays(random.normal(size=(12, FEATURES)), np.arange(12) % 6)
    classes = jm.tasks.classes(data, batch=6)
    state = jm.fit(learner, classes, optax.sgd(0.1), steps=1, key=key(0), chunk=1)
    assert jnp.abs(state.params.m).min() > 0
