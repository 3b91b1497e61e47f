"""A user's own network, in both flavours of Flax, against itself written by hand."""

from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flavours import (
    FEATURES,
    FLAVOURS,
    NNX,
    Linen,
    activations,
    by_hand,
    close,
    examples,
    given,
    key,
    made,
    moments,
    normal,
    same,
    sampler,
    trained,
)
from flax import nnx
from problems import double, one_task, pad, row

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


CASES = {  # the adapted network, itself by hand (params, x, mask), its tasks
    "padded": (
        lambda flavour: given(flavour, statistics="batch"),
        lambda: (trained()[0], by_hand),
        partial(sampler, padded=True),
    ),
    "running": (
        given,
        lambda: (trained()[0], partial(by_hand, statistics=trained()[1])),
        sampler,
    ),
    "frozen body": (
        lambda flavour: jm.models.pretrained(
            given(flavour), trained()[0], learned=("head",)
        ),
        lambda: (
            {"head": trained()[0]["head"]},
            lambda p, x, mask: by_hand(trained()[0] | p, x, None, trained()[1]),
        ),
        sampler,
    ),
    "tokens": (
        lambda flavour: given(flavour, tokens=True, statistics="batch"),
        lambda: (trained(True)[0], by_hand),
        partial(sampler, True),
    ),
}


def through_every_door(model, tasks, outside=True):
    """What fit, evaluate, adapt and predict make of it, under jit and outside."""
    learner = jm.maml(model, inner_lr=0.1)
    init = lambda key: double(model.init(key))
    learner = learner._replace(init=init)
    state = jm.fit(learner, tasks, optax.sgd(0.1), steps=2, key=key(0), chunk=2)
    report = jm.evaluate(learner, state.params, tasks, num_tasks=3, key=key(1))
    task = double(one_task(tasks, key(2)))

    def both(params, task):
        adapted = learner.adapt(params, task.support)
        return adapted, learner.predict(adapted, task.query.x, task.query.mask)

    found = jax.jit(both)(state.params, task)
    if outside:
        same(both(state.params, task), found)
    return state.params, report.per_task, *found


@cache
def expected(case):
    params, apply = CASES[case][1]()
    copy = lambda key: jax.tree.map(jnp.array, params)
    model = jm.Model(copy, apply, uses_mask=True)
    return through_every_door(model, CASES[case][2](), outside=False)


@pytest.mark.parametrize("case", [row(c, core=c == "running") for c in CASES])
@pytest.mark.parametrize("flavour", [row(f, core=f == "linen") for f in FLAVOURS])
def test_network_is_itself_by_hand_through_every_door(flavour, case):
    make, _, tasks = CASES[case]
    found = through_every_door(make(flavour), tasks())
    same(found[0], expected(case)[0])
    for ours, theirs in zip(found[1:], expected(case)[1:], strict=True):
        same(ours, theirs, 1e-7)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_padding_changes_no_loss(flavour):
    """A batch norm that knows nothing of masks, and three padded rows."""
    learner = jm.maml(made(flavour), inner_lr=0.1)
    params = double(learner.init(key(0)))
    task = jm.Task(examples(1), examples(2))
    padded = jm.Task(*(pad(batch, 3, jnp.nan) for batch in task))
    loss = jax.jit(learner.loss)
    close(loss(params, padded)[0], loss(params, task)[0])


def test_equal_linen_modules_make_one_model():
    """So a learner that is built again has its compiled programs."""
    assert LINEN() is jm.models.from_linen(Linen(), (FEATURES,))
    assert LINEN() is not LINEN(statistics="batch")


def test_batch_norm_must_see_the_examples():
    class Folded(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.BatchNorm()(jnp.reshape(x, (-1, 2)))

    model = jm.models.from_linen(Folded(), (FEATURES,))
    with pytest.raises(ValueError, match=r"sees an array of shape \(6, 2\), the batch"):
        jax.jit(model.apply)(model.init(key(0)), np.ones((3, FEATURES)), np.ones(3))


class Both(nn.Module):
    """Batch norm whose constructor says one thing and whose network takes a mask."""

    @nn.compact
    def __call__(self, x, mask, train):
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return jnp.sum(jnp.exp(x) * (mask > 0)[:, None], axis=0)


class BothNNX(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(FEATURES, rngs=rngs)
        self.norm.mean, self.norm.var = map(nnx.BatchStat, (jnp.zeros(4), jnp.ones(4)))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, mask, train):
        x = self.norm(x, use_running_average=not train)
        x = self.dropout(x, deterministic=not train)
        return jnp.sum(jnp.exp(x) * (mask > 0)[:, None], axis=0)


BOTH = {
    "linen": partial(jm.models.from_linen, Both(), (FEATURES,)),
    "nnx": partial(jm.models.from_nnx, BothNNX),
}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_network_is_told_of_mask_and_training(flavour):
    model, x, mask = (
        BOTH[flavour](),
        normal(0, 6, FEATURES),
        np.array([1, 1, 1, 1, 0, 0.0]),
    )
    params = double(model.init(key(0)))
    mean, variance = map(np.asarray, moments(x, mask))
    normed = (x - mean[None]) / np.sqrt(variance + 1e-5)[None]
    expected, apply = np.exp(normed[:4]).sum(axis=0), jax.jit(model.apply)
    plain = np.asarray(apply(params, x, mask))
    close(plain, expected)
    noisy = np.asarray(jax.jit(model.noisy)(params, x, mask, key(1), 0))
    assert np.abs(noisy - plain).min() > 1e-3
    # told by the user: batch norm must then have statistics, and there is no noise
    with pytest.raises(ValueError, match="running statistics .* were not given"):
        model = BOTH[flavour](train=False)
        model.apply(params, x, mask)
    model = BOTH[flavour](train=False, statistics="batch")
    close(jax.jit(model.apply)(params, x, mask), expected)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_dropout_is_on_in_training_alone(flavour):
    """With outputs that are the first activations, what dropout did to them is seen."""
    model, x = given(flavour, statistics="batch"), normal(0, 400, FEATURES)
    params = double(trained()[0])
    params["head"] = {"kernel": np.eye(8)[:, :3], "bias": np.zeros(3)}
    plain = np.asarray(jax.jit(activations)(params, x))[:, :3]
    close(jax.jit(model.apply)(params, x), plain)
    compiled = jax.jit(model.noisy)
    noisy = lambda seed: np.asarray(compiled(params, x, None, key(seed), 0))
    seen = noisy(1)
    kept = seen != 0
    close(seen, np.where(kept, 2 * plain, 0))
    assert abs(kept.mean() - 0.5) < 0.03
    close(noisy(1), seen)
    assert abs((kept & (noisy(2) != 0)).mean() - 0.25) < 0.03  # independent


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_network_without_noise_has_none(flavour):
    if flavour == "linen":
        model = jm.models.from_linen(nn.Dense(3), (FEATURES,))
    else:
        model = jm.models.from_nnx(lambda rngs: nnx.Linear(FEATURES, 3, rngs=rngs))
    assert model.noisy is None


def untouched():
    """The statistics of a network that was never trained."""
    return {"batch_stats": {"norm": {"mean": np.zeros(8), "var": np.ones(8)}}}


LINEN = partial(jm.models.from_linen, Linen(), (FEATURES,))
WITHOUT_STATISTICS = [
    lambda: LINEN(statistics="running"),
    lambda: LINEN(variables=untouched(), statistics="running"),
    lambda: made("linen", running=True),
    lambda: jm.models.from_nnx(NNX, statistics="running"),
    lambda: jm.models.from_nnx(NNX(nnx.Rngs(0)), statistics="running"),
    lambda: made("nnx", running=True),
]


@pytest.mark.parametrize("make", WITHOUT_STATISTICS)
def test_running_statistics_must_be_those_of_a_trained_network(make):
    with pytest.raises(ValueError, match="running statistics .* were not given"):
        make()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_network_that_asks_for_running_statistics_can_be_overruled(flavour):
    kwargs = {"statistics": "batch"}
    if flavour == "linen":
        model = jm.models.from_linen(Linen(running=True), (FEATURES,), **kwargs)
    else:
        model = jm.models.from_nnx(partial(NNX, running=True), **kwargs)
    x, params = normal(0, 6, FEATURES), double(trained()[0])
    close(jax.jit(model.apply)(params, x), jax.jit(by_hand)(params, x))


def test_variables_must_fit_the_module():
    for variables, sentence in (
        ({"batch_stat": {"norm": {"mean": np.zeros(8)}}}, r"\['batch_stat'\]"),
        ({"batch_stats": {"norm": {"mean": np.ones(9), "var": np.ones(8)}}}, r"\(8,\)"),
        ({"batch_stats": {"norm": {"mean": np.ones(8)}}}, r"\['var'\]: .* got none"),
        ({"params": {"body": {"kernel": np.ones((2, 2))}}}, r"\['body'\]\['kernel'\]"),
    ):
        with pytest.raises(ValueError, match=sentence):
            LINEN(variables=variables)
    with pytest.raises(ValueError, match="statistics: expected one of batch, running"):
        LINEN(statistics="group")


OTHER_THINGS = [
    (
        lambda: jm.models.from_linen(NNX(nnx.Rngs(0)), (4,)),
        "module: expected a flax.linen",
    ),
    (lambda: LINEN(variables=[1]), "variables: expected the dict that module.init"),
    (lambda: jm.models.from_nnx(lambda rngs: Linen()), "a function rngs -> nnx.Module"),
    (lambda: jm.models.from_nnx(3), "make: expected a function, got 3"),
    (lambda: jm.models.pretrained(Linen(), {}), "model: expected a Model"),
    (lambda: jm.models.normalised_by(Linen(), jnp.ones(3)), "model: expected a Model"),
    (lambda: jm.with_support_statistics(jm.maml, Linen()), "model: expected a Model"),
    (lambda: jm.with_noise(jm.maml, Linen()), "model: expected a Model"),
]


@pytest.mark.parametrize(("make", "sentence"), OTHER_THINGS)
def test_other_things_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
