"""Episodes of records that are read when they are drawn: the same as of arrays."""

import jax
import numpy as np
import optax
import pytest
from problems import row

import jaxmeta as jm

random = np.random.default_rng(0)
IMAGES = random.integers(0, 256, (48, 8, 8, 1), dtype=np.uint8)
LABELS = np.arange(48) % 6
ARRAYS = jm.data.from_arrays(IMAGES, LABELS)


class Records:
    """Images by number; counts what is read."""

    def __init__(self, images=IMAGES):
        self.images, self.read = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.read += 1
        return self.images[i]


def of_records(**options):
    return jm.tasks.episodes(jm.data.from_records(Records(), LABELS), **options)


KINDS = {
    "fixed": {"ways": 3, "shots": 1, "queries": 2},
    "varied": {"ways": (2, 4), "shots": (1, 3), "queries": 2},
    "turned": {"ways": 3, "shots": 1, "queries": 2, "rotations": True, "jitter": 0.5},
    "hidden": {
        "ways": 3,
        "shots": 1,
        "queries": 2,
        "unlabelled": 2,
        "label_noise": 0.5,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_records_and_arrays_give_the_same_episodes(kind):
    device = jm.tasks.episodes(ARRAYS, **KINDS[kind])
    key = jax.random.key(3)
    whole, read = (
        jax.jit(lambda s, k: jm.sample_tasks(s, k, 4))(device, key),
        jm.sample_tasks(of_records(**KINDS[kind]), key, 4),
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(read), strict=True):
        if (
            kind == "turned" and a.dtype == np.float32
        ):  # bilinear, rounded in two programs
            np.testing.assert_allclose(a, b, atol=1e-5)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("turned", [False, True])
def test_records_and_arrays_give_the_same_minibatches(turned):
    data = jm.data.from_records(Records(), LABELS)
    options = {"batch": 5, "rotations": turned, "augment": jm.tasks.augment.flip()}
    device, stream = (jm.tasks.classes(d, **options) for d in (ARRAYS, data))
    assert device.classes == stream.classes == (24 if turned else 6)
    key = jax.random.key(3)
    draw = lambda s, key: jm.sample_tasks(s, key, 4)
    pairs = [(jax.jit(draw)(device, key), draw(stream, key))]
    before = data.records.read
    pairs += zip(device.everything(), stream.everything(), strict=True)
    assert len(pairs) - 1 == (39 if turned else 10)
    assert data.records.read - before == 5 * (len(pairs) - 1)
    jax.tree.map(np.testing.assert_array_equal, *zip(*pairs, strict=True))


def test_a_classifier_is_trained_on_records():
    """Its centre is the mean over all records."""
    data = jm.data.from_records(Records(), LABELS)
    states = []
    for given in (ARRAYS, data):
        sampler = jm.tasks.classes(given, batch=8)
        learner = jm.simpleshot(
            jm.models.mlp(64, 4, (8,)), classes=6, ways=3, features=4
        )
        states.append(
            jm.fit(learner, sampler, SGD, steps=6, key=jax.random.key(1), chunk=4)
        )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        *(state.params for state in states),
    )


LEARNER = jm.protonet(jm.models.mlp(64, 4, (8,)), ways=4)
SGD = optax.sgd(1e-1)


def train(sampler, steps, **more):
    return jm.fit(
        LEARNER, sampler, SGD, steps=steps, key=jax.random.key(1), chunk=4, **more
    )


@pytest.mark.parametrize("kind", ["varied", row("fixed", core=False)])
def test_fit_and_evaluate_read_records(kind):
    options = KINDS[kind] | ({"ways": 4} if kind == "fixed" else {})
    device, stream = jm.tasks.episodes(ARRAYS, **options), of_records(**options)
    # in chunks of 4 and of 3 steps: of other sizes other programs are compiled
    states = [train(s, 7, tasks_per_step=2) for s in (device, stream)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    reports = [
        jm.evaluate(LEARNER, states[0].params, s, num_tasks=66, key=jax.random.key(2))
        for s in (device, stream)
    ]
    np.testing.assert_array_equal(*(r.per_task["accuracy"] for r in reports))
    # a run that stops in the middle goes on bit for bit, with nothing but its state
    half = train(stream, 3, tasks_per_step=2)
    rest = train(of_records(**options), 7, tasks_per_step=2, state=half)
    for a, b in zip(*map(jax.tree.leaves, (states[1], rest)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_read_is_split_over_the_devices_of_a_mesh():
    options = KINDS["fixed"] | {"ways": 4}
    mesh = jax.make_mesh((2,), ("tasks",), devices=jax.devices()[:2])
    one, many = (
        train(of_records(**options), 4, tasks_per_step=2, mesh=m) for m in (None, mesh)
    )
    for a, b in zip(*map(jax.tree.leaves, (one, many)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    how = {"num_tasks": 5, "key": jax.random.key(2)}
    reports = [
        jm.evaluate(LEARNER, one.params, of_records(**options), mesh=m, **how)
        for m in (None, mesh)
    ]
    np.testing.assert_array_equal(*(r.per_task["accuracy"] for r in reports))


def test_an_outer_says_how_many_tasks_it_draws():
    outer = jm.ema(jm.make_outer(LEARNER, SGD, tasks_per_step=3), 0.9)
    stream = of_records(**KINDS["varied"])
    state = jm.fit(outer, stream, steps=2, key=jax.random.key(1))
    assert int(state.step) == 2
    # two looks at an example, a first task, a first step, then 3 tasks a step
    each = stream.planner.sizes.support + stream.planner.sizes.query
    assert stream.dataset.records.read == 2 + (1 + 3 + 2 * 3) * each


def test_only_what_is_drawn_is_read():
    data = jm.data.from_records(Records(), LABELS).select([0, 1, 2]).at_least(8)
    sampler = jm.tasks.episodes(data, ways=3, shots=1, queries=2)
    before = data.records.read
    task = sampler.sample(jax.random.key(0))
    assert data.records.read == before + 9
    plan = jax.device_get(jax.jit(sampler.plan)(jax.random.key(0)))
    drawn = IMAGES[data.origin[plan.support.example]]
    x = np.asarray(task.support.x)
    np.testing.assert_array_equal(np.round(x * 255), drawn)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: jm.data.from_records(5, LABELS), "records: expected an object with len"),
        (lambda: jm.data.from_records(Records(), LABELS[1:]), r"\(48,\) and \(47,\)"),
        (
            lambda: jax.jit(of_records(**KINDS["fixed"]).sample)(jax.random.key(0)),
            "sampler: it reads records, which a compiled program can't",
        ),
        (
            lambda: jm.tasks.episodes(
                jm.data.from_records([np.zeros(3 + (i == 5)) for i in range(12)], [0, 1] * 6),
                2, 2, 4,
            ).sample(jax.random.key(0)),
            r"one shape and type, \[\(\(3,\).*got .*\(4,\).* in record 5",
        ),
    ],
)  # fmt: skip
def test_records_that_do_not_fit(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_records_of_a_file_are_decoded_when_they_are_drawn(tmp_path):
    from array_record.python.array_record_module import ArrayRecordWriter

    path = tmp_path / "images.array_record"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for image in IMAGES:
        writer.write(image.tobytes())
    writer.close()
    decode = lambda content: np.frombuffer(content, np.uint8).reshape(8, 8, 1)
    data = jm.data.from_array_record(path, LABELS, decode)
    assert data.name == "images" and len(data.classes) == 6
    np.testing.assert_array_equal(data.of(2), ARRAYS.of(2))
    broken = jm.data.from_array_record(path, LABELS, lambda content: content.decode())
    with pytest.raises(
        ValueError, match=r"record \d+ of .*images.array_record can't be"
    ):
        jm.tasks.episodes(broken, 2, 1, 1).sample(jax.random.key(0))
    with pytest.raises(FileNotFoundError, match="no file"):
        jm.data.from_array_record(tmp_path / "none", LABELS, decode)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="images.array_record is no ArrayRecord file"):
        jm.data.from_array_record(path, LABELS, decode)
