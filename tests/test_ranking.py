"""Scores of rankings beside draws in Python, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import ndcg_score

import jaxmeta as jm

AT = 5
judge = jax.jit(jax.vmap(lambda o, y: jm.metrics.ranking(o, jm.Batch(None, y))))


def drawn(random, outputs, ratings):
    """The protocol: the five best are relevant, ties drawn; (P, nDCG, RR)."""
    order = random.permutation(len(ratings))
    best = order[np.argsort(-ratings[order], kind="stable")][:AT]
    first = np.argsort(-outputs, kind="stable")[:AT]
    hits = [i in best for i in first]
    discounts = [1 / np.log2(2 + r) for r in range(AT)]
    gain = sum(d for d, hit in zip(discounts, hits, strict=True) if hit)
    rank = 1 / (1 + hits.index(True)) if any(hits) else 0
    return np.mean(hits), gain / sum(discounts), rank


def test_it_is_the_mean_over_draws_of_ties():
    random = np.random.default_rng(0)
    outputs = random.normal(size=(4, 10))
    ratings = random.integers(1, 6, (4, 10)).astype(float)
    ratings[3] = 4.0  # all equal
    found = judge(outputs[..., None], ratings[..., None])
    for i in range(4):
        draws = [drawn(random, outputs[i], ratings[i]) for _ in range(2000)]
        mean, error = np.mean(draws, 0), np.std(draws, 0) / 2000**0.5
        each = [float(found[name][i]) for name in ("precision", "ndcg", "mrr")]
        assert (np.abs(each - mean) <= 5 * error + 1e-6).all(), (each, mean)


def test_without_ties_it_is_scikit_learns():
    random = np.random.default_rng(1)
    outputs, ratings = random.normal(size=(2, 3, 10))
    found = judge(outputs[..., None], ratings[..., None])
    for i in range(3):
        relevant = (ratings[i] >= np.sort(ratings[i])[-AT]).astype(float)
        wanted = ndcg_score(relevant[None], outputs[i][None], k=AT)
        assert float(found["ndcg"][i]) == pytest.approx(wanted, abs=1e-6)
    perfect = judge(ratings[..., None], ratings[..., None])
    assert all((np.asarray(v) == 1).all() for v in perfect.values())


def test_padding_changes_nothing_and_nan_is_said():
    outputs, ratings = (
        jnp.array([[0.3], [0.2], [0.1]]),
        jnp.array([[1.0], [5.0], [5.0]]),
    )
    score = jax.jit(lambda o, q: jm.metrics.ranking(o, q, at=2))
    plain = score(outputs, jm.Batch(None, ratings, jnp.ones(3)))
    assert {n: float(v) for n, v in plain.items()} == pytest.approx(
        {"precision": 0.5, "ndcg": 1 / np.log2(3) / (1 + 1 / np.log2(3)), "mrr": 0.5}
    )
    longer = [
        jnp.concatenate([a, jnp.array([[9.0], [8.0]])]) for a in (outputs, ratings)
    ]
    mask = jnp.array([1.0, 1, 1, 0, 0])
    assert plain == score(longer[0], jm.Batch(None, longer[1], mask))
    broken = score(outputs.at[0].set(jnp.nan), jm.Batch(None, ratings, jnp.ones(3)))
    assert all(np.isnan(v) for v in broken.values())


@pytest.mark.parametrize(
    ("outputs", "at", "sentence"),
    [
        (jnp.zeros(3), 5, "expected outputs and ratings of one shape"),
        (jnp.zeros((3, 1)), 0, "at: expected a whole number >= 1, got 0"),
    ],
)
def test_wrong_arguments_get_a_sentence(outputs, at, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.metrics.ranking(outputs, jm.Batch(None, jnp.zeros((3, 1))), at=at)
