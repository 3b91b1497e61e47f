"""Episodes of varying ways and shots, and what is known of each one drawn."""

import jax
import numpy as np
import optax
import pytest
from problems import TinyNetworks, double, many_tasks, one_task, row

import jaxmeta as jm
from jaxmeta import learners
from jaxmeta.learners.registry import build, facts_of
from jaxmeta.tasks.sizes import MetaDataset, Varied


def uneven(least=4, classes=12):
    """Classes of 4, 5, ... examples that say their number."""
    counts = least + np.arange(classes)
    labels = np.repeat(np.arange(classes), counts)
    x = np.stack([labels, np.arange(len(labels))], axis=1).astype(np.float32)
    return jm.data.from_arrays(x, labels)


def drawn(sampler, tasks=300):
    return jax.device_get(many_tasks(sampler, jax.random.key(0), tasks))


@pytest.mark.parametrize("imbalanced", [False, True])
def test_ways_and_shots_vary_and_are_masked(imbalanced):
    sampler = jm.tasks.episodes(uneven(), (2, 5), (1, 6), 3, imbalanced=imbalanced)
    tasks, ways, shots = drawn(sampler), [], []
    for task in zip(*jax.tree.leaves(tasks), strict=True):
        x, y, mask, xq, yq, maskq = task
        support, query = x[mask > 0], xq[maskq > 0]
        assert (np.diff(mask) <= 0).all() and (np.diff(maskq) <= 0).all()
        number = np.bincount(y[mask > 0])
        ways.append(len(number))
        shots.append(number)
        assert (number > 0).all() and np.bincount(yq[maskq > 0]).tolist() == [3] * ways[
            -1
        ]
        both = np.concatenate([support, query])
        assert len(set(both[:, 1])) == len(both)  # no example twice
        labels = np.concatenate([y[mask > 0], yq[maskq > 0]])
        pairs = set(zip(labels.tolist(), both[:, 0].tolist(), strict=True))
        assert len(pairs) == ways[-1] == len({c for _, c in pairs})  # a label, a class
    assert set(ways) == {2, 3, 4, 5}
    assert abs(np.bincount(ways)[2:] - 75).max() < 30  # sd 7.5
    assert min(map(min, shots)) == 1 and max(map(max, shots)) == 6
    assert any(len(set(s)) > 1 for s in shots)  # a small class gives what it has
    if not imbalanced:  # of classes that are large enough, all alike
        large = jm.tasks.episodes(uneven(9), (2, 5), (1, 6), 3)
        masked = drawn(large, 50).support
        for y, mask in zip(masked.y, masked.mask, strict=True):
            assert len(set(np.bincount(y[mask > 0]))) == 1


def by_the_paper(random, counts, ways=(5, 8), most=30, queries=4):
    """Section 3.2 of arXiv 1903.03096: (ways, query examples a class, shots)."""
    chosen = random.choice(counts, random.integers(ways[0], ways[1] + 1), replace=False)
    q = min(queries, int(0.5 * chosen.min()))
    beta = 1 - random.random()  # in (0, 1]
    size = min(most, int(np.ceil(beta * np.minimum(100, chosen - q)).sum()))
    weight = np.exp(random.uniform(np.log(0.5), np.log(2), len(chosen))) * chosen
    share = weight / weight.sum()
    shots = np.minimum(np.floor(share * (size - len(chosen))) + 1, chosen - q)
    return len(chosen), q, shots.sum()


def test_meta_datasets_sizes_are_those_of_the_paper():
    sampler = jm.tasks.meta_dataset(uneven(4, 14), ways=(5, 8), most=30, queries=4)
    tasks = drawn(sampler, 3000)
    ways = np.array([len(set(y[m > 0])) for y, m in zip(*tasks.query[1:], strict=True)])
    total = tasks.support.mask.sum(axis=1)
    queries = tasks.query.mask.sum(axis=1) / ways
    ours = np.stack([ways, queries, total], axis=1)
    random = np.random.default_rng(0)
    theirs = np.array([by_the_paper(random, 4 + np.arange(14)) for _ in range(3000)])
    error = np.sqrt((ours.var(0) + theirs.var(0)) / 3000)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.08)
    assert (ours.min(0) >= theirs.min(0)).all() and (ours.max(0) <= theirs.max(0)).all()


def test_label_noise_is_of_the_support_set_alone():
    sampler = jm.tasks.episodes(uneven(8), (3, 4), 4, 4, label_noise=0.25)
    tasks = drawn(sampler)
    wrong = []
    for x, y, mask in zip(*tasks.support, strict=True):
        counts = mask > 0
        whose = {c: np.bincount(y[counts & (x[:, 0] == c)]) for c in set(x[counts, 0])}
        assert y[counts].max() < len(whose)
        wrong.append(np.mean(np.repeat(np.arange(len(whose)), 4) != y[counts]))
    assert abs(np.mean(wrong) - 0.25) < 0.03  # sd 0.007
    for x, y, mask in zip(*tasks.query, strict=True):
        x, y = x[mask > 0, 0], y[mask > 0]
        assert len({*zip(x, y, strict=True)}) == len(set(y)) == len(set(x))


def test_a_plan_says_which_classes_and_examples():
    data, key = uneven(5), jax.random.key(5)
    sampler = jm.tasks.episodes(data, (2, 4), 2, 2, unlabelled=1, distractors=1)
    both = jax.jit(lambda s, key: (s.plan(jax.random.clone(key)), s.sample(key)))
    plan, task = jax.device_get(both(sampler, key))
    for slots, batch in ((plan.support, task.support), (plan.query, task.query)):
        np.testing.assert_array_equal(data.x[slots.example], batch.x)
        counts = np.asarray(batch.mask) > 0
        classes = np.asarray(plan.classes)[slots.row][counts]
        names = [data.classes[c] for c in classes]
        assert names == [str(int(c)) for c in np.asarray(batch.x)[counts, 0]]
        assert (data.origin[slots.example][counts] == batch.x[counts, 1]).all()
    hidden = np.asarray(task.support.y)[np.asarray(task.support.mask) > 0] == -1
    assert hidden.sum() == len(set(np.asarray(task.query.y)[task.query.mask > 0])) + 1


def compact(batch):
    x, y, mask = map(np.asarray, batch)
    return jm.Batch(x[mask > 0], y[mask > 0])


@pytest.mark.parametrize("name", [row(n, core=n == "protonet") for n in [
    "maml", "protonet", "r2d2", "versa", "tim", "soft_kmeans"
]])  # fmt: skip
def test_every_family_learns_from_varying_sizes(name, blobs):
    entry = learners.REGISTRY[name]
    more = {"unlabelled": 1} if entry.unlabelled else {}
    sampler = jm.tasks.episodes(blobs, (2, 4), (1, 3), 2, **more)
    facts = facts_of(sampler, classes=20, features=TinyNetworks.width)
    fitting = {k: v for k, v in entry.tiny.items() if k != "ways"}
    learner = build(name, facts, TinyNetworks(facts), **fitting)
    evaluate = lambda params: jm.evaluate(
        learner, params, sampler, num_tasks=100, key=jax.random.key(2)
    )
    params = learner.init(jax.random.key(0))
    if entry.trains_on == "episodes":
        state = jm.fit(
            learner, sampler, optax.adam(3e-3), steps=200, key=jax.random.key(1)
        )
        before, after = evaluate(params), evaluate(state.params)
        assert after.mean["loss"] < before.mean["loss"]
        params = state.params
    with jax.enable_x64(True):
        params, task = double(params), double(one_task(sampler, jax.random.key(3)))
        loss = jax.jit(lambda params, task: learner.loss(params, task)[0])
        padded = loss(params, task)
        plain = loss(params, jm.Task(*map(compact, task)))
    np.testing.assert_allclose(padded, plain, rtol=1e-10)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ways": (5, 3)}, "ways: expected a whole number >= 5, got 3"),
        ({"ways": (1, 3)}, "ways: expected a whole number >= 2, got 1"),
        ({"shots": (1, 2, 3)}, r"shots: expected a whole number or \(fewest, most\)"),
        ({"shots": 2, "imbalanced": True}, "imbalanced: .*give shots="),
        ({"ways": (2, 13)}, "ways: 13 classes wanted"),
        ({"label_noise": 1.5}, "label_noise: expected"),
        (
            {"shots": (3, 9), "queries": 3},
            r"3 \+ 3 examples of each class wanted, class '0' .* has 4 \(2 classes .*"
            r"data.at_least\(6\)",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        jm.tasks.episodes(uneven(), **({"ways": 2, "queries": 1} | given))


def test_samplers_of_equal_sizes_share_a_program():
    assert Varied((2, 3), (1, 2), 1, False) == Varied((2, 3), (1, 2), 1, False)
    assert hash(MetaDataset()) == hash(MetaDataset((5, 50)))
    make = lambda: jm.tasks.episodes(uneven(), (2, 3), 1, 1)
    sample = jax.jit(lambda sampler, key: sampler.sample(key))
    for i in range(2):
        sample(make(), jax.random.key(i))
    assert sample._cache_size() == 1
    assert np.isfinite(sample(make(), jax.random.key(0)).support.x).all()


@pytest.mark.parametrize("most", [7, 30.0, "x"])
def test_meta_dataset_refuses_support_sets_smaller_than_its_ways(most):
    with pytest.raises(ValueError, match="most: expected a whole number >= 8, got"):
        jm.tasks.meta_dataset(uneven(4, 14), ways=(5, 8), most=most)
