"""What holds for any input: hypothesis draws shapes, masks, types and trees; numpy, a
loop or a symmetry says what is right, and what does not fit gets a sentence."""

import functools
import json
import math
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_softmax, logsumexp
from scipy.stats import norm, t

import jaxmeta as jm
from jaxmeta import batches, keys, policies, solvers, task_axis
from jaxmeta.training import log
from jaxmeta.training.evaluate import interval

N, WAYS = 6, 3
some = functools.partial(
    settings,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
few, many = some(max_examples=5), some(max_examples=12)
once = functools.cache(jax.jit)  # a program is compiled for a function

seeds = st.integers(0, 2**32 - 1)
finite = st.integers(-40, 40).map(lambda eighths: eighths / 8)  # none too small
dtypes = st.sampled_from([np.float16, jnp.bfloat16, np.float32])
names = st.text("abcdef", min_size=1, max_size=4)
masks = arrays(np.float32, N, elements=st.sampled_from([0.0, 1.0])).filter(np.any)


def numbers(*shape, elements=finite):
    return arrays(np.float32, shape, elements=elements)


def labels(n=N, ways=WAYS):
    return arrays(np.int32, n, elements=st.integers(0, ways - 1))


def trees(leaves):
    """Dicts and tuples of dicts and tuples of leaves; the outermost a dict."""
    inside = st.recursive(
        leaves,
        lambda part: (
            st.dictionaries(names, part, min_size=1, max_size=2) | st.tuples(part, part)
        ),
        max_leaves=3,
    )
    return st.dictionaries(names, inside, min_size=1, max_size=3)


def same(a, b, **how):
    """Two trees of one structure with equal arrays, of equal types."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.shape(p) == np.shape(q)
        assert jnp.result_type(p) == jnp.result_type(q)
        close(p, q, **how)


def close(a, b, rtol=2e-5, atol=2e-5):
    np.testing.assert_allclose(
        np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=rtol, atol=atol
    )


def refused(call, *args, **kwargs):
    """The sentence, which says what was expected."""
    with pytest.raises(ValueError) as error:
        call(*args, **kwargs)
    assert len(str(error.value).split()) > 3
    return str(error.value)


# losses -------------------------------------------------------------------------------


LOSSES = {
    "cross_entropy": lambda o, y: logsumexp(o, axis=1) - o[np.arange(len(o)), y],
    "binary_cross_entropy": lambda o, y: np.logaddexp(0, o) - o * y,
    "mse": lambda o, y: (o - y) ** 2,
}


def targets_of(name):
    if name == "cross_entropy":
        return labels()
    chances = st.floats(0, 1, width=32) if name.startswith("binary") else finite
    return numbers(N, WAYS, elements=chances)


@pytest.mark.parametrize("name", LOSSES)
@many
@given(data=st.data(), outputs=numbers(N, WAYS), dtype=dtypes)
def test_losses_are_numpys_and_keep_the_type(name, data, outputs, dtype):
    targets = data.draw(targets_of(name))
    loss = once(getattr(jm.losses, name))
    found = loss(outputs, targets)
    close(found, LOSSES[name](outputs.astype(float), targets))
    if targets.dtype == np.float32:
        targets = targets.astype(dtype)
    assert loss(outputs.astype(dtype), targets).dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
@many
@given(shapes=st.tuples(*[st.lists(st.integers(1, 3), max_size=3).map(tuple)] * 2))
def test_losses_refuse_shapes_that_do_not_fit(name, shapes):
    whole = name == "cross_entropy"
    fitting = shapes[0][:-1] if whole else shapes[0]
    assume(shapes[1] != fitting or shapes[0][-1:] == (1,) or (whole and not shapes[0]))
    targets = np.zeros(shapes[1], np.int32 if whole else np.float32)
    outputs = np.zeros(shapes[0], np.float32)
    if whole or shapes[1] != fitting:
        refused(getattr(jm.losses, name), outputs, targets)
    refused(getattr(jm.losses, name), {"a": outputs}, targets)
    refused(getattr(jm.losses, name), outputs, None)


@many
@given(values=numbers(N, 2), mask=masks)
def test_a_mean_leaves_out_what_is_masked(values, mask):
    mean = once(jm.losses.mean)
    close(mean(values, mask), values[mask > 0].mean())
    hidden = np.where(mask[:, None] > 0, values, np.nan)
    same(mean(hidden, mask), mean(values, mask))
    assert np.isnan(mean(values, 0 * mask))
    refused(jm.losses.mean, values, mask[1:])


@many
@given(outputs=numbers(N, WAYS), y=labels(), mask=masks)
def test_a_score_and_a_mean_loss_see_no_padding(outputs, y, mask):
    keep = mask > 0
    hidden = np.where(keep[:, None], outputs, np.nan)
    batch = jm.Batch(outputs, np.where(keep, y, 99).astype(np.int32), mask)
    wanted = np.mean(outputs[keep].argmax(1) == y[keep])
    close(once(jm.losses.score)(hidden, batch)["accuracy"], wanted)
    each = LOSSES["cross_entropy"](outputs.astype(float), y)
    found = once(cross_entropy_of)(np.where(keep[:, None], outputs, 0), batch)
    close(found, each[keep].mean())


def cross_entropy_of(outputs, batch):
    return jm.losses.mean_loss(jm.losses.cross_entropy, outputs, batch)


@many
@given(outputs=numbers(N, WAYS), mask=masks, y=arrays(np.bool_, (N, WAYS)))
def test_a_score_of_several_labels_counts_them(outputs, mask, y):
    found = once(jm.losses.score)(outputs, jm.Batch(outputs, y, mask))
    said, there = outputs[mask > 0] > 0, y[mask > 0]
    close(found["accuracy"], np.mean(said == there))
    some_there = said.sum() + there.sum()
    f1 = 2 * (said & there).sum() / some_there if some_there else 1
    close(found["f1"], f1)


@many
@given(shape=st.lists(st.integers(1, 4), min_size=1, max_size=3), logits=st.booleans())
def test_losses_say_what_they_are_about(shape, logits):
    outputs = np.zeros(shape)
    assert jm.losses.classes_of(outputs) == (max(2, shape[-1]) if shape[1:] else 2)
    mark = jm.losses.classification if logits else jm.losses.regression
    loss = functools.partial(mark(lambda o, y: o - y))
    assert jm.losses.outputs_of(loss) == ("logits" if logits else "values")
    kinds = {np.int32: True, np.uint8: True, np.bool_: False, np.float16: False}
    for dtype, are in kinds.items():
        assert jm.losses.are_labels(np.zeros(shape, dtype)) == are
    assert not jm.losses.are_labels({"a": outputs})


# metrics ------------------------------------------------------------------------------


def of_each_class(outputs, y):
    found, rows = outputs.argmax(1), []
    for k in sorted(set(y.tolist())):
        right = np.sum((found == k) & (y == k))
        said, wanted = np.sum(found == k), np.sum(y == k)
        rows.append((right / max(said, 1), right / wanted, 2 * right / (said + wanted)))
    precision, recall, f1 = np.mean(rows, axis=0)
    log_p = log_softmax(outputs.astype(float), axis=1)[np.arange(len(y)), y].mean()
    return {"f1": f1, "log_likelihood": log_p, "precision": precision, "recall": recall}


@many
@given(outputs=numbers(N, WAYS), y=labels(), mask=masks)
def test_scores_of_classes_are_those_of_a_loop(outputs, y, mask):
    keep = mask > 0
    y = np.where(keep, y, 99).astype(np.int32)
    score = once(jm.metrics.classification)
    found = score(outputs, jm.Batch(outputs, y, mask))
    wanted = of_each_class(outputs[keep], y[keep])
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        close(found[name], value)
    wrong = score(outputs, jm.Batch(outputs, np.where(keep, WAYS, y), mask))
    assert all(np.isnan(value) for value in wrong.values())
    refused(jm.metrics.classification, outputs, jm.Batch(outputs, y[1:]))
    refused(jm.metrics.classification, outputs, jm.Batch(outputs, y[:, None]))


@many
@given(
    pair=st.tuples(numbers(N, 2), numbers(N, 2, elements=st.floats(0.5, 2, width=32))),
    y=numbers(N, 2),
    mask=masks,
)
def test_scores_of_values_are_scipys(pair, y, mask):
    keep, score = mask > 0, once(jm.metrics.regression)
    query = jm.Batch(y, y, mask)
    mean, std = pair
    found = score(pair, query)
    close(found["mse"], np.mean((mean - y)[keep] ** 2), rtol=1e-4)
    wanted = norm.logpdf(y[keep], mean[keep], std[keep]).mean()
    close(found["log_likelihood"], wanted, rtol=1e-4)
    same(score(mean, query), {"mse": found["mse"]})
    refused(jm.metrics.regression, mean, jm.Batch(y, y[:, :1]))
    refused(jm.metrics.regression, mean[:, :1], jm.Batch(y, y[:, 0]))


# training -----------------------------------------------------------------------------


of_tasks = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9)


@many
@given(values=of_tasks, more=st.sampled_from([0.0, math.inf, math.nan]))
def test_a_summary_is_the_mean_and_students_interval(values, more):
    report = jm.training.summarize({"loss": [*values, more], "x": [*values, 0.0]})
    of = np.array([*values, 0.0])
    n = len(of)
    close(report.mean["x"], of.mean())
    close(report.ci95["x"], t.ppf(0.975, n - 1) * of.std(ddof=1) / n**0.5)
    assert report.num_tasks == n and report.diverged == (not math.isfinite(more))
    same(report.per_task["x"], of)
    assert f"({n} tasks" in str(report)


@pytest.mark.parametrize(
    "metrics",
    [{}, {"a": []}, {"a": 1.0}, {"a": [1.0, 2.0], "b": [1.0]}, {"a": [[1.0]]}],
    ids=str,
)
def test_a_summary_of_no_tasks_is_refused(metrics):
    refused(jm.training.summarize, metrics)


@many
@given(n=st.integers(2, 500), share=st.sampled_from([0.0, 1.0]))
def test_an_interval_of_a_share_is_never_certain(n, share):
    half = interval(np.full(n, share), share=True)
    assert (1 - half) ** n == pytest.approx(0.05)
    assert interval(np.full(n, share)) == 0
    assert math.isnan(interval(np.ones(1), share=True))


@many
@given(rows=arrays(np.float64, (3, 4), elements=st.floats(-9, 9)), alike=st.booleans())
def test_pooled_seeds_have_the_mean_of_all_in_any_order(rows, alike):
    reports = [jm.training.summarize({"loss": row}) for row in rows]
    found = jm.pooled(reports, same_tasks=alike)
    close(found.mean["loss"], rows.mean())
    assert found.num_tasks == (4 if alike else 12)
    again = jm.pooled(reports[::-1], same_tasks=alike)
    close(again.ci95["loss"], found.ci95["loss"], atol=1e-6)
    of_seeds = rows.mean(axis=1)
    half = t.ppf(0.975, 2) * of_seeds.std(ddof=1) / 3**0.5
    if alike:
        assert found.ci95["loss"] >= half - 1e-9
    else:
        close(found.ci95["loss"], half)
    refused(jm.pooled, reports[:1])
    refused(jm.pooled, reports[0])
    other = jm.training.summarize({"return": rows[0]})
    refused(jm.pooled, [reports[0], other])


told = st.floats(allow_nan=True, allow_infinity=True, width=64)


@many
@given(lines=st.lists(st.lists(told, min_size=2, max_size=2), max_size=6))
def test_a_log_is_read_as_it_was_written(lines):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        with jm.Log(path) as written:
            for i, values in enumerate(lines):
                written.chunk(i + 1, {"loss": np.array(values[:1])}, 2.0)
                report = jm.training.summarize({"loss": [0.0, 1.0]})
                mean = {"loss": values[1]}
                written.validation(i + 1, report._replace(mean=mean))
        found = log.read(path)
    as_read = lambda value: value if math.isfinite(value) else math.nan
    assert [line["step"] for line in found] == [i // 2 + 1 for i in range(len(found))]
    for i, values in enumerate(lines):
        close(found[2 * i]["loss"], as_read(values[0]), 0, 0)
        close(found[2 * i + 1]["validation_loss"], as_read(values[1]), 0, 0)
        assert found[2 * i]["steps_per_second"] == 0.5


lines_of_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda part: (
        st.lists(part, max_size=2)
        | st.dictionaries(st.sampled_from(["step", "resumed", "loss"]), part)
    ),
    max_leaves=4,
).map(json.dumps)


@some(max_examples=30)
@given(
    lines=st.lists(
        lines_of_json
        | st.text(max_size=9)
        | st.sampled_from(
            ['{"step": 2}', '{"resumed": "x"}', "[" * 100_000, "1" * 5000]
        ),
        max_size=4,
    )
)
def test_a_damaged_log_costs_its_lines(lines):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        whole = ['{"step": 1, "loss": 0.5}', *lines]
        path.write_text("\n".join(whole), encoding="utf-8", errors="replace")
        found = log.read(path)
    assert all(isinstance(line["step"], int) for line in found)


@many
@given(values=st.lists(told, min_size=1, max_size=9), lower=st.booleans())
def test_the_best_is_the_best_that_is_a_number(values, lower):
    best = jm.Best("f1", patience=3, lower=lower)
    for step, value in enumerate(values):
        best.told("f1", value, step)
    real = [value for value in values if not math.isnan(value)]
    wanted = (min if lower else max)(real) if real else None
    assert best.value == wanted
    first = values.index(wanted) if real else None
    assert best.step == first
    assert best.waited == len(values) - 1 - (-1 if first is None else first)
    assert best.over == (best.waited >= 3)


stored = st.sampled_from([np.float32, np.float16, jnp.bfloat16, np.int32, np.bool_])


@some(max_examples=3)
@given(
    params=trees(
        stored.flatmap(
            lambda dtype: arrays(np.int8, st.sampled_from([(), (1,), (2, 3)])).map(
                lambda a: a.astype(dtype)
            )
        )
    ),
    step=st.integers(0, 1000),
)
def test_a_checkpoint_gives_back_the_tree(params, step):
    state = jm.MetaState(params, (), np.int32(step))
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = jm.Checkpoints(folder)
        assert checkpoints.latest(state) is None
        checkpoints.save(state)
        found = checkpoints.latest(jax.tree.map(np.zeros_like, state))
        checkpoints.close()
    same(found, state, rtol=0, atol=0)


# data ---------------------------------------------------------------------------------


def examples(least=1):
    """Labels in any order, of three classes at most, with at least so many of each."""
    more = st.lists(st.sampled_from("abc"), max_size=6)
    return more.flatmap(lambda more: st.permutations([*"abc" * least, *more]))


def of(letters, **how):
    """A data set whose examples are their places, and a tree of them."""
    places = np.arange(len(letters), dtype=np.float32)
    return jm.data.from_arrays(
        {"a": places[:, None], "b": (places.astype(int),)}, letters, **how
    )


@many
@given(letters=examples())
def test_a_data_set_has_each_example_once_in_its_class(letters):
    data = of(letters, targets=np.arange(len(letters)))
    assert data.classes == tuple(sorted(set(letters)))
    assert data.counts.sum() == len(letters)
    for i, name in enumerate(data.classes):
        wanted = [place for place, letter in enumerate(letters) if letter == name]
        assert data.of(name)["a"][:, 0].tolist() == wanted
        assert data.of(i)["b"][0].tolist() == wanted
    assert data.origin.tolist() == data.targets.tolist()
    same(data.read(np.array([0]))["a"][0], data.example["a"])
    for wrong in (letters[1:], [letters], [], [0, *letters[1:]]):
        refused(jm.data.from_arrays, np.zeros((len(letters), 1)), wrong)


@many
@given(
    value=st.sampled_from([math.nan, math.inf, 1e39, -1e300, 2**31, -(2**40)]),
    place=st.integers(0, 3),
    argument=st.sampled_from(["x", "targets"]),
)
def test_numbers_that_32_bits_cannot_hold_are_refused(value, place, argument):
    column = np.zeros((4, 1), np.int64 if isinstance(value, int) else np.float64)
    column[place] = value
    x = column if argument == "x" else np.zeros((4, 1))
    refused(jm.data.from_arrays, x, [*"aabb"], targets=column)


@many
@given(letters=examples(), chosen=st.lists(st.sampled_from("abc"), max_size=4))
def test_selected_classes_are_those_in_that_order(letters, chosen):
    data = of(letters, targets=np.arange(len(letters)))
    if len(set(chosen)) < len(chosen):
        refused(data.select, chosen)
        return
    found = data.select(chosen)
    assert found.classes == tuple(chosen)
    for name in chosen:
        same(found.of(name), data.of(name))
    assert found.x["b"][0].tolist() == found.targets.tolist()
    for wrong in (["d"], [3], [-1], [1.0], "a", 1, None):
        refused(data.select, wrong)


@many
@given(letters=examples(), least=st.integers(0, 6))
def test_classes_that_are_left_have_enough_examples(letters, least):
    data = of(letters)
    large = [c for c in data.classes if letters.count(c) >= least]
    if not large or not least:
        refused(data.at_least, least)
    else:
        assert data.at_least(least).classes == tuple(large)


@many
@given(shares=st.lists(st.floats(-0.1, 1), min_size=1, max_size=3), seed=seeds)
def test_splits_are_disjoint_and_as_large_as_their_shares(shares, seed):
    data = jm.data.from_arrays(np.zeros((10, 1)), np.arange(10))
    parts = {f"part{i}": np.float32(share) for i, share in enumerate(shares)}
    ends = np.round(10 * np.cumsum([*parts.values()])).astype(int)
    if min(shares) <= 0 or sum(parts.values()) > 1 or 0 in np.diff(ends, prepend=0):
        refused(data.splits, seed=seed, **parts)
        return
    found = data.splits(seed=seed, **parts)
    classes = [c for part in found.values() for c in part.classes]
    assert len(set(classes)) == len(classes) == ends[-1]
    assert [part.split for part in found.values()] == [*parts]
    again = data.splits(seed=seed, **parts)
    assert {n: d.classes for n, d in again.items()} == {
        n: d.classes for n, d in found.items()
    }
    refused(data.splits, train=None, test=["1"])
    refused(data.splits, train=1, test=["1"])


@many
@given(letters=st.tuples(examples(), examples()))
def test_joined_data_sets_have_the_classes_of_each(letters):
    parts = [of(own, name=name) for own, name in zip(letters, "pq", strict=True)]
    whole = jm.data.joined(*parts)
    for part in parts:
        for name in part.classes:
            same(whole.of(f"{part.name}/{name}"), part.of(name))
    plain = jm.data.from_arrays(np.zeros((4, 1)), [*"wwww"])
    targets = jm.data.from_arrays(np.zeros((4, 1)), [*"wwww"], targets=np.zeros(4))
    records = jm.data.from_records([np.zeros(1)] * 2, [*"uv"])
    for wrong in ((), (parts[0], plain), (plain, targets), (records, records), (None,)):
        refused(jm.data.joined, *wrong)


cells = st.floats(width=32, allow_nan=False, allow_infinity=False)


@many
@given(
    table=st.lists(st.tuples(cells, cells, st.text("xyz", min_size=1)), min_size=1),
    gap=st.sampled_from(["", " ", "  "]),
)
def test_a_table_is_read_as_it_was_written(table, gap):
    rows = ["u,v,label", *(f"{u!r},{gap}{v!r},{c}{gap}" for u, v, c in table)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        path.write_text("\n".join(rows))
        data = jm.data.from_csv(path)
        path.write_text("\n".join([*rows, "1,word,x"]))
        refused(jm.data.from_csv, path)
    ours = jm.data.from_arrays(
        np.array([row[:2] for row in table], np.float32), [row[2] for row in table]
    )
    assert data.classes == ours.classes and data.counts.tolist() == ours.counts.tolist()
    same(data.x, ours.x, rtol=0, atol=0)


@some(max_examples=30)
@given(content=st.binary(max_size=30) | st.text("ab1,\n\"' .-e_", max_size=30))
def test_any_file_is_a_table_or_refused(content):
    content = content if isinstance(content, bytes) else content.encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        path.write_bytes(b"label,a\n" + content)
        try:
            data = jm.data.from_csv(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert np.isfinite(data.x).all() and data.x.dtype == np.float32


# solvers ------------------------------------------------------------------------------


@many
@given(x=numbers(N, 2), y=numbers(N, 3), penalty=st.floats(0.5, 5, width=32))
def test_ridge_solves_its_equation_in_both_spaces(x, y, penalty):
    ridge = once(solvers.ridge)
    for a in (x, x.T):  # fewer features than examples, and more
        b = y[: len(a)]
        wanted = np.linalg.solve(
            (a.T @ a).astype(float) + penalty * np.eye(a.shape[1]), a.T @ b
        )
        close(ridge(a, b, penalty), wanted, rtol=1e-3, atol=1e-3)
    padded = ridge(np.pad(x, ((0, 2), (0, 0))), np.pad(y, ((0, 2), (0, 0))), penalty)
    close(padded, ridge(x, y, penalty), rtol=1e-3, atol=1e-3)


@many
@given(x=numbers(N, 2), y=labels(ways=2), mask=masks)
def test_logistic_regression_is_stationary_and_sees_no_padding(x, y, mask):
    logistic, y = once(solvers.logistic), y.astype(np.float32)
    w = np.asarray(logistic(x, y, 1.0, counts=mask))
    slope = x.T @ (mask * (expit(x @ w) - y)) + w
    close(slope, np.zeros(2), atol=2e-3)
    other = np.where(mask[:, None] > 0, x, 3)
    close(logistic(other, np.where(mask > 0, y, 1 - y), 1.0, counts=mask), w)


@many
@given(cost=numbers(4, 5), masses=numbers(9, elements=st.sampled_from([0.0, 0.5, 1.0])))
def test_a_transport_plan_has_its_masses(cost, masses):
    rows, columns = masses[:4], masses[4:]
    assume(rows.any() and columns.any())
    rows, columns = rows / rows.sum(), columns / columns.sum()
    plan = np.asarray(once(solvers.sinkhorn)(cost, rows, columns))
    assert (plan >= 0).all() and not plan[rows == 0].any()
    close(plan.sum(0), columns, atol=1e-4)
    order = np.arange(4)[::-1]
    close(
        once(solvers.sinkhorn)(cost[order], rows[order], columns), plan[order], 0, 1e-3
    )


@many
@given(z=numbers(N, 3), y=labels(), mask=masks, penalty=st.sampled_from([0.1, 1.0]))
def test_the_dual_of_an_svm_keeps_its_bounds(z, y, mask, penalty):
    onehot = np.asarray(batches.one_hot(y, WAYS, mask, np.float32))
    alpha, solved = once(solvers.svm_dual)(z @ z.T + np.eye(N), onehot, penalty)
    alpha = np.asarray(alpha)
    assert solved.dtype == bool and solved.shape == ()
    close(alpha.sum(0), np.zeros(N), atol=1e-4 * N)
    assert (alpha <= penalty * onehot.T + 1e-4).all()
    close(alpha[:, mask == 0], 0 * alpha[:, mask == 0], atol=1e-4)


# scores of a pair of domains ----------------------------------------------------------


PAIRED = np.array([0, 1, 1, 0, -1, -1, -1, -1], np.int32)
flags = arrays(np.float32, 8, elements=st.sampled_from([0.0, 1.0])).filter(
    lambda m: m[:2].all() and m[4:].any()
)


@many
@given(x=numbers(8, 2), mask=flags)
def test_a_ratio_of_densities_is_of_source_examples_that_count(x, mask):
    ratio = once(ratio_of)(x, jm.Batch(x, PAIRED, mask))
    there = (mask > 0) & (PAIRED >= 0)
    assert (np.asarray(ratio)[there] > 0).all() and not ratio[~there].any()
    other = np.where(mask[:, None] > 0, x, 3)
    close(once(ratio_of)(other, jm.Batch(x, PAIRED, mask)), ratio, rtol=1e-3)


def ratio_of(z, batch):
    return jm.scores.density_ratio(z, batch, penalty=1.0)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("importance_weighted", 0, 1),
        ("prediction_entropy", -math.log(2), 0),
        ("soft_neighbourhood_density", 0, math.log(4)),
        ("circular_validation", 0, 1),
    ],
)
@few
@given(x=numbers(8, 2), mask=flags)
def test_scores_of_a_pair_of_domains_see_no_padding(name, low, high, x, mask):
    score = scorer(name)
    found = score(x, PAIRED, mask)
    assert low - 1e-5 <= found <= high + 1e-5
    keep = mask > 0
    close(score(np.where(keep[:, None], x, np.nan), PAIRED, mask), found)
    refused(scored, name, x, np.zeros(8, np.int32), mask)


@functools.cache
def scorer(name):
    return jax.jit(functools.partial(scored, name))


def scored(name, x, y, mask):
    batch = jm.Batch(x, y, mask)
    blank = batches.blank_padding(jm.Batch(*map(jnp.asarray, batch)))
    given = () if name == "circular_validation" else class_means((), blank)
    return getattr(jm.scores, name)(JUDGE, given, batch)


def class_means(params, support, key=None):
    onehot = batches.one_hot(support.y, 2, support.mask, jnp.float32)
    return onehot.T @ support.x / jnp.maximum(onehot.sum(0), 1)[:, None]


def nearness(means, x, mask=None):
    return -jnp.sum(jnp.square(x[:, None] - means[None]), axis=2)


JUDGE = jm.MetaLearner(lambda key: (), class_means, nearness, lambda *task: None)


# transfer -----------------------------------------------------------------------------


layers = st.fixed_dictionaries(
    {"kernel": numbers(3, 3, 2, 2) | numbers(3, 2), "bias": numbers(2)}
) | st.fixed_dictionaries({"scale": numbers(2), "offset": numbers(2)})
networks = st.dictionaries(names, layers, max_size=2).flatmap(
    lambda body: st.fixed_dictionaries(
        {"kernel": numbers(2, 3), "bias": numbers(3)}
    ).map(lambda head: body | {"head": head})
)
PARTITIONS = {
    "full": jm.transfer.full(),
    "linear_probe": jm.transfer.linear_probe(),
    "bitfit": jm.transfer.bitfit(),
    "film": jm.transfer.film(),
    "adapters": jm.transfer.adapters(),
    "lora": jm.transfer.lora(1, alpha=2.0),
}


@pytest.mark.parametrize("name", PARTITIONS)
@few
@given(params=networks, seed=seeds)
def test_what_moves_starts_from_the_parameters(name, params, seed):
    part = PARTITIONS[name]
    kernels = [w["kernel"] for w in params.values() if "kernel" in w]
    if name == "adapters" and not any(w.ndim == 4 for w in kernels):
        refused(part.init, params)
        return
    moved = part.init(params, jax.random.key(seed))
    same(jax.tree.map(np.asarray, part.merge(params, moved)), params)
    assert jax.tree.leaves(moved) and set(moved) <= set(params)
    away = part.merge(params, jax.tree.map(lambda a: a + 1.0, moved))
    for layer, there in params.items():
        for array, w in there.items():
            stays = array not in moved.get(layer, {})
            if stays or w.any():  # nothing times a scale is nothing
                assert np.array_equal(away[layer][array], w) == stays
    refused(part.merge, params, {"nowhere": params["head"]})


@many
@given(params=networks, weight=st.floats(0, 2, width=32), apart=finite)
def test_a_pull_to_the_start_is_as_strong_as_the_way(params, weight, apart):
    rule = jm.transfer.l2_sp(weight)
    state = rule.init(params)
    now = jax.tree.map(lambda w: w + np.float32(apart), params)
    found, _ = rule.update(params, state, now)
    close_tree(found, jax.tree.map(lambda g: g + weight * apart, params))


def close_tree(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda p, q: close(p, q, atol=1e-4), a, b)


@many
@given(params=networks, decay=st.floats(0.125, 1, width=32))
def test_steps_fall_layer_by_layer(params, decay):
    layers = tuple(sorted(params, key=lambda name: name == "head"))
    rule = jm.transfer.by_depth(optax.scale(-1.0), decay, layers)
    found, _ = rule.update(params, rule.init(params), params)
    wanted = {
        name: jax.tree.map(
            lambda g, d=len(layers) - 1 - i: -(decay**d) * g, params[name]
        )
        for i, name in enumerate(layers)
    }
    close_tree(found, {name: wanted[name] for name in found})
    if len(layers) > 1:
        less = jm.transfer.by_depth(optax.scale(-1.0), decay, layers[1:])
        refused(less.init, params)


@many
@given(params=networks, torch=st.booleans())
def test_renamed_parameters_are_the_tree_again(params, torch):
    flat, given = {}, {}
    for layer, there in params.items():
        for array, w in there.items():
            turn = torch and w.ndim > 1
            theirs = np.moveaxis(w, (-1, -2), (0, 1)) if turn else w
            flat[f"{layer}/{array}"] = f"{array}.{layer}"
            given[f"{array}.{layer}"] = theirs
    found = jm.transfer.renamed(given, flat, layout="torch" if torch else None)
    same(found, params, rtol=0, atol=0)
    first = next(iter(flat))
    refused(jm.transfer.renamed, given, flat | {first: "nowhere"})
    refused(jm.transfer.renamed, given, flat | {f"{first}/more": flat[first]})


# batches and the tools of a test ------------------------------------------------------


inputs = st.builds(
    lambda a, b, i: {"a": a, "b": (b, i)},
    numbers(N, 2),
    numbers(N, 1, 3),
    labels(ways=9),
)


@many
@given(x=inputs, y=labels(), mask=st.none() | masks, extra=st.sampled_from([0, 2]))
def test_padding_is_appended_and_counts_for_nothing(x, y, mask, extra):
    batch = jm.Batch(x, y, mask)
    found = jm.testing.pad(batch, extra, np.nan)
    assert batches.examples(found) == N + extra
    whole = np.ones(N, np.float32) if mask is None else mask
    same(jax.tree.map(lambda a: a[:N], found), batch._replace(mask=whole))
    assert not found.mask[N:].any() and (found.y[N:] == 99).all()
    blank = once(batches.blank_padding)(found)
    first = int(np.argmax(whole > 0))
    for a, b in zip(jax.tree.leaves(blank.x), jax.tree.leaves(x), strict=True):
        same(np.asarray(a)[:N][whole > 0], b[whole > 0])
        hidden = np.asarray(a)[np.asarray(found.mask) == 0]
        close(hidden, np.broadcast_to(b[first], hidden.shape))


@many
@given(a=trees(numbers(2, 3)), step=st.floats(0, 2, width=32))
def test_the_largest_difference_is_zero_of_the_same_alone(a, step):
    assert jm.testing.largest_difference(a, a) == 0
    leaves = jax.tree.leaves(a)
    largest = max(np.abs(leaf).max() for leaf in leaves)
    other = jax.tree.map(lambda leaf: leaf + step, a)
    moved = max(
        np.abs(p.astype(float) - q).max()
        for p, q in zip(jax.tree.leaves(other), leaves, strict=True)
    )
    found = jm.testing.largest_difference(other, a)
    wanted = moved / largest if largest else (math.inf if moved else 0)
    assert found == pytest.approx(wanted)


@many
@given(
    pair=st.tuples(*[arrays(np.uint8, 3) | arrays(np.bool_, 3)] * 2),
)
def test_differences_of_whole_numbers_are_no_remainders(pair):
    a, b = pair
    apart = np.abs(a.astype(int) - b.astype(int)).max()
    scale = b.astype(int).max()
    wanted = apart / scale if scale else (math.inf if apart else 0)
    assert jm.testing.largest_difference(a, b) == pytest.approx(wanted)


@few
@given(tree=trees(numbers(2) | labels(2)))
def test_double_widens_what_floats_and_nothing_else(tree):
    with jax.enable_x64(True):
        found = jm.testing.double(tree)
    assert jax.tree.structure(found) == jax.tree.structure(tree)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(tree), strict=True):
        assert a.dtype == (np.float64 if b.dtype == np.float32 else b.dtype)
        close(a, b, rtol=0, atol=0)


@many
@given(x=inputs, y=labels(), own=st.tuples(*[st.none() | masks] * 2))
def test_two_batches_are_one_after_the_other(x, y, own):
    found = batches.concatenate(jm.Batch(x, y, own[0]), jm.Batch(x, y, own[1]))
    twice = lambda a: np.concatenate([a, a])
    same(found.x, jax.tree.map(twice, x))
    same(found.y, twice(y))
    if all(m is None for m in own):
        assert found.mask is None
    else:
        ones = np.ones(N, np.float32)
        same(found.mask, np.concatenate([ones if m is None else m for m in own]))


@many
@given(x=inputs, y=labels(ways=5), mask=masks, dtype=dtypes)
def test_a_table_of_a_tree_and_rows_of_labels(x, y, mask, dtype):
    flat = np.concatenate([a.reshape(N, -1) for a in jax.tree.leaves(x)], axis=1)
    same(batches.columns(x), flat.astype(np.float32))
    same(batches.columns(x["a"]), x["a"])
    rows = batches.one_hot(y, WAYS, mask, dtype)
    assert rows.dtype == dtype
    close(rows, np.eye(5)[y][:, :WAYS] * mask[:, None])
    wide = batches.precise(jnp.asarray(x["a"].astype(dtype)))
    assert wide.dtype == np.float32
    tagged = jm.types.Tagged(x, np.zeros(3))
    same(batches.untagged(tagged), x)
    doubled = batches.of_examples(lambda a: a + a, tagged)
    same(doubled.x, jax.tree.map(lambda a: a + a, x))


@few
@given(x=inputs, seed=seeds)
def test_shuffled_rows_stay_together(x, seed):
    rows = x | {"number": np.arange(N)}
    found = batches.shuffled(jax.random.key(seed), rows)
    order = np.asarray(found["number"])
    assert sorted(order) == [*range(N)]
    same(found, jax.tree.map(lambda a: jnp.asarray(a[order]), rows))
    assert batches.shuffled(None, rows) is rows


# the task axis, keys, the outer loop --------------------------------------------------


@many
@given(a=numbers(N, 2), b=numbers(N), at_once=st.sampled_from([None, 1, 2, 4, 6, 9]))
def test_tasks_at_once_are_tasks_one_by_one(a, b, at_once):
    found = run_at_once(at_once)({"a": a}, b)
    wanted = [one_of({"a": p}, q) for p, q in zip(a, b, strict=True)]
    close(found["sum"], [w["sum"] for w in wanted])
    close(found["pair"][0], a * b[:, None])
    assert task_axis.number_of({"a": a, "b": b}) == N
    alone = task_axis.over_tasks(one_of)({"a": a[:1]}, b[:1])
    close(alone["sum"], found["sum"][:1])


def one_of(tree, b):
    return {"sum": tree["a"].sum() + b, "pair": (tree["a"] * b,)}


@functools.cache
def run_at_once(at_once):
    return jax.jit(task_axis.over_tasks(one_of, at_once))


@many
@given(
    tree=trees(
        arrays(
            np.float32,
            (2,),
            elements=st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf]),
        )
        | arrays(np.int32, (2,))
    )
)
def test_a_tree_is_finite_if_each_number_is(tree):
    wanted = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
    assert bool(task_axis.finite(tree)) == wanted


@functools.cache
def gradient_at_once(at_once):
    def mean(w, tasks):
        each = jnp.square(tasks.query.y - w["w"])[:, 0]
        return jnp.mean(each), {"loss": jnp.mean(each)}

    return jax.jit(task_axis.gradient_over_tasks(mean, at_once))


@many
@given(y=numbers(6, 1), w=finite, at_once=st.sampled_from([1, 2, 3, 6, 7]), bad=masks)
def test_gradients_of_chunks_are_that_of_all_but_what_diverged(y, w, at_once, bad):
    tasks = lambda y: jm.Task(jm.Batch(y, y), jm.Batch(y, y))
    params, of = {"w": np.float32(w)}, gradient_at_once(at_once)
    (value, means), slope, left_out = of(params, tasks(y))
    close(value, np.mean((y - w) ** 2), rtol=1e-4)
    close(slope["w"], 2 * np.mean(w - y), rtol=1e-4, atol=1e-4)
    same(means["loss"], value)
    assert left_out == 0
    if at_once == 1 and not bad.all():
        broken = np.where(bad[:, None] > 0, np.nan, y)
        kept = y[bad == 0]
        (value, _), slope, left_out = of(params, tasks(broken))
        close(value, np.mean((kept - w) ** 2), rtol=1e-4)
        close(slope["w"], 2 * np.mean(w - kept), rtol=1e-4, atol=1e-4)
        close(left_out, bad.mean())
    four = task_axis.gradient_over_tasks(lambda *a: None, 4)
    refused(four, params, tasks(y))


@few
@given(seed=seeds, first=st.integers(0, 5))
def test_streams_of_keys_never_meet(seed, first):
    key = lambda: jax.random.key(seed)
    run = [keys.data(key()), keys.init(key()), keys.validation(key())]
    run += [keys.purpose(key(), "sizes"), keys.adapt(key())]
    run += [*keys.tasks(key(), 3, 3), *jax.random.split(keys.fold(key(), 99), 2)]
    found = {tuple(jax.random.key_data(k).tolist()) for k in run}
    assert len(found) == len(run)
    several = keys.tasks(key(), 3, first)
    for i, own in enumerate(several):
        wanted = jax.random.fold_in(key(), first + i)
        assert (jax.random.key_data(own) == jax.random.key_data(wanted)).all()
    of_step = keys.parts(keys.step(key(), first))
    assert len({tuple(jax.random.key_data(k).tolist()) for k in of_step}) == 2


@many
@given(
    start=trees(numbers(2)),
    pushes=st.lists(finite, max_size=4),
    decay=st.floats(0, 0.99),
)
def test_an_average_of_parameters_is_exponential(start, pushes, decay):
    def push(state, sampler, key):
        del key
        params = jax.tree.map(lambda w: w + np.float32(sampler), state.params)
        return jm.MetaState(params, (), state.step + 1), {}

    outer = jm.ema(jm.Outer(lambda key: jm.MetaState(start, (), 0), push), decay)
    state, wanted, now = outer.init(None), start, start
    for amount in pushes:
        state, _ = outer.step(state, amount, None)
        now = jax.tree.map(lambda w, a=amount: w + np.float32(a), now)
        wanted = jax.tree.map(lambda m, w: decay * m + (1 - decay) * w, wanted, now)
    close_tree(state.params, wanted)
    assert state.step == len(pushes)
    refused(jm.ema, jm.Outer(outer.init, push), 1 + decay)


# tasks --------------------------------------------------------------------------------


CLASSES, EACH = 6, 8
PLACES = np.arange(CLASSES * EACH)
BY_CLASS = jm.data.from_arrays(
    PLACES[:, None].astype(np.float32),
    PLACES // EACH,
    groups=["even" if c % 2 == 0 else "odd" for c in PLACES // EACH],
)
EPISODES = {
    "fixed": {"ways": 3, "shots": 2, "queries": 3},
    "ranges": {"ways": (2, 4), "shots": (1, 3), "queries": 2, "imbalanced": True},
    "unlabelled": {
        "ways": 2,
        "shots": 1,
        "queries": 2,
        "unlabelled": 2,
        "distractors": 1,
    },
    "groups": {"ways": 3, "shots": 1, "queries": 2, "within_groups": True},
}


@functools.cache
def sampler_of(name):
    """A sampler, and its `sample` as one program."""
    made = SAMPLERS[name]()
    return made, jax.jit(made.sample)


def drawn(name, seed):
    """One task, the same each time, as arrays of numpy."""
    _, sample = sampler_of(name)
    task = jax.device_get(sample(jax.random.key(seed)))
    same(jax.device_get(sample(jax.random.key(seed))), task, rtol=0, atol=0)
    return task


SAMPLERS = {
    f"episodes-{name}": functools.partial(jm.tasks.episodes, BY_CLASS, **how)
    for name, how in EPISODES.items()
}
SAMPLERS["meta_dataset"] = functools.partial(
    jm.tasks.meta_dataset, BY_CLASS, ways=(2, 4), most=12, queries=2
)


def counted(batch):
    """Places and labels of the examples that count."""
    keep = np.ones(len(batch.y)) if batch.mask is None else batch.mask
    return batch.x[keep > 0, 0].astype(int), batch.y[keep > 0]


@pytest.mark.parametrize("name", list(SAMPLERS))
@few
@given(seed=seeds)
def test_episodes_have_no_example_twice_and_a_class_a_label(name, seed):
    sampler, _ = sampler_of(name)
    task = drawn(name, seed)
    (support, y), (query, wanted) = map(counted, task)
    together = np.concatenate([support, query])
    assert len(set(together.tolist())) == len(together)
    ways = len(set(wanted.tolist()))
    assert set(wanted.tolist()) == set(range(ways)) == set(y.tolist()) - {-1}
    assert ways <= sampler.ways
    of_label = dict(zip(wanted.tolist(), (query // EACH).tolist(), strict=True))
    assert len(set(of_label.values())) == ways
    assert [of_label[k] for k in wanted.tolist()] == (query // EACH).tolist()
    labelled = y >= 0
    assert [of_label[k] for k in y[labelled].tolist()] == (
        support[labelled] // EACH
    ).tolist()
    how = EPISODES.get(name.removeprefix("episodes-"), {})
    if how.get("within_groups"):
        assert len({c % 2 for c in of_label.values()}) == 1
    if name == "episodes-fixed":
        assert task.support.x.shape == (6, 1) and task.query.x.shape == (9, 1)
    if how.get("unlabelled"):
        hidden = support[~labelled] // EACH
        assert len(hidden) == 6 and len(set(hidden) - set(of_label.values())) == 1


@few
@given(seed=seeds)
def test_minibatches_have_the_labels_of_their_classes(seed):
    task = drawn("classes", seed)
    places, y = counted(task.support)
    assert len(places) == 5 and (y == places // EACH).all()
    same(task.query, task.support)


def test_all_minibatches_together_have_each_example_once():
    seen = [counted(jax.device_get(b)) for b in sampler_of("classes")[0].everything()]
    places = np.concatenate([places for places, _ in seen])
    assert sorted(places) == PLACES.tolist()
    assert all((y == places // EACH).all() for places, y in seen)


@few
@given(seed=seeds)
def test_a_task_of_a_table_has_rows_of_one_task(seed):
    task = drawn("by_task", seed)
    (support, y), (query, wanted) = map(counted, task)
    together = np.concatenate([support, query])
    assert len(set(together.tolist())) == len(together)
    assert len({*(together // EACH)}) == 1 and len(query) == 2
    assert (y == 2 * support).all() and (wanted == 2 * query).all()


TAGS = np.arange(24)[:, None] % np.array([2, 3, 4, 5])[None, :] == 0


@few
@given(seed=seeds)
def test_an_episode_of_several_labels_has_an_example_once(seed):
    task = drawn("multi_label", seed)
    assert task.support.y.shape == (4, 2) and task.support.y.dtype == bool
    (support, y), (query, wanted) = map(counted, task)
    together = np.concatenate([support, query])
    assert len(set(together.tolist())) == len(together)
    columns = TAGS[together].T.tolist()
    for label in np.concatenate([y, wanted]).T.tolist():
        assert label in columns


IMAGES = np.random.default_rng(0).random((3, 3, 4, 2)).astype(np.float32)


@few
@given(seed=seeds)
def test_a_completed_image_has_its_own_pixels(seed):
    task = drawn("image_completion", seed)
    assert task.support.x.shape == (5, 2) and task.query.y.shape == (4, 2)
    keep = task.support.mask > 0
    assert 2 <= keep.sum() <= 5
    places = np.concatenate([task.support.x, task.query.x])
    values = np.concatenate([task.support.y, task.query.y])
    rows, columns = np.round(places * np.array([[2, 3]])).astype(int).T
    assert len({*zip(rows.tolist(), columns.tolist(), strict=True)}) == 9
    assert any(np.allclose(image[rows, columns], values) for image in IMAGES)


FUNCTIONS = {
    "sinusoid": (jm.tasks.sinusoid, {"x_range": (-1.0, 2.0)}),
    "sinusoid_or_line": (jm.tasks.sinusoid_or_line, {"x_range": (-1.0, 2.0)}),
    "harmonics": (jm.tasks.harmonics, {"x_range": (-1.0, 2.0)}),
    "quadratic": (jm.tasks.quadratic, {"x_range": (-1.0, 2.0)}),
    "linear": (jm.tasks.linear, {"dims": 1}),
}
SAMPLERS |= {
    name: functools.partial(make, shots=4, queries=5, **how)
    for name, (make, how) in FUNCTIONS.items()
}
SAMPLERS |= {
    "classes": functools.partial(jm.tasks.classes, BY_CLASS, batch=5),
    "by_task": lambda: jm.tasks.by_task(
        jm.data.from_arrays(BY_CLASS.x, PLACES // EACH, targets=2 * BY_CLASS.x[:, 0]),
        (1, 3),
        queries=2,
    ),
    "multi_label": lambda: jm.tasks.multi_label(
        jm.data.from_arrays(
            np.arange(24.0)[:, None], ["all"] * 24, targets=TAGS.astype(int)
        ),
        *(2, 2, 2),
    ),
    "image_completion": lambda: jm.tasks.image_completion(IMAGES, (2, 5), queries=4),
    "gaussian_process": lambda: jm.tasks.gaussian_process(points=9),
    "tables": lambda: jm.tasks.tables(columns=3, ways=3, shots=5, queries=4),
    "mixed": lambda: jm.tasks.mixed(
        [jm.tasks.sinusoid(4, 5, amplitude=(a, a), phase=(0, 0)) for a in (0.5, 4.0)]
    ),
    "changed": lambda: jm.tasks.changed(
        jm.tasks.sinusoid(4, 5, x_range=(-1.0, 2.0)),
        support=lambda key, batch: batch._replace(y=batch.y + 1),
    ),
    "domains": lambda: jm.tasks.domains(
        BY_CLASS,
        jm.data.from_arrays(BY_CLASS.x + 100, PLACES // EACH),
        sources=8,
        targets=4,
        queries=3,
    ),
    "shifted": lambda: jm.tasks.shifted(BY_CLASS, sources=8, targets=4, queries=3),
    "rotated": lambda: jm.tasks.rotated(
        jm.data.from_arrays(np.concatenate([BY_CLASS.x] * 2, 1), PLACES // EACH),
        (90, 90),
        sources=8,
        targets=4,
        queries=3,
    ),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@few
@given(seed=seeds)
def test_functions_have_points_in_their_range(name, seed):
    task = drawn(name, seed)
    for batch, n in zip(task, (4, 5), strict=True):
        assert batch.x.shape == batch.y.shape == (n, 1)
        assert batch.x.dtype == batch.y.dtype == np.float32
        assert np.isfinite(batch.x).all() and np.isfinite(batch.y).all()
        if name != "linear":
            assert (batch.x >= -1).all() and (batch.x <= 2).all()
    if name == "linear":
        sampler, _ = sampler_of(name)
        mean, std = once(sampler.posterior)(task.support, task.query.x)
        turned = jax.tree.map(lambda a: a[::-1], task.support)
        same(once(sampler.posterior)(turned, task.query.x)[0], mean, atol=1e-3)
        assert (np.asarray(std) >= sampler.noise - 1e-4).all()


@few
@given(seed=seeds)
def test_processes_and_tables_have_the_sizes_they_say(seed):
    task = drawn("gaussian_process", seed)
    sizes = [int(batch.mask.sum()) for batch in task]
    assert min(sizes) >= 3 and sum(sizes) <= 8
    assert task.support.x.shape == task.query.y.shape == (5, 1)
    assert all((np.abs(batch.x) <= 2).all() for batch in task)
    task = drawn("tables", seed)
    assert task.support.x.shape == (5, 3) and task.query.y.shape == (4,)
    y = np.concatenate([task.support.y, task.query.y])
    assert np.bincount(y).tolist() == [3, 3, 3]


@few
@given(seed=seeds)
def test_samplers_of_samplers_draw_their_tasks(seed):
    task = drawn("mixed", seed)
    x, y = (np.concatenate([getattr(b, part) for b in task]) for part in "xy")
    assert any(np.allclose(y, a * np.sin(x), atol=1e-4) for a in (0.5, 4.0))
    plain, task = drawn("sinusoid", seed), drawn("changed", seed)
    close(task.support.y, plain.support.y + 1)
    same(task.query, plain.query)


@pytest.mark.parametrize("name", ["domains", "shifted", "rotated"])
@few
@given(seed=seeds)
def test_a_pair_of_domains_shares_no_example(name, seed):
    task = drawn(name, seed)
    y, wanted = task.support.y, task.query.y
    assert y.tolist()[8:] == [-1] * 4 and set(y[:8].tolist()) == set(range(CLASSES))
    assert len(wanted) == 3
    places = task.support.x[:8, 0].astype(int)
    assert (places // EACH == y[:8]).all() and len({*places.tolist()}) == 8
    if name == "domains":
        target = np.concatenate([task.support.x[8:], task.query.x])[:, 0] - 100
        assert (target[4:].astype(int) // EACH == wanted).all()
        assert len({*target.tolist()}) == 7
    if name == "rotated":  # (a, a) turned by 90 degrees is (-a, a)
        turned = np.concatenate([task.support.x[8:], task.query.x])
        close(turned[:, 0], -turned[:, 1], atol=1e-3)
        target = np.round(turned[:, 1]).astype(int)
        assert not set(target.tolist()) & set(places.tolist())


@some(max_examples=3)
@given(seed=seeds, n=st.integers(1, 3), x=trees(numbers(2, 1)))
def test_tasks_are_drawn_by_their_number_and_frozen_as_they_are(seed, n, x):
    def sample(key):
        noise = jax.random.key_data(key).astype(jnp.uint32)
        return jm.Task(jm.Batch(x, noise), jm.Batch(x, {"y": noise}, jnp.ones(2)))

    sampler = type("Fixed", (), {"sample": staticmethod(sample)})()
    tasks = jm.sample_tasks(sampler, jax.random.key(seed), n)
    for i in range(n):
        wanted = sample(jax.random.fold_in(jax.random.key(seed), i))
        same(jax.tree.map(lambda a, i=i: a[i], tasks), wanted)
    refused(jm.sample_tasks, sampler, jax.random.key(seed), 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tasks.npz")
        written = jm.tasks.freeze(sampler, n, jax.random.key(seed), path)
        same(jm.tasks.frozen(path), written, rtol=0, atol=0)
        path.write_bytes(path.read_bytes()[: -n * 40])
        refused(jm.tasks.frozen, path)
    same(written, tasks)


# augmentations ------------------------------------------------------------------------


pictures = numbers(4, 5, 3, elements=st.floats(0, 1, width=16))
AUGMENTS = {
    "flip": jm.tasks.augment.flip(),
    "flip-vertical": jm.tasks.augment.flip(vertical=True),
    "crop": jm.tasks.augment.crop(2),
    "colour": jm.tasks.augment.colour(),
    "affine": jm.tasks.augment.affine(),
    "cutout": jm.tasks.augment.cutout(3),
    "chain": jm.tasks.augment.chain(
        jm.tasks.augment.crop(1), jm.tasks.augment.flip(), jm.tasks.augment.cutout(2)
    ),
}


@pytest.mark.parametrize("name", AUGMENTS)
@few
@given(image=pictures, seed=seeds, half=st.booleans())
def test_augmentations_keep_shape_type_and_range(name, image, seed, half):
    image = image.astype(np.float16 if half else np.float32)
    found = np.asarray(once(AUGMENTS[name])(jax.random.key(seed), image))
    assert found.shape == image.shape and found.dtype == image.dtype
    assert found.min() >= 0 and found.max() <= 1 + 1e-3
    channel = lambda i: {0.0, *image[..., i].ravel().tolist()}
    if name not in ("colour", "affine"):
        assert all({*found[..., i].ravel().tolist()} <= channel(i) for i in range(3))
    if name.startswith("flip"):
        mirror = np.flip(image, 0 if "vertical" in name else 1)
        assert (found == image).all() or (found == mirror).all()
    if name == "cutout":
        away = (found != image).any(axis=2)
        assert away.sum() <= 9 and not found[away].any()
    refused(AUGMENTS[name], jax.random.key(seed), image[None])


@few
@given(image=pictures, seed=seeds)
def test_augmentations_of_no_strength_change_nothing(image, seed):
    augment = jm.tasks.augment
    for none in (augment.crop(0), augment.colour(0, 0, 0), augment.affine(0)):
        close(once(none)(jax.random.key(seed), image), image, atol=1e-6)
    assert augment.chain()(jax.random.key(seed), image) is image


MIXUP = jm.tasks.augment.mixup(0.5)


@few
@given(x=numbers(N, 2), y=labels(), mask=masks, seed=seeds)
def test_mixup_stays_between_the_examples_that_count(x, y, mask, seed):
    keep = mask > 0
    hidden = np.where(keep[:, None], x, np.nan)
    found = once(MIXUP)(jax.random.key(seed), jm.Batch({"a": hidden}, y, mask))
    same(found.y, y)
    mixed = np.asarray(found.x["a"])
    assert np.isnan(mixed[~keep]).all()
    assert (mixed[keep] >= x[keep].min(0) - 1e-5).all()
    assert (mixed[keep] <= x[keep].max(0) + 1e-5).all()


# models -------------------------------------------------------------------------------


NETWORKS = {
    "mlp": (jm.models.mlp((2, 1), 3, (4,)), (2, 1), (3,)),
    "conv4": (
        jm.models.conv4(3, input_shape=(4, 4, 1), widths=2, pools=2),
        (4, 4, 1),
        (3,),
    ),
    "transformer": (
        jm.models.transformer(2, 3, width=4, heads=2, layers=1),
        (2,),
        (3,),
    ),
    "set_encoder": (
        jm.models.set_encoder(2, 3, hidden=(4,), after=(4,), heads=2),
        (2,),
        None,
    ),
}


@functools.cache
def network_of(name):
    model, _, _ = NETWORKS[name]
    params = model.init(jax.random.key(0))
    apply = (
        (lambda x, mask: model.apply(params, x, mask))
        if model.uses_mask
        else (lambda x, mask: model.apply(params, x))
    )
    return params, jax.jit(apply)


@pytest.mark.parametrize("name", NETWORKS)
@few
@given(data=st.data(), mask=masks)
def test_networks_see_examples_in_any_order_and_no_padding(name, data, mask):
    model, shape, outputs = NETWORKS[name]
    x = data.draw(numbers(N, *shape))
    params, apply = network_of(name)
    found = np.asarray(apply(x, mask))
    assert found.shape == ((N, *outputs) if outputs else (3,))
    assert found.dtype == np.float32
    order = np.array(data.draw(st.permutations(range(N))))
    rows = (lambda a: a[order]) if outputs else (lambda a: a)
    close(apply(x[order], mask[order]), rows(found), rtol=1e-3, atol=1e-3)
    keep = (mask > 0).reshape(-1, *[1] * len(shape))
    other = np.asarray(apply(np.where(keep, x, 1 - x), mask))
    seen = (lambda a: a[mask > 0]) if outputs else (lambda a: a)
    close(seen(other), seen(found), rtol=1e-3, atol=1e-3)
    refused(model.apply, params, x[..., :0])
    refused(model.apply, {}, x)


@few
@given(queries=numbers(2, 2), of=numbers(N, 2), values=numbers(N, 3), mask=masks)
def test_attention_is_to_a_set(queries, of, values, mask):
    params, apply = attention()
    found = apply(params, queries, of, values, mask)
    assert found.shape == (2, 4) and found.dtype == np.float32
    again = apply(params, queries, of[::-1], values[::-1], mask[::-1])
    close(again, found, rtol=1e-3, atol=1e-3)
    keep = mask[:, None] > 0
    other = apply(
        params, queries, np.where(keep, of, 9), np.where(keep, values, 9), mask
    )
    close(other, found, rtol=1e-3, atol=1e-3)


@functools.cache
def attention():
    model = jm.models.cross_attention(2, 3, width=4, heads=2, hidden=(4,))
    return model.init(jax.random.key(0)), jax.jit(model.apply)


# environments and policies ------------------------------------------------------------


ENVS = {
    "bandit": jm.envs.bandit(3, 5),
    "dark_room": jm.envs.dark_room(3),
    "grid": jm.envs.grid(4),
    "tabular": jm.envs.tabular(4, 2, 5),
    "navigation": jm.envs.navigation(),
    "corners": jm.envs.corners(),
    "semicircle": jm.envs.semicircle(),
    "told": jm.envs.told(jm.envs.navigation(squared=True)),
}
REWARDS = {"bandit": (0, 1), "dark_room": (0, 1), "grid": (-0.1, 1)}


@functools.cache
def played(name):
    env = ENVS[name]

    def play(key, actions):
        task, start, *steps = jax.random.split(key, 2 + len(actions))
        task = env.sample(task)
        state, obs = env.reset(task, start)
        seen, rewards, ends = [obs], [], []
        for action, step in zip(actions, steps, strict=True):
            state, obs, reward, over = env.step(task, state, action, step)
            seen.append(obs)
            rewards.append(reward)
            ends.append(over)
        return jnp.stack(seen), jnp.stack(rewards), jnp.stack(ends)

    return jax.jit(play)


@pytest.mark.parametrize("name", ENVS)
@few
@given(seed=seeds, data=st.data())
def test_environments_keep_shapes_and_types(name, seed, data):
    env = ENVS[name]
    if isinstance(env.actions, jm.envs.Discrete):
        actions = data.draw(labels(3, env.actions.n))
    else:
        actions = data.draw(numbers(3, env.actions.dims))
    obs, rewards, ends = played(name)(jax.random.key(seed), actions)
    assert obs.shape == (4, env.obs_dims) and obs.dtype == np.float32
    assert rewards.shape == ends.shape == (3,)
    assert rewards.dtype == np.float32 and ends.dtype == bool
    assert np.isfinite(obs).all() and np.isfinite(rewards).all()
    low, high = REWARDS.get(name, (-math.inf, math.inf))
    assert (rewards >= low - 1e-6).all() and (rewards <= high).all()
    moves = np.abs(np.diff(obs, axis=0)).max()
    if name in ("dark_room", "grid"):
        assert moves <= 1 and (obs >= 0).all()
    if name in ("navigation", "corners", "semicircle", "told"):
        assert moves <= 0.2 + 1e-5


@many
@given(logits=numbers(2, 4), other=numbers(2, 4), seed=seeds)
def test_policies_of_actions_are_distributions(logits, other, seed):
    log_prob, every = once(policies.log_prob), np.arange(4, dtype=np.int32)
    logs = np.stack([log_prob(logits, np.full(2, a, np.int32)) for a in every], axis=1)
    close(np.exp(logs).sum(1), np.ones(2))
    close(once(policies.entropy)(logits), -(np.exp(logs) * logs).sum(1), atol=1e-4)
    apart = once(policies.divergence)
    assert (np.asarray(apart(logits, other)) >= -1e-5).all()
    close(apart(logits, logits), np.zeros(2))
    action = once(policies.sample)(logits, jax.random.key(seed))
    assert action.dtype == np.int32 and set(action.tolist()) <= set(every.tolist())
    nothing = once(policies.sample)(np.full_like(logits, np.nan), jax.random.key(seed))
    assert nothing.tolist() == [-1, -1]


@many
@given(mean=numbers(2, 3), log_std=numbers(2, 3, elements=st.floats(-1, 1, width=32)))
def test_normal_policies_are_scipys(mean, log_std):
    policy, std = (mean, log_std), np.exp(log_std.astype(float))
    action = mean[::-1].copy()
    wanted = norm.logpdf(action, mean, std).sum(1)
    close(once(policies.log_prob)(policy, action), wanted, rtol=1e-3)
    close(once(policies.entropy)(policy), norm.entropy(mean, std).sum(1), rtol=1e-4)
    close(once(policies.divergence)(policy, policy), np.zeros(2))
