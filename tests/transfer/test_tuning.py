"""Fine-tuning: against plain loops, closed forms, and what may not move."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flavours import (
    FLAVOURS,
    WAYS,
    by_hand,
    examples,
    given,
    made,
    sampler,
    trained,
)
from problems import double, pad, slope_is_a_difference

import jaxmeta as jm
from jaxmeta import transfer
from jaxmeta.transfer import Stage

pytestmark = pytest.mark.usefixtures("x64")
key = jax.random.key
same = partial(jax.tree.map, np.testing.assert_array_equal)
close = partial(
    jax.tree.map, partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
)
MODEL = jm.models.mlp(4, WAYS, hidden=(5,))
SGD = optax.sgd(0.3, momentum=0.9)


def params():
    return double(MODEL.init(key(0)))


@jax.jit
def loss(theta, batch):
    return jm.losses.mean_loss(
        jm.losses.cross_entropy, MODEL.apply(theta, batch.x), batch
    )


PARTITIONS = {
    "full": transfer.full(),
    "linear_probe": transfer.linear_probe(),
    "bitfit": transfer.bitfit(),
    "lora": transfer.lora(2, head="head"),
}


@pytest.mark.parametrize("name", PARTITIONS)
def test_is_a_loop_of_gradient_steps(name):
    partition, batch = PARTITIONS[name], examples(1)
    plan = (Stage(partition, SGD, steps=3),)
    tuned = transfer.fine_tune(MODEL, params(), batch, plan, key(2))
    key_start, _ = jax.random.split(jax.random.fold_in(key(2), 0))

    @jax.jit
    def loop(theta):
        merge = partial(partition.merge, theta)
        moved = partition.init(theta, key_start)
        state = SGD.init(moved)
        for _ in range(3):
            gradient = jax.grad(lambda moved: loss(merge(moved), batch))(moved)
            updates, state = SGD.update(gradient, state)
            moved = optax.apply_updates(moved, updates)
        return merge(moved)

    close(tuned, loop(params()))
    assert loss(tuned, batch) < loss(params(), batch)


def test_stages_follow_each_other():
    plan = transfer.lp_ft(SGD, optax.sgd(0.01), steps=(3, 2))
    both = transfer.fine_tune(MODEL, params(), examples(1), plan)
    theta = params()
    for stage in plan:
        theta = transfer.fine_tune(MODEL, theta, examples(1), stage)
    same(both, theta)


def test_what_does_not_move_is_bit_for_bit_what_it_was():
    plan = (Stage(transfer.linear_probe(), SGD, 3), Stage(transfer.bitfit(), SGD, 3))
    tuned = transfer.fine_tune(MODEL, params(), examples(1), plan, key(2))
    same(tuned["dense1"]["kernel"], params()["dense1"]["kernel"])
    assert not np.array_equal(tuned["dense1"]["bias"], params()["dense1"]["bias"])


# stages of as many steps everywhere, so that they are programs that are compiled already
MANY = (Stage(transfer.lora(2, head="head"), SGD, 3), Stage(transfer.full(), SGD, 3))


@pytest.mark.parametrize("batch_size", [None, 3])
def test_many_tasks_at_once_are_each_by_itself(batch_size):
    tasks = [jax.device_get(pad(examples(seed), 3, 1e3)) for seed in (1, 2)]
    run = partial(transfer.fine_tune, MODEL, batch_size=batch_size)
    keys = jax.random.split(key(3), 2)
    one_by_one = [run(params(), b, MANY, k) for b, k in zip(tasks, keys, strict=True)]
    stack = lambda *a: np.stack(a)
    many = jax.vmap(lambda batch, k: run(params(), batch, MANY, k))
    close(many(jax.tree.map(stack, *tasks), keys), jax.tree.map(stack, *one_by_one))
    close(
        jax.jit(partial(run, plan=MANY, key=keys[0]))(params(), tasks[0]), one_by_one[0]
    )


@pytest.mark.parametrize("batch_size", [None, 3])
def test_padding_is_never_learnt_from(batch_size):
    """NaN in the padding stays there; minibatches are of the examples that count."""
    run = partial(transfer.fine_tune, MODEL, params(), plan=MANY, batch_size=batch_size)
    padded = run(batch=pad(examples(1), 3, np.nan), key=key(4))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(padded))
    if batch_size is None:
        close(padded, run(batch=examples(1), key=key(4)))


def test_minibatches_are_drawn_without_replacement_anew_at_each_step():
    """A model whose parameter counts how often it has seen each example."""
    counts = jm.Model(lambda k: {"seen": jnp.zeros(6)}, lambda p, x: x @ p["seen"])
    batch = jm.Batch(np.eye(6), np.ones(6), np.array([1, 1, 0, 1, 1, 1.0]))
    plan = (Stage(transfer.full(), optax.sgd(-2.0), steps=30),)  # a mean over 2
    run = partial(transfer.fine_tune, counts, {"seen": np.zeros(6)}, batch, plan)
    run = partial(run, loss=lambda outputs, y: outputs * y, batch_size=2)
    seen = np.asarray(run(key(5))["seen"])
    assert float(seen.sum()) == 60 and float(seen[2]) == 0 and seen[:2].min() > 4
    assert seen.max() < 30  # twice in no step
    same(run(key(5))["seen"], seen)
    assert not np.array_equal(run(key(6))["seen"], seen)


def test_the_derivative_in_the_start_is_a_difference():
    batch, plan = examples(1), (MANY[0],)

    @jax.jit
    @jax.value_and_grad
    def after(theta):
        return loss(transfer.fine_tune(MODEL, theta, batch, plan, key(2)), batch)

    slope_is_a_difference(after, params())


def test_at_a_head_that_fits_exactly_the_features_have_no_gradient():
    """So that the second stage of LP-FT leaves them; a random head does not."""
    model = jm.models.mlp(4, 2, hidden=(20,), activation=jnp.tanh)
    theta = jax.device_get(double(model.init(key(0))))
    batch = jm.Batch(examples(1).x, examples(2).x[:, :2])
    features = np.tanh(batch.x @ theta["dense1"]["kernel"])
    head = np.linalg.lstsq(features, batch.y)[0]
    fitted = theta | {"head": {"kernel": head, "bias": np.zeros(2)}}

    @jax.jit
    def norm(p):
        value = lambda p: jm.losses.mean_loss(
            jm.losses.mse, model.apply(p, batch.x), batch
        )
        return optax.tree.norm(jax.grad(value)(p)["dense1"])

    assert float(norm(fitted)) < 1e-10 < 1e-2 < float(norm(theta))
    plan = transfer.lp_ft(optax.sgd(0.0), optax.sgd(1e-3), steps=(1, 20))
    tune = partial(
        transfer.fine_tune, model, batch=batch, plan=plan, loss=jm.losses.mse
    )
    close(tune(fitted)["dense1"], theta["dense1"])
    moved = tune(theta)["dense1"]["kernel"] - theta["dense1"]["kernel"]
    assert np.abs(moved).max() > 1e-4


def test_a_pull_towards_the_start_ends_at_the_closed_form():
    """(H + b I)^-1 (H w* + b w_0) on least squares, H = 2 X'X / n."""
    random = np.random.default_rng(0)
    x, target, w_0 = (random.normal(size=shape) for shape in ((12, 3), (3, 1), (3, 1)))
    hessian = 2 * x.T @ x / 12
    model = jm.Model(lambda k: jnp.zeros((3, 1)), lambda w, x: x @ w)
    batch = jm.Batch(x, x @ target)
    for b, rate in ((0.0, 0.1), (0.7, 0.1), (1e9, 1e-9)):
        rule = optax.chain(transfer.l2_sp(b), optax.sgd(rate))
        plan = (Stage(transfer.full(), rule, steps=2000),)
        w = transfer.fine_tune(model, w_0, batch, plan, loss=jm.losses.mse)
        wanted = np.linalg.solve(hessian + b * np.eye(3), hessian @ target + b * w_0)
        np.testing.assert_allclose(w, wanted, rtol=0, atol=1e-10)
    np.testing.assert_allclose(w, w_0, atol=1e-7)  # a strong pull keeps the start


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_running_statistics_are_frozen(flavour):
    """Of a trained Flax network, through `restricted` and two kinds of learner."""
    model, theta = given(flavour), trained()[0]
    partition = transfer.film(head="head")
    part = transfer.restricted(model, theta, partition)
    x, expected = examples(3).x, jax.jit(partial(by_hand, statistics=trained()[1]))
    close(part.apply(part.init(key(0)), x), model.apply(theta, x))
    for learner in (jm.protonet(part, ways=WAYS), jm.maml(part, inner_lr=0.1)):
        state = jm.fit(learner, sampler(), optax.sgd(0.1), steps=2, key=key(1), chunk=2)
        after = partition.merge(jax.tree.map(jnp.asarray, theta), state.params)
        outputs = expected(after, x)
        close(part.apply(state.params, x), outputs)
        assert not np.allclose(outputs, model.apply(theta, x))


TRAINED = [
    (jm.maml, transfer.bitfit(head="head"), {"body/kernel"}),
    (jm.anil, transfer.lora(2, head="head"), {"body/bias", "norm/scale", "norm/bias"}),
]


@pytest.mark.parametrize(("make", "partition", "fixed"), TRAINED)
def test_learners_train_what_moves(make, partition, fixed):
    """Few numbers under MAML, low rank under ANIL; the body stays as it is."""
    theta = jax.tree.map(jnp.asarray, trained()[0])
    learner = make(transfer.restricted(given("linen"), theta, partition), inner_lr=0.1)
    state = jm.fit(learner, sampler(), optax.sgd(0.1), steps=2, key=key(1), chunk=2)
    assert jax.tree.structure(state.params) == jax.tree.structure(
        partition.init(theta, key(0))
    )
    after = partition.merge(theta, state.params)
    same_as_before = {
        f"{layer}/{name}"
        for layer in theta
        for name in theta[layer]
        if np.array_equal(theta[layer][name], after[layer][name])
    }
    assert same_as_before == fixed
    adapted = learner.adapt(state.params, sampler().sample(key(2)).support)
    if make is jm.anil:  # the head alone
        same(adapted | {"head": 0}, state.params | {"head": 0})
    assert not np.array_equal(adapted["head"]["bias"], state.params["head"]["bias"])


def test_noise_and_masks_pass_through():
    part = transfer.restricted(given("linen"), trained()[0], transfer.linear_probe())
    assert part.uses_mask and part.noisy is not None
    x, mask = examples(1).x, np.array([1, 1, 1, 0, 0, 0.0])
    compiled = jax.jit(part.noisy)
    noisy = lambda seed: compiled(part.init(key(0)), x, mask, key(seed), 0)
    assert not np.allclose(noisy(1), noisy(2))
    batch_norm = transfer.restricted(
        made("linen"), trained()[0], transfer.linear_probe()
    )
    moved = batch_norm.init(key(0))
    close(batch_norm.apply(moved, x, mask)[:3], batch_norm.apply(moved, x[:3]))


def test_parameters_survive_a_donated_state():
    part = transfer.restricted(MODEL, params(), transfer.linear_probe())
    learner, optimizer = jm.maml(part), optax.sgd(0.1)
    tasks = jax.tree.map(lambda a: a[None], jm.Task(examples(1), examples(2)))
    step = jm.make_step(learner, optimizer)
    for seed in (0, 1):
        state = jm.init_state(learner, optimizer, key(seed))
        same(state.params, {"head": params()["head"]})
        step(state, tasks, key(2))


def test_what_is_not_finite_is_said():
    batch, plan = examples(1), (Stage(transfer.full(), optax.sgd(1e300), steps=9),)
    with pytest.warns(RuntimeWarning, match="fine_tune: .* not finite; lower the step"):
        transfer.fine_tune(MODEL, params(), batch, plan)
    plan = (Stage(transfer.linear_probe(), SGD, steps=1),)
    tune = lambda batch: transfer.fine_tune(MODEL, params(), batch, plan)["head"]
    isnan = lambda tree: all(np.isnan(a).all() for a in jax.tree.leaves(tree))
    for bad in (
        batch._replace(y=np.full(6, WAYS)),
        batch._replace(mask=np.zeros(6)),
        batch._replace(x=np.full((6, 4), np.nan)),
    ):
        assert isnan(jax.jit(tune)(bad))


def test_images_of_bytes_are_those_from_0_to_1():
    x = np.arange(24, dtype=np.uint8).reshape(6, 4)
    plan = (Stage(transfer.full(), SGD, steps=1),)
    tune = lambda x: transfer.fine_tune(
        MODEL, params(), examples(1)._replace(x=x), plan
    )
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), tune(x), tune(x / 255))


BATCH, PROBE = examples(1), Stage(transfer.linear_probe(), SGD, 1)
BAD = [
    ({"plan": ()}, r"plan: expected a tuple of jm.transfer.Stage\(.*\), got \(\)"),
    ({"plan": (transfer.full(),)}, r"plan: expected a jm.Stage\(partition, optimizer, st"),
    ({"plan": PROBE._replace(steps=0)}, "steps: expected a whole number >= 1, got 0"),
    ({"plan": PROBE._replace(partition=transfer.lora)}, "partition: expected a partition"),
    ({"plan": PROBE._replace(optimizer=0.1)}, "optimizer: expected an optax optimiser"),
    ({"plan": MANY}, "key: expected a typed key"),
    ({"batch_size": 2}, "key: expected a typed key"),
    ({"batch_size": 7, "key": key(0)}, r"batch_size: expected a whole number in 1\.\.6"),
    ({"batch": (1, 2)}, "batch: expected a jm.Batch"),
    ({"batch": BATCH._replace(y=np.arange(6))}, r"training labels: expected integers in 0"),
    ({"batch": BATCH._replace(x=BATCH.x[:5])}, "training set: x has 5 examples, y has 6"),
    ({"params": {"head": {"kernel": np.ones((5, 2))}}},
     r"params\['head'\]\['kernel'\]: expected an array of \(5, 3\), got an array of "
     r"\(5, 2\) \(nor do \['dense1'\]\['bias'\], .* fit\)"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "sentence"), BAD)
def test_calls_that_make_no_sense_are_refused(wrong, sentence):
    right = {"model": MODEL, "params": params(), "batch": BATCH, "plan": PROBE}
    with pytest.raises(ValueError, match=sentence):
        transfer.fine_tune(**(right | wrong))


def test_a_part_of_which_nothing_moves_is_refused():
    for partition, sentence in (
        (transfer.adapters(), "adapters: nothing of these parameters would move"),
        (transfer.lora(4), r"rank: head/kernel is a matrix of 5 x 3"),
        (transfer.full, "partition: expected a partition, e.g. jm.transfer.lora"),
    ):
        with pytest.raises(ValueError, match=sentence):
            transfer.restricted(MODEL, params(), partition)
    with pytest.raises(ValueError, match=r"params\['tail'\]"):
        transfer.restricted(MODEL, {"tail": np.ones(2)}, transfer.full())
    with pytest.raises(ValueError, match="steps: expected 2 whole numbers >= 1"):
        transfer.lp_ft(SGD, SGD, steps=(1, 0))
