"""Scores without target labels, against numbers by hand and in numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import jaxmeta as jm
from jaxmeta import scores

pytestmark = pytest.mark.usefixtures("x64")
random = np.random.default_rng(0)


def saying(logits):
    """A learner that predicts given logits, whatever it adapted to."""
    return jm.MetaLearner(
        lambda key: (),
        lambda params, support, key=None: (),
        lambda adapted, x, mask=None: jnp.asarray(logits),
        lambda params, task, key=None: (jnp.zeros(()), {}),
    )


LOGITS = np.array([[9.0, 9], [0, 0], [np.log(3.0), 0], [5, -5], [7, 0]])
BATCH = jm.Batch(np.zeros((5, 1)), np.array([0, -1, -1, 1, 1]))
MASKED = BATCH._replace(y=np.array([0, -1, -1, 1, -1]), mask=np.array([1, 1, 1, 1, 0]))


@pytest.mark.parametrize("batch", [BATCH, MASKED])
def test_entropy_by_hand(batch):
    """One half and one half; three quarters and a quarter."""
    found = scores.prediction_entropy(saying(LOGITS), (), batch)
    by_hand = (np.log(2) + np.log(4) - 0.75 * np.log(3)) / 2
    np.testing.assert_allclose(found, -by_hand, rtol=1e-12)


def test_classes_without_a_source_example_have_no_entropy():
    logits = np.where([False, True, False], -np.inf, np.zeros((5, 3)))
    found = scores.prediction_entropy(saying(logits), (), BATCH)
    np.testing.assert_allclose(found, -np.log(2), rtol=1e-12)


def neighbours(p, tau):
    """One example at a time."""
    f, found = p / np.linalg.norm(p, axis=1, keepdims=True), []
    for i in range(len(f)):
        others = np.delete(f, i, axis=0)
        q = softmax(others @ f[i] / tau)
        found.append(-(q * np.log(q)).sum())
    return np.mean(found)


@pytest.mark.parametrize("tau", [0.05, 1.0])
def test_soft_neighbourhood_density_in_numpy(tau):
    logits, y = random.normal(size=(9, 3)), np.array([0, 1, 2, *[-1] * 6])
    mask = np.array([1] * 8 + [0])
    found = scores.soft_neighbourhood_density(
        saying(logits), (), jm.Batch(np.zeros((9, 1)), y, mask), temperature=tau
    )
    expected = neighbours(softmax(logits[3:8], axis=1), tau)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_known_ratio_of_three_values():
    """One-hot features and no penalty to speak of: the ratio of the shares."""
    source, target = np.repeat([0, 1, 2], [6, 3, 1]), np.repeat([0, 1, 2], [2, 4, 10])
    z = np.eye(3)[np.concatenate([source, target, [0]])]
    y = np.array([0, 1] * 5 + [-1] * 16 + [0])
    mask = np.array([1] * 26 + [0])
    batch = jm.Batch(z, y, mask)
    ratio = lambda z: scores.density_ratio(z, batch, penalty=1e-9, iterations=30)
    w = jax.jit(ratio)(z)
    shares = np.array([2 / 6, 4 / 3, 10 / 1]) * 10 / 16
    np.testing.assert_allclose(w, [*shares[source], *[0] * 17], rtol=1e-6)
    # who is right where the target is, is better than who is right where the source is
    right = np.repeat([0, 1], [6, 4]), np.repeat([1, 0], [6, 4])
    weights = shares[source]
    for said in right:
        logits = np.eye(2)[[*np.where(said, y[:10], 1 - y[:10]), *[0] * 17]]
        learner = saying(logits)
        score = partial(scores.importance_weighted, learner, (), penalty=1e-9)
        found = jax.jit(score)(batch)
        expected = weights[said == 1].sum() / weights.sum()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def nearest(support):
    """What nearest neighbours make of the labelled part."""
    known = np.asarray(support.y) >= 0
    return jm.Batch(np.asarray(support.x)[known], np.asarray(support.y)[known])


def nearest_neighbour():
    """That of the source alone, without a word about the target."""
    plain = jm.nearest_neighbour(ways=2)
    adapt = lambda params, support, key=None: plain.adapt((), nearest(support))
    return plain._replace(adapt=adapt)


def test_circular_validation_of_a_toy():
    """Moved by a little, labels come back; moved by half the distance of the classes and
    more, one class is all that does."""
    x, y = np.array([[0.0], [0.2], [1.0], [1.2]]), [0, 0, 1, 1]
    found = []
    for shift in (0.1, 0.55, 0.9):
        batch = jm.Batch(np.concatenate([x, x + shift]), np.array([*y, *[-1] * 4]))
        found.append(float(scores.circular_validation(nearest_neighbour(), (), batch)))
    # 0.55, 0.75 | 1.55, 1.75: the second is nearer to 1.0, as 0.55 is to 0.2
    assert found == [1.0, 1.0, 0.5]


def deciding(classify):
    """A learner that says class `classify(x)`, 0 or 1, whatever it adapted to."""
    predict = lambda adapted, x, mask=None: jax.nn.one_hot(
        jnp.asarray(classify(x[:, 0])).astype(int), 2
    )
    return saying(())._replace(predict=predict)


def on_a_line(target):
    """Two source examples and those of the target."""
    x = np.array([0.0, 1.0, *target])[:, None]
    return jm.Batch(x, np.array([0, 1, *[-1] * len(target)]))


def test_mixval_by_hand():
    """Classes at 0 and 1: 0.45 of the way to the other one is beyond a boundary at 0.4
    from the one side, not from the other; and one class has no pairs of two."""
    batch = on_a_line([0.0, 0.02, 1.0, 1.02])
    score = lambda bound: scores.mixval(deciding(lambda x: x > bound), (), batch)
    found = jax.jit(jax.vmap(score))(jnp.array([0.5, 0.4, 9.0]))
    assert found.tolist() == [1.0, 0.75, 0.5]


def test_mixval_is_the_mean_over_all_pairs():
    """Of its draws, against a loop over the pairs; examples of the source and padding are
    in none of them."""
    x = random.normal(size=9)
    classify = lambda x: jnp.sin(3 * x) > 0
    batch = on_a_line(x)._replace(mask=np.array([1] * 10 + [0]))
    known, right = np.sin(3 * x[:8]) > 0, {True: [], False: []}
    for i in range(8):
        one = {True: [], False: []}
        for j in set(range(8)) - {i}:
            mixed = 0.7 * x[i] + 0.3 * x[j]
            one[known[i] == known[j]].append((np.sin(3 * mixed) > 0) == known[i])
        for same in one:
            right[same] += [np.mean(one[same])] if one[same] else []
    expected = (np.mean(right[True]) + np.mean(right[False])) / 2
    score = lambda key: scores.mixval(deciding(classify), (), batch, key, mix=0.7)
    keys = jax.random.split(jax.random.key(0), 4000)
    found = np.asarray(jax.jit(jax.vmap(score))(keys), float)
    np.testing.assert_allclose(found.mean(), expected, atol=3 * found.std() / 4000**0.5)


def test_what_mixval_can_not_mix_is_said_and_nan_stays():
    with pytest.raises(ValueError, match="mix: expected a number in"):
        scores.mixval(saying(LOGITS), (), BATCH, mix=0.5)
    words = BATCH._replace(x=np.zeros((5, 3), int))
    with pytest.raises(ValueError, match="inputs of floating numbers"):
        scores.mixval(saying(LOGITS), (), words)
    score = partial(scores.mixval, saying(LOGITS * np.nan), ())
    assert np.isnan(jax.jit(score)(BATCH))


def test_scores_choose_among_learners_of_the_family():
    """All of them as one program over tasks, with draws of the learner's own."""
    data = jm.data.from_arrays(random.normal(size=(40, 2)), np.arange(40) % 2)
    learner = jm.deep_coral(
        jm.models.mlp(2, 4, (4,)), ways=2, features=4, inner_steps=2, batch_size=5
    )
    params = learner.init(jax.random.key(0))
    tasks = jm.sample_tasks(jm.tasks.rotated(data), jax.random.key(1), 3)

    def one(support, key):
        adapted = learner.adapt(params, support, jax.random.clone(key))
        plain = [
            score(learner, adapted, support)
            for score in (
                scores.importance_weighted,
                scores.prediction_entropy,
                scores.soft_neighbourhood_density,
                scores.mixval,
            )
        ]
        return [*plain, scores.circular_validation(learner, params, support, key)]

    found = jax.jit(jax.vmap(one))(
        tasks.support, jax.random.split(jax.random.key(2), 3)
    )
    weighted, entropy, density, mixed, circular = map(np.asarray, found)
    assert ((mixed >= 0) & (mixed <= 1)).all()
    assert ((weighted >= 0) & (weighted <= 1)).all() and (entropy < 0).all()
    assert ((density > 0) & (density < np.log(12))).all()
    assert np.allclose(circular * 14, np.round(circular * 14))


NAMED = [
    scores.importance_weighted,
    scores.prediction_entropy,
    scores.soft_neighbourhood_density,
    scores.circular_validation,
    scores.mixval,
]


@pytest.mark.parametrize("score", NAMED)
@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        (None, "batch: expected a jm.Batch"),
        (BATCH._replace(y=np.array([0, 1, 0, 1, 1])), "no example is unlabelled"),
        (BATCH._replace(y=np.full(5, -1)), "every example is unlabelled"),
        (BATCH._replace(y=np.zeros(3, int)), "x has 5 examples, y has 3"),
    ],
)
def test_what_is_no_pair_of_domains_is_said(score, batch, sentence):
    with pytest.raises(ValueError, match=sentence):
        score(saying(LOGITS), (), batch)


def test_numbers_out_of_range_are_said():
    for score, wrong in (
        (scores.importance_weighted, {"penalty": 0}),
        (scores.soft_neighbourhood_density, {"temperature": 0.0}),
    ):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected a number"):
            score(saying(LOGITS), (), BATCH, **wrong)
