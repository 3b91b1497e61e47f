"""A task of a few points, and what the tests of encoders and heads do with it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from problems import double
from scipy.optimize import linprog
from sklearn.svm import LinearSVC

import jaxmeta as jm

WAYS = 3

IDENTITY = jm.models.from_functions(lambda key: (), lambda params, x: x)


def close(a, b, tolerance=1e-10):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=1e-10)


def points(seed=0, shots=2, queries=4, features=4):
    """A task of points around 3 centres: x [n, features] in float64."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(WAYS, features))

    def batch(each):
        y = np.repeat(np.arange(WAYS), each)
        return jm.Batch(
            jnp.asarray(centres[y] + 0.5 * random.normal(size=(len(y), features))),
            jnp.asarray(y),
        )

    return jm.Task(batch(shots), batch(queries))


def unit(a):
    return a / np.linalg.norm(a, axis=-1, keepdims=True)


def means(task):
    x, y = map(np.asarray, task.support[:2])
    return np.stack([x[y == k].mean(axis=0) for k in range(WAYS)])


def outputs(learner, params, task, key=None):
    @jax.jit
    def found(params, task, key):
        return learner.predict(learner.adapt(params, task.support, key), task.query.x)

    return found(params, task, key)


def loss(learner, params, task, key=None):
    """What it reports, by one program."""
    return jax.jit(lambda *given: learner.loss(*given)[0])(params, task, key)


def objective(learner, params, task, key=None):
    """(value, metrics) of what it trains on, by one program."""
    return jax.jit(lambda *given: learner.objective(*given, 0))(params, task, key)


def start(learner, seed=0):
    """First parameters, in float64."""
    return double(learner.init(jax.random.key(seed)))


def distances(a, b):
    return np.square(np.asarray(a)[:, None] - np.asarray(b)[None]).sum(axis=-1)


with jax.enable_x64(True):
    TASK = points()


def transport(cost, rows, columns):
    """The linear program, by scipy."""
    n, m = cost.shape
    sums = np.zeros((n + m, n * m))
    for i in range(n):
        sums[i, i * m : (i + 1) * m] = 1
    for j in range(m):
        sums[n + j, j::m] = 1
    solved = linprog(cost.ravel(), A_eq=sums, b_eq=np.concatenate([rows, columns]))
    return solved.x.reshape(n, m)


X, Y = (np.asarray(a) for a in TASK.support[:2])

Q = np.asarray(TASK.query.x)


def crammer_singer(x, y, penalty):
    """scikit-learn's solution of the primal: [ways, features]."""
    machine = LinearSVC(
        multi_class="crammer_singer",
        fit_intercept=False,
        C=penalty,
        tol=1e-10,
        max_iter=1_000_000,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return machine.fit(x, y).coef_


def curve(seed=0, n=5, m=7):
    """A regression task in one dimension."""
    random = np.random.default_rng(seed)
    batch = lambda k: jm.Batch(*(jnp.asarray(random.normal(size=(k, 1))) for _ in "xy"))
    return jm.Task(batch(n), batch(m))
