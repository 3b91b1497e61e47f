"""In-context learning: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import TASK, WAYS, close, curve, start

import jaxmeta as jm
from jaxmeta.learners.gaussian import Gaussian

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize("name", ["tnpd", "in_context", "in_context_classes"])
def test_transformers_read_sets(name):
    """The support's order does not matter, and queries do not see each other."""
    small = {"width": 8, "layers": 2, "heads": 2, "hidden": 8}
    learner, task = {
        "tnpd": (jm.tnpd(**small), curve()),
        "in_context": (jm.in_context(ways=None, x_dims=1, **small), curve()),
        "in_context_classes": (jm.in_context(ways=WAYS, x_dims=4, **small), TASK),
    }[name]
    params = start(learner)
    first = lambda out: out.mean if isinstance(out, Gaussian) else out
    compiled = jax.jit(lambda s, x: first(learner.predict(learner.adapt(params, s), x)))
    predict = lambda s, x: np.asarray(compiled(s, x))
    task = jax.device_get(task)
    plain = predict(task.support, task.query.x)
    turned = jax.tree.map(lambda a: a[::-1], task.support)
    close(predict(turned, task.query.x), plain)
    for i in (0, 3):
        close(predict(task.support, task.query.x[i : i + 1])[0], plain[i])
    x = task.support.x.copy()
    x[0] += 1
    other = task.support._replace(x=x)
    assert np.abs(predict(other, task.query.x) - plain).max() > 1e-6


@pytest.mark.slow
def test_in_context_learning_nears_the_best_rule():
    """Labels are the sign of one column: trained on that, it reads new tables."""
    import optax

    sampler = jm.tasks.tables(
        columns=2, ways=2, shots=20, queries=10, hidden=1, noise=0.0
    )
    learner = jm.in_context(ways=2, x_dims=2, width=16, layers=2, heads=2, hidden=32)
    state = jm.fit(
        learner, sampler, optax.adam(3e-3), steps=400, key=jax.random.key(0),
        tasks_per_step=12, chunk=200,
    )  # fmt: skip
    report = jm.evaluate(
        learner, state.params, sampler, num_tasks=300, key=jax.random.key(1)
    )
    neighbour = jm.evaluate(
        jm.nearest_neighbour(2),
        (),
        sampler,
        num_tasks=300,
        key=jax.random.key(1),
    )
    ours, theirs = (r.per_task["accuracy"] for r in (report, neighbour))
    assert ours.mean() > 0.9 and ours.mean() > theirs.mean()  # on the same tables
