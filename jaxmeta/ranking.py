"""How good a ranking is: precision, nDCG and reciprocal rank of the first few.

As recommenders are compared in RecBole-MetaRec: the queries of a user are ranked by what
is predicted, and the `at` that the user rated best are the relevant ones. Ratings are
often equal, so which are relevant is drawn among equals; here are the means over that
draw, exactly.
"""

import jax
import jax.numpy as jnp

from jaxmeta import checks
from jaxmeta.batches import columns
from jaxmeta.types import Batch, Metrics


def ranking(outputs, query: Batch, *, at: int = 5) -> Metrics:
    """Precision, nDCG and mean reciprocal rank of the first `at` of a task's queries.

        P = 1/k sum_r rel_r,  nDCG = sum_r rel_r d_r / sum_r d_r,  d_r = 1 / log2(1 + r)
        MRR = E 1 / (rank of the first relevant one; 0 if it is not among the first k)

    over the ranks r = 1..k, k = at or the number of queries if that is smaller. rel_r is
    the chance that the query at rank r is among the k rated best, ties drawn at random.
    Predictions that are equal keep the order of the queries, which is random where they
    were drawn.

    Args:
        outputs: [query, 1], or (mean, deviation) of them; query: with ratings [query, 1].
        at: k.

    Returns: "precision", "ndcg", "mrr" in 0..1, [] each; NaN if a prediction is.
    Raises: ValueError for other shapes, or `at` below 1.

    >>> query = Batch(None, jnp.array([[5.0], [1.0], [4.0]]))
    >>> scores = ranking(jnp.array([[2.0], [3.0], [1.0]]), query, at=2)
    >>> {name: round(float(value), 3) for name, value in scores.items()}
    {'precision': 0.5, 'ndcg': 0.387, 'mrr': 0.5}
    """
    checks.check_sizes(at=at)
    score = outputs[0] if isinstance(outputs, tuple) else outputs
    if jnp.shape(score) != jnp.shape(query.y) or columns(query.y).shape[1:] != (1,):
        raise ValueError(
            "metrics.ranking: expected outputs and ratings of one shape, [query, 1], got "
            f"{jnp.shape(score)} and {jnp.shape(query.y)}"
        )
    score, rating = columns(score)[:, 0], columns(query.y)[:, 0]
    counts = jnp.ones(len(score), bool) if query.mask is None else query.mask > 0
    k = jnp.minimum(at, jnp.sum(counts)).astype(score.dtype)
    better, equal = _compared(rating, counts)
    relevance = jnp.where(counts, jnp.clip((k - better) / equal, 0, 1), 0)
    before = _before(score, counts)
    rank = 1 + jnp.sum(before, axis=1).astype(score.dtype)
    within = jnp.where(counts & (rank <= k), 1.0, 0.0).astype(score.dtype)
    discount = within / jnp.log2(1 + rank)
    first = _first(before, rating, relevance, k - better)
    sound = jnp.where(jnp.any(jnp.isnan(score) & counts), jnp.nan, 1.0)
    sound = sound.astype(score.dtype)
    return {
        "precision": sound * jnp.sum(within * relevance) / k,
        "ndcg": sound * jnp.sum(discount * relevance) / jnp.sum(discount),
        "mrr": sound * jnp.sum(within * first / rank),
    }


def _compared(rating: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How many queries that count are rated better [n], and how many equally [n] (>= 1)."""
    among = lambda which: jnp.sum(which & counts[None], axis=1).astype(rating.dtype)
    better = among(rating[None] > rating[:, None])
    return better, jnp.maximum(among(rating[None] == rating[:, None]), 1)


def _before(score: jax.Array, counts: jax.Array) -> jax.Array:
    """[n, n] whether the second of two is ranked before the first."""
    place = jnp.arange(len(score))
    earlier = (score[None] == score[:, None]) & (place[None] < place[:, None])
    return ((score[None] > score[:, None]) | earlier) & counts[None]


def _first(before, rating, relevance, left) -> jax.Array:
    """[n] chance that a query is relevant, and none that is ranked before it.

    Of the equals on the edge, `left` are drawn: if j that are ranked before were not, the
    next one is with chance left / (their number - j).
    """
    edge = (relevance > 0) & (relevance < 1)
    equals = jnp.sum(edge).astype(rating.dtype)
    passed = jnp.sum(before & edge[None], axis=1).astype(rating.dtype)
    chance = jnp.clip(left / jnp.maximum(equals - passed, 1), 0, 1)
    chance = jnp.where(edge, chance, relevance)
    return chance * jnp.prod(jnp.where(before, 1 - chance[None], 1), axis=1)
