"""Scores that choose a model of a target domain without its labels.

Each is of a batch as learners of a pair of domains get it, labelled source and unlabelled
target examples, and the greater, the better: of what was adapted with several
hyper-parameters, keep the one with the greatest score. None looks at the query set.

    importance_weighted         Sugiyama et al. 2007, JMLR 8, its weights normalised
    prediction_entropy          Morerio et al. 2018, arXiv 1711.10288
    soft_neighbourhood_density  Saito et al. 2021, arXiv 2108.10860
    circular_validation         Bruzzone and Marconcini 2010, IEEE TPAMI 32
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.batches import blank_padding, columns
from jaxmeta.boundary import entered
from jaxmeta.learners.adaptation.domains import averaged, sides
from jaxmeta.solvers.logistic import logistic
from jaxmeta.types import UNLABELLED, Batch, MetaLearner

Features = Callable[[Any], jax.Array]  # inputs -> [examples, features]


def importance_weighted(
    learner: MetaLearner,
    adapted: Any,
    batch: Batch,
    *,
    features: Features = columns,
    penalty: float = 1e-3,
) -> jax.Array:
    """Accuracy on the source, each example weighted by `density_ratio`.

        sum_i w(x_i) [y_i right] / sum_i w(x_i)

    Right where the domains differ in p(x) alone; best of source examples that were not
    adapted to.

    Args:
        learner: of classification. adapted: what its `adapt` gave.
        batch: labelled source and unlabelled target examples.
        features, penalty: as in `density_ratio`.
    Returns: []. Raises: ValueError for a batch without the one or the other.

    >>> import jaxmeta as jm, numpy as np
    >>> learner = jm.nearest_neighbour(ways=2)  # at 0 it is right, at 1 not
    >>> seen = jm.Batch(np.array([[0.0], [1.0]]), np.array([1, 1]))
    >>> adapted = learner.adapt((), seen)
    >>> x, y = np.array([[0.0], [1.0], [0.0], [0.0], [0.0], [1.0]]), [1, 0, -1, -1, -1, -1]
    >>> batch = jm.Batch(x, np.array(y))  # 3 of 4 of the target are at 0
    >>> round(float(importance_weighted(learner, adapted, batch, penalty=1e-5)), 2)
    0.75
    """
    batch = _entered(learner, batch)
    w = density_ratio(features(batch.x), batch, penalty=penalty)
    right = jnp.argmax(learner.predict(adapted, batch.x, batch.mask), axis=1) == batch.y
    return jnp.sum(w * right) / jnp.sum(w)


def density_ratio(
    z: jax.Array, batch: Batch, *, penalty: float = 1e-3, iterations: int = 20
) -> jax.Array:
    """p_target / p_source at the source's examples, by logistic regression.

        p_t(z) / p_s(z) = (n_s / n_t) P(target | z) / P(source | z)

    Args:
        z: [examples, features] what the domains are told apart by.
        batch: whose labels say which is which.
        penalty: factor of |w|^2 / 2 beside the sum over the examples, the intercept's
            included. iterations: of Newton's method.
    Returns: [examples], 0 for those of the target and padding.
    """
    checks.check_positive(penalty=penalty)
    checks.check_sizes(iterations=iterations)
    source, target = sides(batch, z.dtype)
    z = jnp.concatenate([z, jnp.ones_like(z[:, :1])], axis=1)
    w = logistic(z, target, penalty, iterations, source + target)
    odds = jnp.exp(jnp.where(source > 0, z @ w, 0))  # of the target perhaps infinite
    return source * odds * jnp.sum(source) / jnp.sum(target)


def prediction_entropy(learner: MetaLearner, adapted: Any, batch: Batch) -> jax.Array:
    """Minus the mean entropy of what is predicted of the target, in nats.

    Sure of one wrong class it is best, too: compare few, well chosen models.

    Args: learner, adapted, batch: as in `importance_weighted`.
    Returns: [], at most 0. Raises: as there.

    >>> import jaxmeta as jm, numpy as np
    >>> even = lambda adapted, x, mask=None: np.zeros((len(x), 2))
    >>> learner = jm.nearest_neighbour(ways=2)._replace(predict=even)
    >>> batch = jm.Batch(np.zeros((4, 1)), np.array([0, 1, -1, -1]))
    >>> round(float(prediction_entropy(learner, (), batch)), 4)  # - log 2
    -0.6931
    """
    batch = _entered(learner, batch)
    _, target = sides(batch, jnp.result_type(float))
    return -averaged(_entropy(_log_p(learner, adapted, batch)), target)


def soft_neighbourhood_density(
    learner: MetaLearner, adapted: Any, batch: Batch, *, temperature: float = 0.05
) -> jax.Array:
    """How many neighbours a target example has among the predictions, as an entropy.

        f_i = p_i / |p_i|,  P_i = softmax_{j != i}(f_i f_j / tau),  mean_i H(P_i)

    Where classes are dense and apart, an example has as many neighbours as its class has
    examples.

    Departures: the example itself is left out; the authors' code gives it the logit
    -1 / tau, which is as little.

    Args: learner, adapted, batch: as in `importance_weighted`. temperature: tau.
    Returns: []. Raises: as there, and for a temperature that is not positive.
    """
    checks.check_positive(temperature=temperature)
    batch = _entered(learner, batch)
    p = jnp.exp(_log_p(learner, adapted, batch))
    _, target = sides(batch, p.dtype)
    f = p / jnp.linalg.norm(p, axis=1, keepdims=True)
    others = (target[None, :] > 0) & ~jnp.eye(len(p), dtype=bool)
    logits = jnp.where(others, f @ f.T / temperature, -jnp.inf)
    return averaged(_entropy(jax.nn.log_softmax(logits, axis=1)), target)


def circular_validation(
    learner: MetaLearner, params: Any, batch: Batch, key: jax.Array | None = None
) -> jax.Array:
    """Accuracy on the source of what was adapted back from the target.

    The learner adapts to the target and labels it, then the roles change: it adapts from
    the target, with those labels, to the source without any, and predicts the source.

    Args:
        learner: of classification. params: where it adapts from, twice.
        batch: labelled source and unlabelled target examples.
        key: of what it draws when it adapts.
    Returns: []. Raises: as `importance_weighted`.
    """
    batch = _entered(learner, batch)
    there, back = (None, None) if key is None else jax.random.split(key)
    ask = lambda adapted: jnp.argmax(
        learner.predict(adapted, batch.x, batch.mask), axis=1
    )
    found = ask(learner.adapt(params, batch, there))
    swapped = jnp.where(batch.y == UNLABELLED, found, UNLABELLED)
    swapped = batch._replace(y=swapped.astype(batch.y.dtype))
    right = ask(learner.adapt(params, swapped, back)) == batch.y
    source, _ = sides(batch, jnp.result_type(float))
    return averaged(right.astype(source.dtype), source)


def _entered(learner: MetaLearner, batch: Batch) -> Batch:
    """The batch as learners get it. Raises: ValueError for one that is not of two domains,
    where it can be seen."""
    checks.check_learner(learner)
    checks.check_kind(batch, Batch, "batch")
    batch = Batch(entered(batch.x), jnp.asarray(batch.y), batch.mask)
    checks.check_batch(batch, "batch")
    checks.check_labels(batch, jnp.iinfo(jnp.int32).max, "batch", unlabelled=True)
    checks.check_unlabelled(batch)
    return blank_padding(batch)


def _log_p(learner: MetaLearner, adapted: Any, batch: Batch) -> jax.Array:
    logits = learner.predict(adapted, batch.x, batch.mask)
    return jax.nn.log_softmax(logits, axis=1)


def _entropy(log_p: jax.Array) -> jax.Array:
    """[n] of log_p [n, ...], 0 log 0 = 0."""
    p = jnp.exp(log_p)
    return -jnp.sum(jnp.where(p > 0, p * log_p, 0), axis=1)
