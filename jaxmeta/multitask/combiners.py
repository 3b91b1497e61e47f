"""Gradients of many tasks made one: what weight each task gets, so that no other suffers.

With the gradients of m tasks as the rows of J [tasks, parameters], all of these are

    g = J' w,   w a function of the Gramian G = J J' [tasks, tasks] alone,

so each is a pure function `(gramian, key=None) -> weights`, of which
`jm.task_gradients(learner, combine)` makes what `fit` descends. Any function of that form
is a combiner; numbers are bound by `functools.partial(cagrad, c=0.4)`.

- `mean`: w_i = 1/m, what `jm.meta_gradient` does.
- `pcgrad`: Yu et al. Gradient Surgery for Multi-Task Learning. NeurIPS 2020,
  arXiv 2001.06782.
- `mgda`: Sener, Koltun. Multi-Task Learning as Multi-Objective Optimization. NeurIPS 2018,
  arXiv 1810.04650.
- `cagrad`: Liu et al. Conflict-Averse Gradient Descent for Multi-task Learning. NeurIPS
  2021, arXiv 2110.14048.
- `imtl_g`: Liu et al. Towards Impartial Multi-task Learning. ICLR 2021.
- `nash_mtl`: Navon et al. Multi-Task Learning as a Bargaining Game. ICML 2022,
  arXiv 2202.01017.
- `aligned_mtl`: Senushkin et al. Independent Component Alignment for Multi-Task Learning.
  CVPR 2023, arXiv 2305.19000.
- `upgrad`: Quinton, Rey. Jacobian Descent for Multi-Objective Optimization. 2024,
  arXiv 2406.16232; `dualproj`: the projection of Lopez-Paz, Ranzato. Gradient Episodic
  Memory for Continual Learning. NeurIPS 2017, arXiv 1706.08840.

A gradient that is not finite makes a g that is not, and the meta-step is not taken. A task
whose gradient is zero gets a finite weight, and of nothing but zeros g is zero.
"""

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

from jaxmeta import checks
from jaxmeta.solvers.positive import minimum

NEWTON_STEPS = 60  # of `nash_mtl`


def mean(gramian: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Each task counts alike: w = 1/m.

    Args: gramian: J J' [tasks, tasks]; key: not used.
    Returns: weights [tasks]. Raises: ValueError for what is no square matrix.
    """
    _check(gramian, key)
    return jnp.full(len(gramian), 1 / len(gramian), gramian.dtype)


def pcgrad(gramian: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """PCGrad: each gradient loses what conflicts with the others, one after the other in a
    random order, then all are added (algorithm 1).

        g_i <- g_i - (g_i . g_j) / |g_j|^2 g_j   if g_i . g_j < 0,  for j in random order

    Args: gramian: J J' [tasks, tasks]; key: of the orders, one for each task.
    Returns: weights [tasks], of a sum: without conflicts they are 1.
    Raises: ValueError for what is no square matrix, or without a key.

    >>> import jax, jax.numpy as jnp
    >>> J = jnp.array([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]])
    >>> pcgrad(J @ J.T, jax.random.key(0)).round(4)
    Array([2.2222, 1.5789], dtype=float32)
    """
    _check(gramian, key)
    checks.check_key(key)
    tasks = jnp.arange(len(gramian))
    squares = _or_one(jnp.diag(gramian))

    def of_task(i, key):
        def project(w, j):
            product = jnp.where(j == i, 0, jnp.minimum(gramian[j] @ w, 0))
            return w.at[j].add(-product / squares[j]), None

        start = (tasks == i).astype(gramian.dtype)
        return jax.lax.scan(project, start, jax.random.permutation(key, tasks))[0]

    assert key is not None
    keys = jax.random.split(key, len(gramian))
    return jnp.sum(jax.vmap(of_task)(tasks, keys), axis=0)


def mgda(gramian: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """MGDA: the shortest vector among the weighted means of the gradients.

        argmin_w |J' w|^2,   w >= 0,  1'w = 1                                  (eq. 4)

    It conflicts with no gradient, and is 0 where no step helps all of the tasks.

    Args: gramian: J J' [tasks, tasks]; key: not used.
    Returns: weights [tasks], >= 0, that add up to 1.
    Raises: ValueError for what is no square matrix.
    """
    _check(gramian, key)
    scaled = gramian / _scale(gramian)
    length = lambda w: w @ scaled @ w / 2
    return minimum(length, mean(gramian), on_simplex=True)


def cagrad(
    gramian: jax.Array, key: jax.Array | None = None, *, c: float = 0.5
) -> jax.Array:
    """CAGrad: within a ball around the mean gradient g_0, what helps the task best that it
    helps least (algorithm 1).

        w* = argmin_w  g_w . g_0 + sqrt(phi) |g_w|,   w >= 0,  1'w = 1
        g  = g_0 + sqrt(phi) / |g_w*| g_w*,   sqrt(phi) = c |g_0|

    Args: gramian: J J' [tasks, tasks]; key: not used; c: radius of the ball in units of
        |g_0|, in [0, 1); 0 = `mean`.
    Returns: weights [tasks]; the authors divide them by 1 + c.
    Raises: ValueError for what is no square matrix, or a c out of range.
    """
    _check(gramian, key)
    checks.check_numbers(least=0, below=1, c=c)
    scaled, equal = gramian / _scale(gramian), mean(gramian)
    product, small = scaled @ equal, 1e-8
    norm = lambda w: jnp.sqrt(jnp.maximum(w @ scaled @ w, 0) + small)
    radius = c * norm(equal)
    w = minimum(lambda w: w @ product + radius * norm(w), equal, on_simplex=True)
    return equal + radius / norm(w) * w


def imtl_g(gramian: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """IMTL-G: what has equal projections onto all gradients (section 3.1).

        w ~ G^+ d,   1'w = 1,   d_i = |g_i|

    Args: gramian: J J' [tasks, tasks]; key: not used.
    Returns: weights [tasks], which may be negative; all 0 where no such sum is 1.
    Raises: ValueError for what is no square matrix.

    Departures: a pseudo-inverse takes the place of the inverse, for gradients that depend
    on each other (Quinton and Rey 2024, appendix).
    """
    _check(gramian, key)
    scaled = gramian / _scale(gramian)
    d = jnp.sqrt(jnp.diag(scaled))
    w = jnp.linalg.pinv(scaled, hermitian=True) @ d
    total, size = jnp.sum(w), jnp.sum(jnp.abs(w))
    there = jnp.abs(total) > 10 * jnp.finfo(w.dtype).eps * size
    return jnp.where(there, w / jnp.where(there, total, 1), 0 * w)


def nash_mtl(
    gramian: jax.Array, key: jax.Array | None = None, *, max_norm: float = 1.0
) -> jax.Array:
    """Nash-MTL: the bargaining solution, of which each task gains in proportion alike.

        G a = 1 / a,   a > 0                                                  (section 3)

    That is where 1/2 a'G a - sum_i log a_i is least; solved by damped Newton steps.

    Args: gramian: J J' [tasks, tasks]; key: not used; max_norm: |J' w| at most, > 0.
    Returns: weights [tasks], > 0.
    Raises: ValueError for what is no square matrix, or a max_norm that is not positive.

    Departures: the authors' code solves for `a` roughly, by a sequence of linearised
    problems, and may keep it over several meta-steps.
    """
    _check(gramian, key)
    checks.check_positive(max_norm=max_norm)
    d = jnp.sqrt(_or_one(jnp.diag(gramian)))
    cosines = gramian / (d[:, None] * d[None, :])
    none = jnp.diag(gramian) <= 0  # a gradient of zeros is apart from all others
    one = (none + 1e-6).astype(d.dtype)  # and opposite ones have no solution
    cosines = cosines + jnp.diag(one)

    def step(_, b):  # b = d o a
        slope, curvature = cosines @ b - 1 / b, cosines + jnp.diag(1 / b**2)
        change = -cho_solve(cho_factor(curvature), slope)
        decrement = jnp.sqrt(jnp.maximum(-slope @ change, 0))
        return b + change / jnp.where(decrement > 0.25, 1 + decrement, 1)

    a = jax.lax.fori_loop(0, NEWTON_STEPS, step, jnp.ones_like(d)) / d
    norm = jnp.sqrt(jnp.maximum(a @ gramian @ a, 0))
    return a * jnp.where(norm > max_norm, max_norm / norm, 1)


def aligned_mtl(gramian: jax.Array, key: jax.Array | None = None) -> jax.Array:
    """Aligned-MTL: gradients turned until they are at right angles and of one length, that
    of the shortest principal component, then their mean (algorithm 1).

        w = sqrt(lambda_min) V Lambda^-1/2 V' 1/m,   G = V Lambda V'

    Args: gramian: J J' [tasks, tasks]; key: not used.
    Returns: weights [tasks]. Raises: ValueError for what is no square matrix.
    """
    _check(gramian, key)
    values, vectors = jnp.linalg.eigh(gramian)
    noise = jnp.max(values) * len(values) * jnp.finfo(values.dtype).eps
    there = values > noise  # directions that there are
    least = jnp.min(jnp.where(there, values, jnp.inf))
    ratio = jnp.where(there, least / jnp.where(there, values, 1), 0)
    return vectors @ (jnp.sqrt(ratio) * (vectors.T @ mean(gramian)))


def upgrad(
    gramian: jax.Array, key: jax.Array | None = None, *, regularization: float = 1e-4
) -> jax.Array:
    """UPGrad: each gradient is moved as little as it takes to conflict with none, then
    they are averaged.

        g = 1/m sum_i pi(g_i),   pi(g) = argmin |p - g|,   J p >= 0           (eq. 3)

    Args: gramian: J J' [tasks, tasks]; key: not used; regularization: >= 0, added to the
        diagonal in units of the trace; how much conflict it may leave.
    Returns: weights [tasks], >= 0.
    Raises: ValueError for what is no square matrix, or a negative number.
    """
    _check(gramian, key)
    each = jnp.diag(mean(gramian))
    return jnp.sum(jax.vmap(_projection(gramian, regularization))(each), axis=0)


def dualproj(
    gramian: jax.Array, key: jax.Array | None = None, *, regularization: float = 1e-4
) -> jax.Array:
    """DualProj: the mean gradient, moved as little as it takes to conflict with none of
    the gradients (GEM's projection, eq. 11).

    Args: gramian: J J' [tasks, tasks]; key: not used; regularization: as in `upgrad`.
    Returns: weights [tasks], >= 0.
    Raises: ValueError for what is no square matrix, or a negative number.
    """
    _check(gramian, key)
    return _projection(gramian, regularization)(mean(gramian))


def _projection(gramian: jax.Array, regularization: float):
    """u -> v with J'v = pi(J'u): argmin_v v'G v over v >= u (Quinton and Rey, prop. 1)."""
    checks.check_numbers(least=0, regularization=regularization)
    m = len(gramian)
    scaled = gramian / _scale(gramian)
    scaled = scaled + regularization * m * jnp.eye(m, dtype=gramian.dtype)
    d = jnp.sqrt(_or_one(jnp.diag(scaled)))
    cosines = scaled / (d[:, None] * d[None, :])  # gradients may be of all orders

    def project(u):
        length = lambda above: (d * u + above) @ cosines @ (d * u + above) / 2
        return u + minimum(length, jnp.ones_like(u)) / d

    return project


def _scale(gramian: jax.Array) -> jax.Array:
    """The mean square of a gradient's norm; 1 if all are zero."""
    return _or_one(jnp.mean(jnp.diag(gramian)))


def _or_one(values: jax.Array) -> jax.Array:
    return jnp.where(values == 0, 1, values)


def _check(gramian, key) -> None:
    """Raise ValueError unless it is a square matrix of floating numbers, and for what is
    no key."""
    if key is not None:
        checks.check_key(key)
    shape = getattr(gramian, "shape", ())
    square = len(shape) == 2 and shape[0] == shape[1] and shape[0] > 0
    if not square or not checks.is_floating(gramian):
        raise ValueError(
            "gramian: expected floating numbers [tasks, tasks], the inner products J @ J.T "
            f"of the tasks' gradients, got {checks.said(gramian)}"
        )
