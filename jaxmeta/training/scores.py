"""Scores that choose a model of a target domain without its labels.

Each is of a batch as learners of a pair of domains get it, labelled source and unlabelled
target examples, and the greater, the better: of what was adapted with several
hyper-parameters, keep the one with the greatest score. None looks at the query set.

    importance_weighted         Sugiyama et al. 2007, JMLR 8, its weights normalised
    prediction_entropy          Morerio et al. 2018, arXiv 1711.10288
    soft_neighbourhood_density  Saito et al. 2021, arXiv 2108.10860
    circular_validation         Bruzzone and Marconcini 2010, IEEE TPAMI 32
    mixval                      Hu et al. 2023, NeurIPS 36
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.batches import blank_padding, columns, of_examples, untagged
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


def mixval(
    learner: MetaLearner,
    adapted: Any,
    batch: Batch,
    key: jax.Array | None = None,
    *,
    mix: float = 0.55,
) -> jax.Array:
    """How often a mixture of two target examples is said to be what its greater part is.

        x = lambda x_i + (1 - lambda) x_j,   ICE = E[c(x) = c(x_i)],   lambda > 1/2

    c is the class that is predicted, j drawn for each i: among those of the same class
    (whether classes are dense), and of another (whether the boundary is between them).
    The score is the mean of both ICE.

    Departures: j is drawn from all of the target, in the authors' code it is another one
    of the same minibatch. Where there is no such j at all, that ICE is 0: a model that
    says one class of everything scores 1/2 at most.

    Args:
        learner, adapted, batch: as in `importance_weighted`; inputs are floating numbers.
        key: draws the pairs; None = always the same. mix: lambda.
    Returns: [], from 0 to 1; NaN for predictions that are NaN. Raises: as there, for
        inputs that can't be mixed, and for a mix that is not between 1/2 and 1.

    >>> import jaxmeta as jm, numpy as np
    >>> wide = lambda adapted, x, mask=None: np.stack([x[:, 0] * 0, abs(x[:, 0]) - 1], 1)
    >>> learner = jm.nearest_neighbour(ways=2)._replace(predict=wide)
    >>> x, y = np.array([[0.0], [2.0], [0.0], [0.1], [2.0], [-2.1]]), [0, 1, -1, -1, -1, -1]
    >>> float(mixval(learner, (), jm.Batch(x, np.array(y))))  # 2 and -2.1 have 0 between
    0.75
    """
    checks.check_numbers(above=0.5, below=1, mix=mix)
    batch = _entered(learner, batch)
    _check_mixable(batch.x)
    key = jax.random.key(0) if key is None else key
    _, target = sides(batch, jnp.result_type(float))
    asked = lambda x: learner.predict(adapted, x, target)
    logits = asked(batch.x)
    said = jnp.argmax(logits, axis=1)
    same = said[:, None] == said[None, :]
    others = (target[None, :] > 0) & ~jnp.eye(len(said), dtype=bool)

    def ice(key, partners):
        j = jax.random.categorical(key, jnp.where(partners, 0.0, -jnp.inf))
        x = of_examples(lambda a: mix * a + (1 - mix) * a[j], batch.x)
        right = jnp.argmax(asked(x), axis=1) == said
        return averaged(right.astype(target.dtype), target * jnp.any(partners, axis=1))

    keys = jax.random.split(key)
    score = (ice(keys[0], others & same) + ice(keys[1], others & ~same)) / 2
    broken = jnp.any(jnp.isnan(logits) & (target[:, None] > 0))
    return jnp.where(broken, jnp.nan, score)


def _check_mixable(x: Any) -> None:
    """Raise ValueError for inputs of which there is no mixture."""
    for leaf in jax.tree.leaves(untagged(x)):
        if not checks.is_floating(leaf):
            raise ValueError(
                "batch: expected inputs of floating numbers, of which two can be mixed, "
                f"got {leaf.dtype}; take another score, e.g. prediction_entropy"
            )


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
