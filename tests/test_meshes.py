"""Tasks on many devices: the same tasks, the same numbers, a share of the work each."""

import hashlib
import os
import re
import socket
import subprocess
import sys
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from problems import CORE, ONE_EACH, double, largest_difference, make, many_tasks, row

import jaxmeta as jm
from jaxmeta import keys, meshes
from jaxmeta.outer import tasks_of

DEVICES = 8
ADAM = optax.adam(1e-2)
SINES = jm.tasks.sinusoid(shots=3, queries=3)
SMALL = jm.models.mlp(hidden=(4,))
MAML = jm.maml(SMALL, inner_lr=0.01, loss=jm.losses.mse)


def over(devices: int, axis: str = "tasks") -> Mesh:
    return jax.make_mesh((devices,), (axis,), devices=jax.local_devices()[:devices])


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(a) for a in jax.tree.leaves(tree)]


def same(a, b) -> bool:
    return all(map(np.array_equal, leaves(a), leaves(b)))


@pytest.mark.parametrize(
    ("name", "problem"),
    [row(*r, core=r[0] == "imaml") for r in ONE_EACH if r[0] in {*CORE, "imaml"}],
)
def test_a_learner_of_each_family_learns_the_same(name, problem, blobs, x64):
    learner, sampler = make(name, problem, blobs)
    tasks = double(many_tasks(sampler, jax.random.key(0), DEVICES))
    params = double(learner.init(jax.random.key(1)))
    one, many = (
        jax.jit(jm.meta_gradient(learner, 1, mesh=mesh))
        for mesh in (None, over(DEVICES))
    )
    ((value, metrics), gradient), ((value8, metrics8), gradient8) = (
        run(params, tasks, jax.random.key(2)) for run in (one, many)
    )
    assert set(metrics) == set(metrics8)
    assert largest_difference(value8, value) < 1e-12
    if optax.tree.norm(gradient) > 0:  # some learn nothing
        limit = 1e-11 if name == "imaml" else 1e-12
        assert largest_difference(gradient8, gradient) < limit


class Line(NamedTuple):
    """Tasks of few random numbers, whose programs are compiled fast."""

    def sample(self, key) -> jm.Task:
        x = jax.random.normal(key, (2, 3, 1))
        return jm.Task(*(jm.Batch(b, x[0, 0, 0] * b) for b in x))


LINEAR = jm.maml(jm.models.mlp(hidden=()), inner_lr=0.01, loss=jm.losses.mse)
START = jax.eval_shape(lambda: jm.init_state(LINEAR, ADAM, jax.random.key(0)))
RUN = partial(jm.fit, LINEAR, Line(), ADAM, chunk=5, tasks_per_step=8, tasks_at_once=1)


@pytest.mark.parametrize("reduce", ["mean", "tree"])
def test_fit_is_the_same_on_any_number_of_devices(reduce):
    run = partial(RUN, reduce=reduce)
    one, many = (run(steps=5, key=jax.random.key(0), mesh=m) for m in (None, over(8)))
    assert largest_difference(many.params, one.params) < 1e-5
    half = run(steps=3, key=jax.random.key(0), mesh=over(2))
    assert len(half.params["head"]["bias"].sharding.device_set) == 2
    again = run(steps=5, key=jax.random.key(0), mesh=over(8), state=half)
    assert largest_difference(again.params, one.params) < 1e-5


@pytest.mark.slow
def test_a_tree_gives_the_same_bits_on_any_number_of_devices_and_processes(tmp_path):
    """In processes of their own, which compile as users do: without optimisation, sums and
    products are joined differently in different programs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {
        name: value for name, value in os.environ.items() if name != "XLA_FLAGS"
    }
    children = [
        subprocess.Popen(
            [sys.executable, __file__, rank, port, tmp_path],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [child.communicate(timeout=300)[0] for child in children]
    assert not any(child.returncode for child in children), said
    reads = [re.search(r"^read (.*)$", out, re.M).group(1).split() for out in said]
    whole = np.array(what_is_read(over(2)))
    np.testing.assert_array_equal(np.array(reads, float), [whole * [0.5, 1, 1]] * 2)
    (saved, *first), second = ([w for w in o.split() if len(w) == 64] for o in said)
    assert len(first) == 4 and {*first} == {second[1]} and second[0] == saved
    kept = jm.Checkpoints(tmp_path)  # of two processes, read by one
    half = kept.latest(START)
    kept.close()
    assert int(half.step) == 3 and said_of(half) == saved


def print_the_bits_of_one_of_two(rank: int, port: str, folder: str) -> None:
    """Of a state that two devices each of two processes save after three steps, of one
    that goes on from there to five, and what they read; then of what one does alone."""
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    two_of_each = np.array(jax.devices()).reshape(2, DEVICES)[:, :2]
    mesh = Mesh(two_of_each.ravel(), ("tasks",))
    run = partial(RUN, key=jax.random.key(0), reduce="tree")
    kept = jm.Checkpoints(folder)
    run(steps=3, save=kept.save, mesh=mesh)
    kept.close()
    again = jm.Checkpoints(folder)
    half = again.latest(START)
    print(said_of(half))
    print(said_of(run(steps=5, state=half, mesh=mesh)))
    again.close()
    if rank == 0:
        print_the_bits(run)
    # of these a few numbers are summed, equal on any number of devices
    jax.config.update("jax_disable_most_optimizations", True)
    print("read", *what_is_read(mesh))


def print_the_bits(run) -> None:
    """Of states after five steps on one device, on 8, and on 8, then one."""
    states = [run(steps=5, mesh=m) for m in (None, over(8))]
    half = jax.device_get(run(steps=3, mesh=over(8)))
    states.append(run(steps=5, state=half))
    for state in states:
        print(said_of(state))


class Letters:
    """Records; counts what is read."""

    read = 0

    def __len__(self):
        return 24

    def __getitem__(self, i):
        self.read += 1
        return np.random.default_rng(i).random(4).astype(np.float32)


def what_is_read(mesh) -> tuple[int, float, float]:
    """How many examples, of two steps and of a test, and what came of them."""
    records = Letters()
    data = jm.data.from_records(records, np.arange(24) % 6)
    sampler = jm.tasks.episodes(data, ways=3, shots=1, queries=1)
    records.read = 0
    linear = jm.Model(lambda key: jnp.eye(4), lambda w, x: x @ w)
    learner = jm.protonet(linear, ways=3)
    sgd = optax.sgd(0.1)
    tree = {"reduce": "tree", "tasks_at_once": 1, "mesh": mesh}
    run = partial(jm.fit, learner, sampler, sgd, tasks_per_step=4, chunk=1, **tree)
    state = run(steps=2, key=jax.random.key(0))
    how = {"num_tasks": 4, "key": jax.random.key(1), "tasks_at_once": 1, "mesh": mesh}
    loss = jm.evaluate(learner, state.params, sampler, **how).mean["loss"]
    number = records.read - 6  # of the task that `fit` looks at
    return number, float(optax.tree.norm(state.params)), loss


def said_of(state) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for a in leaves(state))).hexdigest()


def told(params, task, key=None):
    """A loss without parameters that matter, which tells its targets."""
    noise = {} if key is None else {"noise": jax.random.normal(key)}
    return jnp.sum(params) * 0 + jnp.mean(task.query.y), noise


TELLER = MAML._replace(init=lambda key: jnp.zeros(1), loss=told, objective=None)


def test_two_devices_never_see_the_same_task():
    tasks = jm.sample_tasks(SINES, jax.random.key(0), 8)
    split = jax.jit(
        lambda key: meshes.split(
            lambda key: tasks_of(SINES, keys.tasks(key, 1, meshes.first_of(1))),
            over(8),
            meshes.SHARED,
            meshes.SPLIT,
        )(key)
    )(jax.random.key(0))
    for own, of_all in zip(leaves(split), leaves(tasks), strict=True):
        np.testing.assert_allclose(own, of_all, rtol=1e-4, atol=1e-5)
        assert len({a.tobytes() for a in own}) == 8
    found = {}
    for mesh in (None, over(8)):
        run = jax.jit(jm.meta_gradient(TELLER, 1, mesh=mesh))
        (value, metrics), _ = run(jnp.zeros(1), tasks, jax.random.key(1))
        found[mesh] = float(value), float(metrics["noise"])
    np.testing.assert_allclose(*found.values(), rtol=1e-5)


def test_a_task_that_is_not_finite_is_left_out_of_the_mean():
    tasks = jm.sample_tasks(SINES, jax.random.key(0), 8)
    y = np.array(tasks.support.y)
    y[3] = np.nan
    bad = tasks._replace(support=tasks.support._replace(y=jnp.asarray(y)))
    good = jax.tree.map(lambda a: jnp.asarray(np.delete(np.asarray(a), 3, 0)), tasks)
    params = MAML.init(jax.random.key(1))
    (_, metrics), found = jax.jit(jm.meta_gradient(MAML, mesh=over(8)))(params, bad)
    _, expected = jax.jit(jm.meta_gradient(MAML))(params, good)
    assert float(metrics["diverged"]) == 1 / 8
    assert largest_difference(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("conv", "at_once"), [("lax", 1), ("patches", 4), ("winograd", 1)]
)
def test_one_collective_and_a_share_of_the_work(conv, at_once):
    network = jm.models.conv4(
        3, input_shape=(8, 8, 1), widths=16, strided=True, conv=conv
    )
    learner = jm.maml(network, inner_lr=0.1)
    x = jax.random.normal(jax.random.key(0), (32, 6, 8, 8, 1))
    batch = jm.Batch(x, jnp.tile(jnp.arange(3), (32, 2)))
    tasks = jm.Task(batch, batch)
    params = learner.init(jax.random.key(1))
    work = {}
    for devices in (1, 8):
        run = jm.meta_gradient(learner, at_once, mesh=over(devices))
        compiled = jax.jit(run).lower(params, tasks).compile()
        text = compiled.as_text()
        collectives = re.findall(
            r"= \S+ (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)"
            r"(?:-start)?\(",
            text,
        )
        assert collectives == ["all-reduce"], collectives
        # a loop's body is counted once: trips times its work is all work
        trips = 32 // devices // at_once
        work[devices] = compiled.cost_analysis()["flops"] * trips
    assert work[8] / work[1] < 0.15


def test_a_test_on_a_mesh_has_the_same_digits(blobs):
    episodes = jm.tasks.episodes(blobs, ways=3, shots=2, queries=2)
    learner = jm.protonet(jm.models.mlp(6, 4, (8,)), ways=3)
    params = learner.init(jax.random.key(0))
    how = {"num_tasks": 21, "tasks_at_once": 3}
    one, many = (
        jm.evaluate(learner, params, episodes, key=jax.random.key(1), mesh=mesh, **how)
        for mesh in (None, over(4))
    )
    assert many.num_tasks == 21 and many.per_task["loss"].shape == (21,)
    assert same(one.per_task, many.per_task)
    tasks = jm.sample_tasks(episodes, jax.random.key(1), 21)
    one, many = (
        jm.evaluate_episodes(learner, params, tasks, tasks_at_once=3, mesh=mesh)
        for mesh in (None, over(4))
    )
    assert same(one.per_task, many.per_task)


def test_members_of_a_population_are_split():
    def make(inner_lr):
        return jm.maml(SMALL, inner_lr=inner_lr, loss=jm.losses.mse), ADAM

    run = partial(jm.fit_population, make, SINES, steps=3, inner_lr=[0.1, 0.01] * 4)
    own = lambda: jax.random.split(jax.random.key(0), 8)
    (one, told), (many, told8) = (
        run(keys=own(), mesh=mesh) for mesh in (None, over(4, "members"))
    )
    assert largest_difference(many.params, one.params) < 1e-6
    np.testing.assert_allclose(told["loss"], told8["loss"], rtol=1e-5)
    assert many.params["head"]["bias"].sharding.spec[0] == "members"


def test_an_estimator_perturbs_alike_and_draws_its_own_tasks():
    gradient = jm.es_gradient(MAML, sigma=0.1, pairs=2)
    run = partial(
        jm.fit, MAML, SINES, ADAM, steps=2, tasks_per_step=4, gradient=gradient
    )
    one, many = (run(key=jax.random.key(0), mesh=mesh) for mesh in (None, over(4)))
    assert largest_difference(many.params, one.params) < 1e-5
    with pytest.raises(ValueError, match="gradient: on a mesh an estimator needs"):
        jm.make_step(MAML, ADAM, gradient=lambda p, t, key, step: 0, mesh=over(2))


def test_parameters_over_a_second_axis():
    mesh = Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("tasks", "model"))
    network = jm.models.mlp(4, 8, (512, 512))
    learner = jm.maml(network, inner_lr=0.1, inner_steps=2, loss=jm.losses.mse)
    x = jax.random.normal(jax.random.key(0), (4, 3, 4))
    batch = jm.Batch(x, jnp.ones((4, 3, 8)))
    params, tasks = learner.init(jax.random.key(1)), jm.Task(batch, batch)
    where = {
        "dense1": {"kernel": (None, "model"), "bias": ("model",)},
        "dense2": {"kernel": ("model", None), "bias": (None,)},
        "head": {"kernel": (None, None), "bias": (None,)},
    }
    laid = jax.tree.map(
        lambda a, axes: jax.device_put(a, NamedSharding(mesh, PartitionSpec(*axes))),
        params,
        where,
    )
    _, expected = jax.jit(jm.meta_gradient(learner))(params, tasks)
    run = jax.jit(jm.meta_gradient(learner, mesh=mesh))
    memory = {}
    for name, given in (("whole", meshes.replicated(params, mesh)), ("laid out", laid)):
        _, found = run(given, tasks)
        assert largest_difference(found, expected) < 1e-5
        used = run.lower(given, tasks).compile().memory_analysis()
        memory[name] = used.argument_size_in_bytes, used.temp_size_in_bytes
    arguments, temporaries = np.divide(memory["laid out"], memory["whole"])
    assert arguments < 0.6 and temporaries < 0.75
    state = jm.init_state(learner, ADAM, jax.random.key(1))
    state = state._replace(params=laid)
    state, _ = jm.make_step(learner, ADAM, mesh=mesh)(state, tasks)
    assert state.params["dense1"]["kernel"].sharding.spec == PartitionSpec(
        None, "model"
    )


def test_what_comes_off_a_mesh_goes_on_elsewhere():
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("tasks", "model"))
    state = jm.init_state(MAML, ADAM, jax.random.key(0))
    columns = NamedSharding(mesh, PartitionSpec(None, "model"))
    laid = jax.device_put(state.params["dense1"]["kernel"], columns)
    params = {**state.params, "dense1": {**state.params["dense1"], "kernel": laid}}
    given = state._replace(params=params)
    # on a mesh of the same devices without that axis; a line search asks for values alone
    search = optax.chain(
        optax.sgd(0.1), optax.scale_by_backtracking_linesearch(max_backtracking_steps=2)
    )
    for reduce in ("mean", "tree"):
        how = {"mesh": over(8), "reduce": reduce, "tasks_at_once": 1}
        outer = jm.make_outer(MAML, search, tasks_per_step=8, **how)
        own = outer.init(jax.random.key(0))._replace(params=given.params)
        after = jm.fit(outer, Line(), steps=1, key=jax.random.key(0), state=own)
        assert int(after.step) == 1
    pixels = jm.curve(
        lambda n: (MAML, Line()), after.params, (0,), key=jax.random.key(1), num_tasks=3,
        mesh=over(8),
    )  # fmt: skip
    assert np.isfinite(pixels.mean("loss")).all()


def test_what_does_not_fit_a_mesh_gets_a_sentence():
    run = partial(jm.fit, MAML, SINES, ADAM, steps=1, key=jax.random.key(0))
    for how, sentence in (
        ({"mesh": over(2, "data")}, 'expected an axis "tasks"'),
        ({"mesh": 2}, "expected a jax.sharding.Mesh"),
        (
            {"mesh": over(8), "tasks_per_step": 12},
            "12 can't be split evenly over the 8",
        ),
        ({"reduce": "tree"}, "expected tasks_at_once="),
        ({"reduce": "tree", "tasks_per_step": 6, "tasks_at_once": 1}, "1, 2, 4"),
        ({"reduce": "sum"}, "reduce"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            run(**how)
    params = meshes.replicated(MAML.init(jax.random.key(0)), over(2))
    state = jm.init_state(MAML, ADAM, jax.random.key(0))._replace(params=params)
    with pytest.raises(ValueError, match="arrays on 2 devices"):
        run(state=state)
    with pytest.raises(ValueError, match="arrays on 2 devices"):
        jm.evaluate(MAML, params, SINES, key=jax.random.key(0))
    tasks = jm.sample_tasks(SINES, jax.random.key(1), 3)
    with pytest.raises(ValueError, match="tasks: 3 can't be split evenly over the 2"):
        jm.make_step(MAML, ADAM, mesh=over(2))(state, tasks)
    gradient = jm.meta_gradient(MAML, mesh=over(2))
    with pytest.raises(ValueError, match="tasks: 3 can't be split evenly over the 2"):
        gradient(params, tasks)
    two = jax.tree.map(lambda a: a[:2], tasks)  # outside of jit, whole on one device
    (value, _), _ = jm.meta_gradient(TELLER, mesh=over(2))(jnp.zeros(1), two)
    np.testing.assert_allclose(value, jnp.mean(two.query.y), rtol=1e-5)
    with pytest.raises(ValueError, match="members: 3 can't be split"):
        jm.fit_population(
            lambda inner_lr: (MAML, ADAM), SINES,
            keys=jax.random.split(jax.random.key(0), 3), steps=1,
            inner_lr=[0.1] * 3, mesh=over(2, "members"),
        )  # fmt: skip


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", DEVICES)
    print_the_bits_of_one_of_two(int(sys.argv[1]), *sys.argv[2:])
