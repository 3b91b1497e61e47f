"""TIM: numbers that our code did not produce."""

import jax
import numpy as np
import pytest
from few_points import IDENTITY, TASK, WAYS, close, distances, outputs, unit
from scipy.special import log_softmax

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


def test_tim_descends_its_objective():
    import optax

    make = lambda steps: jm.tim(
        IDENTITY, classes=4, ways=WAYS, features=4, inner_steps=steps, inner_lr=0.1,
        rule=optax.sgd,
    )  # fmt: skip
    params = make(0).init(jax.random.key(0))
    z, q = unit(np.asarray(TASK.support.x)), unit(np.asarray(TASK.query.x))
    y = np.asarray(TASK.support.y)
    start = np.stack([z[y == k].mean(axis=0) for k in range(WAYS)])

    def objective(w):  # eq. 3
        see = lambda a: log_softmax(-7.5 * distances(a, w), axis=1)
        fit, log_p = -see(z)[np.arange(len(y)), y].mean(), see(q)
        p = np.exp(log_p)
        marginal = p.mean(axis=0)
        spread = -(marginal * np.log(marginal)).sum()
        return 0.1 * fit - spread - 0.1 * (p * log_p).sum(axis=1).mean()

    slope = np.zeros_like(start)
    for i in np.ndindex(*start.shape):
        e = np.zeros_like(start)
        e[i] = 1e-6
        slope[i] = (objective(start + e) - objective(start - e)) / 2e-6
    expected = -7.5 * distances(q, start - 0.1 * slope)
    close(outputs(make(0), params, TASK), -7.5 * distances(q, start))
    close(outputs(make(1), params, TASK), expected, 1e-6)
