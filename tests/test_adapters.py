"""A user's own network, in both flavours of Flax, against itself written by hand."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from problems import double, pad

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")

key = jax.random.key
FLAVOURS = ["linen", "nnx"]
WAYS, FEATURES = 3, 4
close = partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8)


def same(a, b, tolerance=1e-8):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=tolerance), a, b)


# The network: dense, batch norm, sigmoid, dropout, dense. Its parameters are one tree in
# both flavours.


class Linen(nn.Module):
    outputs: int = WAYS
    running: bool | None = None
    tokens: bool = False

    @nn.compact
    def __call__(self, x):
        if self.tokens:
            x = jnp.mean(nn.Embed(7, FEATURES, name="embed")(x), axis=1)
        x = nn.Dense(8, name="body")(x)
        x = nn.sigmoid(nn.BatchNorm(self.running, name="norm")(x))
        return nn.Dense(self.outputs, name="head")(nn.Dropout(0.5)(x))


class NNX(nnx.Module):
    def __init__(self, rngs, running=False, tokens=False):
        if tokens:
            self.embed = nnx.Embed(7, FEATURES, rngs=rngs)
        self.tokens = tokens
        self.body = nnx.Linear(FEATURES, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_running_average=running, rngs=rngs)
        self.norm.mean = nnx.BatchStat(
            jnp.zeros(8)
        )  # Flax warns of float32 and float64
        self.norm.var = nnx.BatchStat(jnp.ones(8))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, WAYS, rngs=rngs)

    def __call__(self, x):
        if self.tokens:
            x = jnp.mean(self.embed(x), axis=1)
        return self.head(self.dropout(nnx.sigmoid(self.norm(self.body(x)))))


def hidden(params, x):
    """What batch norm sees."""
    if "embed" in params:
        x = jnp.mean(params["embed"]["embedding"][x], axis=1)
    return x @ params["body"]["kernel"] + params["body"]["bias"][None]


def moments(h, mask=None):
    """Mean and variance over the examples that count."""
    weights = jnp.ones(len(h)) if mask is None else mask / jnp.sum(mask)
    weights = (weights / jnp.sum(weights))[:, None]
    mean = jnp.sum(weights * h, axis=0)
    return mean, jnp.sum(weights * jnp.square(h - mean[None]), axis=0)


def activations(params, x, mask=None, statistics=None):
    h = hidden(params, x)
    mean, variance = statistics or moments(h, mask)
    h = (h - mean[None]) / jnp.sqrt(variance + 1e-5)[None]
    norm = params["norm"]
    return jax.nn.sigmoid(h * norm["scale"][None] + norm["bias"][None])


def by_hand(params, x, mask=None, statistics=None):
    h = activations(params, x, mask, statistics)
    return h @ params["head"]["kernel"] + params["head"]["bias"][None]


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@cache
def trained(tokens=False):
    """Parameters and running statistics of a trained network."""
    random = np.random.default_rng(0)
    dense = lambda a, b: {
        "kernel": random.normal(size=(a, b)), "bias": random.normal(size=b)
    }  # fmt: skip
    params = {"body": dense(FEATURES, 8), "head": dense(8, WAYS)}
    params["norm"] = {"scale": random.normal(size=8), "bias": random.normal(size=8)}
    if tokens:
        params["embed"] = {"embedding": random.normal(size=(7, FEATURES))}
    return params, (random.normal(size=8), random.uniform(0.5, 2, size=8))


def given(flavour, tokens=False, **kwargs):
    """The trained network, with its running statistics."""
    params, (mean, variance) = trained(tokens)
    if flavour == "linen":
        shape, dtype = ((5,), jnp.int32) if tokens else ((FEATURES,), jnp.float64)
        stats = {"norm": {"mean": mean, "var": variance}}
        variables = {"params": params, "batch_stats": stats}
        return jm.models.from_linen(
            Linen(tokens=tokens), shape, dtype=dtype, variables=variables, **kwargs
        )
    module = NNX(nnx.Rngs(0), tokens=tokens)
    state = nnx.state(module, nnx.Param)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, params))
    nnx.update(module, state)
    module.norm.mean = nnx.BatchStat(jnp.asarray(mean))
    module.norm.var = nnx.BatchStat(jnp.asarray(variance))
    return jm.models.from_nnx(module, **kwargs)


def made(flavour, **kwargs):
    """The network untrained."""
    if flavour == "linen":
        return jm.models.from_linen(Linen(**kwargs), (FEATURES,), dtype=jnp.float64)
    return jm.models.from_nnx(partial(NNX, **kwargs))


@cache
def sampler(tokens=False, padded=False):
    random = np.random.default_rng(0)
    x = random.normal(size=(48, FEATURES))
    x = random.integers(0, 7, (48, 5)) if tokens else x + np.arange(48)[:, None] % 6
    data = jm.data.from_arrays(x, np.arange(48) % 6)
    episodes = jm.tasks.episodes(data, WAYS, shots=2, queries=2)
    return Padded(episodes) if padded else episodes


@jax.tree_util.register_dataclass
@dataclass
class Padded:
    """Tasks with three masked rows of nonsense in each set."""

    episodes: Any

    def sample(self, key):
        return jm.Task(*(pad(batch, 3, 1e3) for batch in self.episodes.sample(key)))


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


def through_every_door(model, tasks):
    """What fit, evaluate, adapt and predict make of it, outside and under jit."""
    learner = jm.maml(model, inner_lr=0.1)
    init = lambda key: double(model.init(key))
    learner = learner._replace(init=init)
    state = jm.fit(learner, tasks, optax.sgd(0.1), steps=2, key=key(0), chunk=2)
    report = jm.evaluate(learner, state.params, tasks, num_tasks=3, key=key(1))
    task = double(tasks.sample(key(2)))
    adapted = learner.adapt(state.params, task.support)
    logits = learner.predict(adapted, task.query.x, task.query.mask)
    jitted = jax.jit(lambda params, task: learner.predict(
        learner.adapt(params, task.support), task.query.x, task.query.mask
    ))(state.params, task)  # fmt: skip
    same(jitted, logits)
    return state.params, report.per_task, adapted, logits


@cache
def expected(case):
    params, apply = CASES[case][1]()
    copy = lambda key: jax.tree.map(jnp.array, params)
    return through_every_door(jm.Model(copy, apply, uses_mask=True), CASES[case][2]())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_network_is_itself_by_hand_through_every_door(flavour, case):
    make, _, tasks = CASES[case]
    found = through_every_door(make(flavour), tasks())
    same(found[0], expected(case)[0])
    for ours, theirs in zip(found[1:], expected(case)[1:], strict=True):
        same(ours, theirs, 1e-7)


def examples(seed, n=6, classes=WAYS):
    return jm.Batch(normal(seed, n, FEATURES), jnp.arange(n) % classes)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_padding_changes_no_loss(flavour):
    """A batch norm that knows nothing of masks, and three padded rows."""
    learner = jm.maml(made(flavour), inner_lr=0.1)
    params = double(learner.init(key(0)))
    task = jm.Task(examples(1), examples(2))
    padded = jm.Task(*(pad(batch, 3, jnp.nan) for batch in task))
    close(learner.loss(params, padded)[0], learner.loss(params, task)[0])


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
        model.apply(model.init(key(0)), jnp.ones((3, FEATURES)), jnp.ones(3))


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
        jnp.array([1, 1, 1, 1, 0, 0.0]),
    )
    params = double(model.init(key(0)))
    mean, variance = moments(x, mask)
    normed = (x - mean[None]) / jnp.sqrt(variance + 1e-5)[None]
    close(model.apply(params, x, mask), jnp.sum(jnp.exp(normed[:4]), axis=0))
    noisy = model.noisy(params, x, mask, key(1), 0)
    assert jnp.abs(noisy - model.apply(params, x, mask)).min() > 1e-3
    # told by the user: batch norm must then have statistics, and there is no noise
    with pytest.raises(ValueError, match="running statistics .* were not given"):
        model = BOTH[flavour](train=False)
        model.apply(params, x, mask)
    model = BOTH[flavour](train=False, statistics="batch")
    close(model.apply(params, x, mask), jnp.sum(jnp.exp(normed[:4]), axis=0))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_dropout_is_on_in_training_alone(flavour):
    """With outputs that are the first activations, what dropout did to them is seen."""
    model, x = given(flavour, statistics="batch"), normal(0, 400, FEATURES)
    params = double(trained()[0])
    params["head"] = {"kernel": jnp.eye(8)[:, :3], "bias": jnp.zeros(3)}
    plain = activations(params, x)[:, :3]
    close(model.apply(params, x), plain)
    noisy = lambda seed: model.noisy(params, x, None, key(seed), 0)
    seen = noisy(1)
    kept = seen != 0
    close(seen, jnp.where(kept, 2 * plain, 0))
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


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_given_parameters_survive_a_donated_state(flavour):
    learner = jm.protonet(given(flavour), ways=WAYS)
    optimizer = optax.sgd(0.1)
    tasks = jax.tree.map(lambda a: a[None], jm.Task(examples(1), examples(2)))
    step = jm.make_step(learner, optimizer)
    for seed in (0, 1):  # the same parameters, from any key
        state = jm.init_state(learner, optimizer, key(seed))
        same(state.params, jax.tree.map(np.asarray, trained()[0]))
        step(state, tasks, key(2))


@pytest.mark.parametrize("learned", [(), ("head",)])
def test_frozen_layers_are_constants(learned):
    """Of a pre-trained network, what is learned is all there is; a new head is new."""
    body = {name: layer for name, layer in trained()[0].items() if name != "head"}
    network = jm.Model(lambda k: made("linen").init(k), by_hand, uses_mask=True)
    if learned:
        model = jm.models.pretrained(network, body, learned=learned)
        head = model.init(key(3))["head"]["kernel"]
        same(head, network.init(key(3))["head"]["kernel"])
        assert set(model.init(key(0))) == {"head"}
        learner = jm.anil(model, inner_lr=0.1)
    else:
        model = jm.models.pretrained(network, trained()[0], learned=())
        assert model.init(key(0)) == {}
        learner = jm.protonet(model, ways=WAYS)
    state = jm.fit(learner, sampler(), optax.sgd(0.1), steps=1, key=key(0), chunk=1)
    assert set(state.params) == set(learned)


PRETRAINED = [
    ({"neck": {}}, None, r"params\['neck'\]"),
    ({"head": {"kernel": np.ones((8, 2)), "bias": np.ones(3)}}, None,
     r"params\['head'\]\['kernel'\]: expected an array of \(8, 3\), got .* \(8, 2\)"),
    ({}, ("head", "tail"), "learned: the model has no 'tail'; it has body, head, norm"),
    ({}, ("head",), "learned: body, norm would be frozen, but params has no such"),
    ([1.0], ("head",), "params"),
]  # fmt: skip


@pytest.mark.parametrize(("params", "learned", "sentence"), PRETRAINED)
def test_parameters_that_do_not_fit_are_refused(params, learned, sentence):
    if "neck" in params:
        params = {"neck": {"kernel": np.ones(3)}}
    with pytest.raises(ValueError, match=sentence):
        jm.models.pretrained(made("linen"), params, learned=learned)


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
    close(model.apply(params, x), by_hand(params, x))


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


# Whose statistics normalise


def images(seed, n=6):
    return normal(seed, n, 16, 16, 1)


SMALL = {"input_shape": (16, 16, 1), "widths": (2, 2, 2, 2)}
NETWORKS = {  # with the inputs that it takes, by a seed
    "conv4": (lambda: jm.models.conv4(WAYS, **SMALL), images),
    "resnet12": (lambda: jm.models.resnet12(WAYS, **SMALL), images),
    "linen": (lambda: made("linen"), lambda seed: normal(seed, 6, FEATURES)),
    "nnx": (lambda: made("nnx"), lambda seed: normal(seed, 6, FEATURES)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_one_query_at_a_time_is_a_batch_of_queries(name):
    make, inputs = NETWORKS[name]
    model = make()
    learner = jm.with_support_statistics(lambda m: jm.protonet(m, ways=WAYS), model)
    plain = jm.protonet(model, ways=WAYS)
    params = double(learner.init(key(0)))
    support, x = jm.Batch(inputs(1), jnp.arange(6) % WAYS), inputs(2)
    adapted = learner.adapt(params, support)
    same(adapted.adapted, plain.adapt(params, support))  # by its own statistics
    together = learner.predict(adapted, x)
    alone = jax.jit(jax.vmap(lambda x: learner.predict(adapted, x[None])[0]))(x)
    close(alone, together)
    assert jnp.abs(plain.predict(adapted.adapted, x) - together).max() > 1e-2

    fixed = jax.jit(jm.models.normalised_by(model, support.x).apply)
    close(fixed(params, x[2:3]), fixed(params, x)[2:3])
    close(fixed(params, support.x), jax.jit(model.apply)(params, support.x))


def maml_by_hand(params, task, reference=None):
    """Query loss after three steps; statistics of the support set or the reference."""

    def loss(params, x, y, seen):
        statistics = moments(hidden(params, seen))
        log_p = jax.nn.log_softmax(by_hand(params, x, None, statistics), axis=1)
        return -jnp.mean(jnp.take_along_axis(log_p, y[:, None], axis=1))

    seen = task.support.x if reference is None else reference
    for _ in range(3):
        gradient = jax.grad(loss)(params, task.support.x, task.support.y, seen)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient)
    return loss(params, task.query.x, task.query.y, seen)


@pytest.mark.parametrize("whose", ["support", "reference"])
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_statistics_pass_the_meta_gradient(flavour, whose):
    """Three inner steps, several tasks at once, under jit, against plain autodiff."""
    tasks = [jm.Task(examples(i), examples(i + 10)) for i in range(2)]
    batch = jax.tree.map(lambda *a: jnp.stack(a), *tasks)
    make = partial(jm.maml, inner_lr=0.1, inner_steps=3)
    if whose == "support":
        reference, learner = None, jm.with_support_statistics(make, made(flavour))
    else:
        reference = normal(30, 5, FEATURES)
        learner = make(jm.models.normalised_by(made(flavour), reference))
    params = double(learner.init(key(0)))
    (_, _), found = jax.jit(jm.meta_gradient(learner, 2))(params, batch)
    mean = lambda p: sum(maml_by_hand(p, task, reference) for task in tasks) / 2
    same(found, jax.grad(mean)(params))


OF_EVERY_KIND = {
    "maml": partial(jm.maml, inner_steps=2, inner_lr=0.1),
    "protonet": partial(jm.protonet, ways=WAYS),
    "leo": partial(jm.leo, ways=WAYS, features=WAYS, latent=4),
    "siamese": partial(jm.siamese, ways=WAYS, features=WAYS),
    "mann": partial(
        jm.mann, ways=WAYS, features=WAYS, hidden=4, slots=8, size=3, reads=1
    ),
}


@pytest.mark.parametrize("name", OF_EVERY_KIND)
def test_with_support_statistics_no_query_sees_another(name):
    """The loss of a query set is the mean of the losses of its queries; padding in the
    support set changes nothing."""
    model = jm.Model(lambda k: made("linen").init(k), by_hand, uses_mask=True)
    learner = jm.with_support_statistics(OF_EVERY_KIND[name], model)
    params, task = double(learner.init(key(0))), jm.Task(examples(1), examples(2))
    loss = jax.jit(lambda task: learner.loss(params, task)[0])
    one = lambda x, y: loss(task._replace(query=jm.Batch(x[None], y[None])))
    close(jnp.mean(jax.vmap(one)(*task.query[:2])), loss(task))
    close(loss(task._replace(support=pad(task.support, 2, jnp.nan))), loss(task))


def test_statistics_need_a_model_that_leaves_examples_out():
    model = jm.Model(lambda k: (), lambda params, x: x)
    for make in (
        lambda: jm.models.normalised_by(model, jnp.ones((3, 2))),
        lambda: jm.with_support_statistics(jm.protonet, model),
    ):
        with pytest.raises(ValueError, match="the model takes no mask"):
            make()


# Noise

PASSES = {  # learner, passes of a task's training objective that must differ
    "maml": (partial(jm.maml, inner_steps=3), 3 + 1),
    "anil": (partial(jm.anil, inner_steps=3), 1 + 1),
    "reptile": (partial(jm.reptile, inner_steps=2, inner_batch=3), 2 + 1),
    "maml_plus_plus": (partial(jm.maml_plus_plus, inner_steps=2), 2 + 2),
    "bmaml": (partial(jm.bmaml, particles=2, inner_steps=2), 2 + 1 + 1),
    "bootstrapped": (partial(jm.bootstrapped, inner_steps=2, target_steps=2), 2 + 2 + 1),
    "leo": (partial(jm.leo, ways=WAYS, features=WAYS, latent=4), 1 + 1),
    "protonet": (partial(jm.protonet, ways=WAYS), 1 + 1),
    "transductive_finetuning": (
        partial(jm.transductive_finetuning, classes=WAYS, ways=WAYS, features=WAYS), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_of_a_task_has_its_own_noise(name):
    """As many keys as passes and tasks, and none without training."""
    make, passes = PASSES[name]
    seen = set()

    def noisy(params, x, mask, key, step):
        note = lambda data, step: seen.add((*data.tolist(), int(step)))
        jax.debug.callback(note, jax.random.key_data(key), step)
        return x[:, :WAYS] * params["head"]["w"][None]

    model = jm.Model(
        lambda key: {"head": {"w": jnp.ones(WAYS)}},
        lambda params, x, mask: x[:, :WAYS] * params["head"]["w"][None],
        uses_mask=True,
        noisy=noisy,
    )
    learner = jm.with_noise(make, model)
    params, task = double(learner.init(key(0))), jm.Task(examples(1), examples(2))
    learner.loss(params, task, key(1))
    assert not seen
    keys = jax.random.split(key(2), 2)
    train = jax.vmap(lambda key: learner.objective(params, task, key, 7)[0])
    jax.block_until_ready(jax.jit(train)(keys))
    jax.effects_barrier()
    assert len(seen) == 2 * passes and {s[-1] for s in seen} == {7}


def test_noise_passes_the_meta_gradient():
    """MixedMode is Reverse, with dropout in each step, in a padded task too."""
    gradients = []
    task = jm.Task(pad(examples(1), 2, jnp.nan), examples(2))
    tasks = jax.tree.map(lambda a: jnp.stack([a, a]), task)
    for adjoint in (jm.MixedMode(), jm.Reverse()):
        make = partial(jm.maml, inner_steps=3, adjoint=adjoint)
        learner = jm.with_noise(make, given("linen", statistics="batch"))
        gradient = jax.jit(jm.meta_gradient(learner, 2))
        params = jax.tree.map(jnp.asarray, trained()[0])
        gradients.append(gradient(params, tasks, key(3), 0)[1])
    same(*gradients)


def test_noise_has_no_implicit_gradient_and_no_place_in_processes():
    model, task = given("linen"), jm.Task(examples(1), examples(2))
    implicit = partial(jm.imaml, inner_steps=2)
    process = lambda m: jm.cnp(m, jm.models.mlp(8, 2))
    values = jm.Task(*(b._replace(y=normal(3, 6, 1)) for b in task))
    for make, given_task, sentence in (
        (implicit, task, "Implicit.* differentiates the solution of one objective"),
        (process, values, "computes with the inputs themselves"),
    ):
        learner = jm.with_noise(make, model)
        params = learner.init(key(0))
        with pytest.raises(ValueError, match=sentence):
            learner.objective(params, given_task, key(1), 0)


def test_what_a_learner_settles_passes_the_wrappers():
    """SimpleShot's mean of the training set, with noise and support statistics."""
    make = partial(jm.simpleshot, classes=6, ways=WAYS, features=WAYS)
    support = partial(jm.with_support_statistics, make)
    learner = jm.with_noise(support, made("linen"))
    random = np.random.default_rng(0)
    data = jm.data.from_arrays(random.normal(size=(12, FEATURES)), np.arange(12) % 6)
    classes = jm.tasks.classes(data, batch=6)
    state = jm.fit(learner, classes, optax.sgd(0.1), steps=1, key=key(0), chunk=1)
    assert jnp.abs(state.params.m).min() > 0
