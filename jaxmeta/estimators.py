"""Estimators of the whole meta-gradient from values of the outer loss alone.

For inner loops that are too long, too wild or not smooth enough to differentiate
through: evolution strategies (ES), and for long unrolls in truncated pieces persistent
evolution strategies (PES).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxmeta import checks, meshes
from jaxmeta.outer import MetaState, descended, meta_loss
from jaxmeta.types import MetaLearner, Outer, Task

PyTree = Any


def es_gradient(
    learner: MetaLearner, *, sigma: float = 0.01, pairs: int = 16
) -> Callable:
    """Antithetic evolution strategies: the gradient of the loss smoothed by a Gaussian.

        g = 1/pairs sum_i [L(theta + sigma e_i) - L(theta - sigma e_i)] / (2 sigma) e_i

    Unbiased for the smoothed loss; for a quadratic loss also for the loss itself. Its
    variance grows with the number of parameters.

    Args:
        learner: whose outer objective to estimate the gradient of.
        sigma: deviation of the perturbations, in units of the parameters.
        pairs: perturbations, each used with both signs on the same tasks and keys.

    Returns: (params, tasks, key, step=0) -> ((loss [], metrics), gradient), to be given
        to `make_step` or `fit` as `gradient`; a fifth argument `first` is the place of
        the first task among those of all devices of a mesh. Loss and metrics are means
        over the perturbed parameters.
    Raises: ValueError for a sigma that is not positive, or pairs below 1.

    Source: Salimans et al. 2017, arXiv 1703.03864, section 2; Spall 1992 for the pairs.

    >>> import jax, optax, jaxmeta as jm
    >>> learner = jm.maml(jm.models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
    >>> gradient = jm.es_gradient(learner, pairs=2)
    >>> outer = jm.make_outer(learner, optax.adam(1e-3), gradient=gradient)
    >>> int(jm.fit(outer, jm.tasks.sinusoid(), steps=5, key=jax.random.key(0)).step)
    5
    """
    checks.check_learner(learner)
    _check_noise(sigma, pairs)
    mean_loss = meta_loss(learner)

    def gradient(params, tasks: Task, key, step=0, first=0):
        checks.check_key(key)
        key_noise, key_loss = jax.random.split(key)

        def pair(key):
            e = _noise(key, params)
            ends = [
                mean_loss(_shift(params, s * sigma, e), tasks, key_loss, step, first)
                for s in (1, -1)
            ]
            slope = (ends[0][0] - ends[1][0]) / (2 * sigma)
            return ends, jax.tree.map(lambda a: slope.astype(a.dtype) * a, e)

        ends, slopes = jax.vmap(pair)(jax.random.split(key_noise, pairs))
        plus, minus = jax.tree.map(lambda a: jnp.mean(a, axis=0), ends)
        value = jax.tree.map(lambda a, b: (a + b) / 2, plus, minus)
        return value, jax.tree.map(lambda a: jnp.mean(a, axis=0), slopes)

    return gradient


class Unroll(NamedTuple):
    """An inner process that is run piece by piece, e.g. training with an optimiser.

    init: (key) -> state of one inner process.
    step: (params, state, key) -> (state, loss []), one piece of it with meta-parameters
        `params`; the loss is that of the piece.
    length: pieces of a whole process; after them it begins again with `init`.
    """

    init: Callable[[jax.Array], PyTree]
    step: Callable[[PyTree, PyTree, jax.Array], tuple[PyTree, jax.Array]]
    length: int


class PESState(NamedTuple):
    """Inner processes of the particles, and what they have been perturbed by."""

    inner: PyTree  # [pairs, 2, ...] states
    noise: PyTree  # [pairs, ...] sums of the perturbations so far
    piece: jax.Array  # [] int32, pieces done


class PES(NamedTuple):
    """A stateful estimator: `init(params, key)`, `gradient(params, state, key)`."""

    init: Callable[[PyTree, jax.Array], PESState]
    gradient: Callable[[PyTree, PESState, jax.Array], tuple]


def pes(problem: Unroll, *, sigma: float = 0.01, pairs: int = 16) -> PES:
    """Persistent evolution strategies: unbiased over a long unroll, piece by piece.

    Each particle keeps its inner state from piece to piece, perturbed anew in each, and
    a piece's loss is credited to all perturbations xi_i = sum e_i since the beginning:

        g = 1/pairs sum_i [L_piece(+) - L_piece(-)] / (2 sigma^2) xi_i

    Summed over a process that is the ES gradient of the whole sum of losses, where
    plain truncation would see the last piece only.

    Args:
        problem: the inner process. sigma, pairs: as in `es_gradient`.

    Returns: a `PES` of two functions. `init(params, key)` -> state, all processes at their
        beginning; `gradient(params, state, key)` -> ((loss [], {}), gradient, state) does
        one piece and begins again when a process is over.
    Raises: ValueError for a sigma that is not positive, pairs or length below 1.

    Source: Vicol, Metz, Sohl-Dickstein 2021, arXiv 2112.13835, algorithm 2.
    """
    _check_noise(sigma, pairs)
    checks.check_kind(problem, Unroll, "problem")
    checks.check_functions(init=problem.init, step=problem.step)
    checks.check_sizes(length=problem.length)

    def begin(params, key):
        inner = jax.vmap(problem.init)(jax.random.split(key, pairs))
        twice = jax.tree.map(lambda a: jnp.stack([a, a], axis=1), inner)
        rows = lambda p: jnp.zeros((pairs, *p.shape), p.dtype)
        return PESState(twice, jax.tree.map(rows, params), jnp.zeros((), jnp.int32))

    def pair(params, inner, noise, key):
        key_noise, key_step = jax.random.split(key)
        e = _noise(key_noise, params)
        signs = jnp.array([1.0, -1.0])

        def one(sign, state):  # both signs see the same data
            return problem.step(_shift(params, sign * sigma, e), state, key_step)

        inner, losses = jax.vmap(one)(signs, inner)
        noise = jax.tree.map(lambda xi, e: xi + sigma * e, noise, e)
        slope = (losses[0] - losses[1]) / (2 * sigma**2)
        return (
            inner,
            noise,
            jnp.mean(losses),
            jax.tree.map(lambda xi: slope.astype(xi.dtype) * xi, noise),
        )

    def gradient(params, state: PESState, key):
        checks.check_key(key)
        key_pairs, key_begin = jax.random.split(key)
        keys = jax.random.split(key_pairs, pairs)
        inner, noise, losses, slopes = jax.vmap(pair, (None, 0, 0, 0))(
            params, state.inner, state.noise, keys
        )
        after = PESState(inner, noise, state.piece + 1)
        over = after.piece == problem.length
        fresh = begin(params, key_begin)
        after = jax.tree.map(lambda a, b: jnp.where(over, a, b), fresh, after)
        mean = jax.tree.map(lambda a: jnp.mean(a, axis=0), slopes)
        return (jnp.mean(losses), {}), mean, after

    return PES(begin, gradient)


class PESTraining(NamedTuple):
    """A `MetaState`, and the particles of a PES."""

    state: MetaState
    particles: PESState

    @property
    def params(self) -> PyTree:
        """The meta-parameters."""
        return self.state.params

    @property
    def step(self) -> jax.Array:
        """Meta-steps done."""
        return self.state.step


def pes_outer(
    estimator: PES,
    init: Callable[[jax.Array], PyTree],
    optimizer: optax.GradientTransformation,
) -> Outer:
    """Training with a `PES`, a piece of the unroll each meta-step, to be run by `fit`.

    Args: estimator: see `pes`; init: key -> params; optimizer: the outer optimiser.
    Returns: an `Outer` whose states are `PESTraining`s; it draws no tasks.

    >>> import jax, jax.numpy as jnp, optax, jaxmeta as jm
    >>> def step(params, w, key):  # w goes down a slope with a learned rate
    ...     w = w - params * 2 * w
    ...     return w, w**2
    >>> problem = jm.Unroll(lambda key: jnp.ones(()), step, length=10)
    >>> outer = jm.pes_outer(jm.pes(problem), lambda key: jnp.array(0.1), optax.adam(0.01))
    >>> state = jm.fit(outer, None, steps=50, key=jax.random.key(0))
    >>> bool(state.params > 0.1)
    True
    """
    checks.check_kind(estimator, PES, "estimator")
    checks.check_functions(init=init)
    checks.check_optimizer(optimizer)

    def begin(key):
        key_params, key_particles = jax.random.split(key)
        params = init(key_params)
        opt_state = meshes.copied(optimizer.init(params))
        state = MetaState(params, opt_state, jnp.zeros((), jnp.int32))
        return PESTraining(state, estimator.init(params, key_particles))

    def step(training: PESTraining, sampler, key):
        del sampler
        state, particles = training
        (value, metrics), grads, particles = estimator.gradient(
            state.params, particles, key
        )
        state, skipped = descended(optimizer, state, grads, value)
        return PESTraining(state, particles), {"loss": value, **metrics, **skipped}

    return Outer(begin, step)


def _check_noise(sigma, pairs):
    checks.check_positive(sigma=sigma)
    checks.check_sizes(pairs=pairs)


def _noise(key, params):
    return optax.tree.random_like(key, params)


def _shift(params, by, noise):
    return jax.tree.map(lambda p, e: p + jnp.asarray(by, p.dtype) * e, params, noise)
