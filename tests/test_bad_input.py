"""Wrong arguments of every public call get a sentence that names the argument.

The calls are generated from the signatures: each argument of each call gets the values
that are wrong for its kind (NaN, infinite, negative, a fraction, True, a string, None,
an array), and those that are unusual but right (numpy's numbers).
"""

import inspect
import math
import re
import types
import typing
from fractions import Fraction
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmeta as jm
from jaxmeta import (
    adjoints,
    continual,
    data,
    envs,
    learners,
    models,
    solvers,
    tasks,
    transfer,
)
from jaxmeta.data import Dataset
from jaxmeta.learners.registry import Facts
from jaxmeta.types import Model, Sampler

NAN, INF = math.nan, math.inf
TWO = np.array([0.1, 0.2])
STRANGE = [Fraction(1, 3), True, "x", None, TWO, (0.1, 0.2), object()]
WRONG = {
    "size": [NAN, INF, -1, 1.5, 2.0, 1 + 1j, np.float64(2), jnp.array(2), *STRANGE],
    "number": [
        NAN,
        INF,
        -INF,
        -1,
        -0.1,
        1j,
        np.float32("nan"),
        jnp.array(NAN),
        *STRANGE,
    ],
    "flag": ["x", None, 0, 1, NAN, TWO, ()],
    "word": ["x", None, 5, NAN, TWO, ["x"]],
    "text": [None, 5, NAN, TWO, ["x"]],
    "function": [None, "x", 5, TWO],
    "adjoint": [None, "x", 5, jm.MixedMode, TWO],
    "model": [None, "x", 5, TWO, nn.Dense(3), models.mlp, Model(None, None)],  # ty: ignore
    "range": [None, "xy", 1.0, (1.0,), (2.0, 1.0), (NAN, 1.0), (0.0, INF), (0, 1, 2)],
    "shape": [None, "x", NAN, (0,), (1.5,), (-1,), ("x",), [True], 0, TWO],
    "dataset": [None, "x", np.zeros((4, 2)), [np.zeros(2)]],
    "learner": [None, "x", 5, jm.maml, models.mlp()],
    "sampler": [None, "x", 5, tasks.sinusoid, tasks.Sinusoid],
    "optimizer": [None, "x", 0.1, optax.adam],
    "key": [None, 0, "x", jax.random.PRNGKey(0), np.zeros(2)],
    "array": ["x", object(), [[1.0], [1.0, 2.0]]],
    "state": ["x", 5, {}],
    "log": ["x", 5, jm.Log],
    "path": [None, 5, NAN, TWO, ["x"]],
}
WRONG["seed"] = [*WRONG["size"], 2**32]
WRONG["keys"] = WRONG["key"]
HALF = [np.float64(0.5), np.float32(0.5), np.float16(0.5), jnp.array(0.5)]
RIGHT = {  # the same number or flag otherwise
    "size": (2, [np.int64(2), np.int32(2), np.uint8(2)]),
    "number": (0.5, [*HALF, jnp.array(0.5, jnp.bfloat16)]),
    "flag": (False, [np.bool_(False)]),
    "range": ((0.0, 1.0), [(np.float32(0), 1), [0, np.int64(1)], np.array([0.0, 1.0])]),
    "seed": (3, [np.int64(3), np.uint32(3)]),
}
# arguments that may be 0, besides their kind's own numbers
FROM_ZERO = {"inner_steps", "leader_steps", "tuning_steps", "inner_lr", "balance"}
FROM_ZERO |= {"multi_step_until", "first_order_until", "min_std", "smoothness", "gamma"}
FROM_ZERO |= {"support_weight", "entropy_weight", "kl_weight", "encoder_penalty"}
FROM_ZERO |= {"orthogonality", "drop_rate", "damping", "unlabelled", "distractors"}
FROM_ZERO |= {"jitter", "context", "pools", "remat", "start", "bias_std"}
FROM_ZERO |= {"trace", "discount", "entropy", "value", "penalty"}
FROM_ZERO |= {"weight", "reconstruction", "adversarial_lr", "adversarial_steps"}
FROM_ZERO |= {"label_noise", "pad", "brightness", "contrast", "saturation", "strength"}
FROM_ZERO |= {"epsilon", "eta", "save_seconds", "skipped_at_most", "shrinkage"}
FROM_ZERO |= {"user_shrinkage", "cluster_weight", "ponder_weight", "sample"}
ZERO_HERE = {
    ("clip", jm.rl2),
    ("shift", tasks.shifted),
    ("scale", tasks.shifted),
    ("noise", tasks.tables),
    ("noise", tasks.quadratic),
    ("noise", tasks.sinusoid_or_line),
    ("heads", models.set_encoder),
    ("regularization", jm.coral),
    ("regularization", jm.combiners.upgrad),
    ("regularization", jm.combiners.dualproj),
    ("c", jm.combiners.cagrad),
    ("alpha", jm.gradnorm),
}  # 0 is right here only
SIGNED = {"reward_mean"}  # below 0 as well
FROM_ZERO |= SIGNED
AT_LEAST = {"ways": 2, "classes": 2, "validation_tasks": 2, "points": 7}
KINDS = {int: "size", float: "number", bool: "flag", str: "text"}
KINDS |= {Model: "model", Dataset: "dataset", Sampler: "sampler", typing.Any: "array"}
KINDS |= {jm.MetaLearner: "learner", optax.GradientTransformation: "optimizer"}
KINDS |= {tuple[float, float]: "range", jm.MetaState: "state", jm.Log: "log"}
NAMED = {"seed": "seed", "adjoint": "adjoint", "keys": "keys"}
NAMED |= {"data_dir": "path", "root": "path", "key": "key", "path": "path"}
NAMED |= {"folder": "path"}

IMAGES = np.random.default_rng(0).random((60, 4, 4, 1), np.float32)
DATA = data.from_arrays(IMAGES, np.arange(60) % 6)
ITEMS = np.arange(60, dtype=np.int32) % 3
RATED = data.from_arrays(
    {"item": ITEMS}, np.arange(60) % 6, targets=np.ones((60, 1)), name="rated"
)
LEARNER = jm.maml(models.mlp(), inner_lr=0.01, loss=jm.losses.mse)
KEY = jax.random.key(0)
RUN = {"learner": LEARNER, "sampler": tasks.sinusoid(), "optimizer": optax.adam(1e-3)}
PROCESS = jm.Unroll(lambda key: key, lambda params, state, key: (state, 0.0), 3)
FULL = transfer.Stage(transfer.full(), RUN["optimizer"], 1)
TASK = tasks.sinusoid(3, 3).sample(jax.random.key(1))
ZEROS = lambda key: jnp.zeros(1)
LEVELS = {"inner": lambda w, phi, batch: jnp.sum((w - phi) ** 2), "init": ZEROS}
LEVELS |= {"outer": LEVELS["inner"], "start": ZEROS}
ONLINE = {"model": models.mlp(), "optimizer": RUN["optimizer"]}
STREAM = jm.Batch(np.zeros((2, 3, 1)), np.zeros((2, 3), int))

KINDS_OF_TASKS = {"kinds": 2, "which": len}

# what each call needs besides the argument that is wrong
CALLS = {
    tasks.sinusoid: {},
    tasks.gaussian_process: {},
    tasks.harmonics: {},
    tasks.image_completion: {"images": IMAGES, "shots": 2},
    tasks.linear: {},
    tasks.quadratic: {},
    tasks.sinusoid_or_line: {},
    tasks.tables: {},
    tasks.episodes: {"dataset": DATA, "queries": 2},
    tasks.classes: {"dataset": DATA},
    tasks.users: {"dataset": RATED, "queries": 2},
    tasks.domains: {"source": DATA, "target": DATA},
    tasks.rotated: {"dataset": DATA},
    tasks.shifted: {"dataset": DATA},
    tasks.streams: {"dataset": DATA, "shots": 2},
    tasks.umtra: {"images": IMAGES},
    tasks.cactus: {
        **{"images": IMAGES, "embeddings": IMAGES.reshape(60, 16)},
        **{"clusters": 4, "ways": 2, "queries": 1, "partitions": 1},
    },
    tasks.augment.flip: {},
    tasks.augment.crop: {},
    tasks.augment.colour: {},
    tasks.augment.affine: {},
    tasks.augment.cutout: {"size": 4},
    tasks.augment.mixup: {},
    data.from_arrays: {"x": IMAGES, "labels": np.arange(60) % 6},
    data.glyphs: {},
    data.digits: {},
    data.omniglot: {"root": "nowhere"},
    data.cifar_fs: {"root": "nowhere"},
    data.fc100: {"root": "nowhere"},
    data.mini_imagenet: {"root": "nowhere"},
    data.tiered_imagenet: {"root": "nowhere"},
    data.cub: {"root": "nowhere"},
    data.ratings: {"root": "nowhere"},
    data.from_texts: {"texts": ["a", "b"], "labels": [0, 1]},
    data.hashed: {"texts": ["a", "b"]},
    data.leopard: {"root": "nowhere", "name": "airline"},
    data.from_tfds: {"name": "mnist"},
    data.from_folder: {"path": "nowhere"},
    data.from_csv: {"path": "nowhere"},
    data.from_parquet: {"path": "nowhere"},
    data.from_huggingface: {
        **{"dataset": [{"image": IMAGES[0], "label": 0}], "image": "image"}
    },
    models.mlp: {},
    models.conv4: {},
    models.resnet12: {},
    models.relation_module: {},
    models.transformer: {"inputs": 2, "outputs": 2, "heads": 1},
    models.set_encoder: {"inputs": 2, "outputs": 2},
    models.cross_attention: {"inputs": 2, "values": 2, "heads": 1},
    models.rater: {"items": 3},
    models.reader: {"outputs": 2, "heads": 1},
    models.from_functions: {"init": lambda key: (), "apply": lambda params, x: x},
    adjoints.MixedMode: {},
    adjoints.Reverse: {},
    adjoints.Truncated: {"k": 1},
    adjoints.Implicit: {},
    jm.fixed_point: {"f": lambda z, phi, x: z / 2},
    jm.bilevel: {**LEVELS, "inner_steps": 1},
    jm.online_bilevel: {**LEVELS, "optimizer": RUN["optimizer"]},
    tasks.single: {"train": TASK.support, "validation": TASK.query},
    jm.item_means: {"item": ITEMS, "rating": np.ones(60), "items": 3},
    jm.es_gradient: {"learner": LEARNER},
    jm.pes: {"problem": PROCESS},
    jm.task_gradients: {"learner": LEARNER, "combine": jm.combiners.mean},
    jm.uncertainty_weighting: {"learner": LEARNER, **KINDS_OF_TASKS},
    jm.gradnorm: {**{k: RUN[k] for k in ("learner", "optimizer")}, **KINDS_OF_TASKS},
    jm.combiners.cagrad: {"gramian": jnp.eye(2)},
    jm.combiners.nash_mtl: {"gramian": jnp.eye(2)},
    jm.combiners.upgrad: {"gramian": jnp.eye(2)},
    jm.combiners.dualproj: {"gramian": jnp.eye(2)},
    jm.learned_rule: {
        "model": models.mlp(),
        "rule": optax.sgd,
        "init_rule": lambda k, t: 0.1,
    },
    jm.lstm_optimizer: {"phi": {"lstm1": {"b": jnp.zeros(8)}}},
    jm.init_state: {"learner": LEARNER, "optimizer": RUN["optimizer"], "key": KEY},
    jm.make_step: {"learner": LEARNER, "optimizer": RUN["optimizer"]},
    jm.sample_tasks: {"sampler": RUN["sampler"], "key": KEY, "num_tasks": 2},
    jm.fit: {**RUN, "steps": 3, "key": KEY},
    jm.fit_population: {
        "make": lambda: (LEARNER, RUN["optimizer"]),
        "sampler": RUN["sampler"],
        "keys": jax.random.split(KEY, 2),
        "steps": 2,
    },
    jm.evaluate: {
        **{"learner": LEARNER, "sampler": RUN["sampler"]},
        **{"params": LEARNER.init(KEY), "key": KEY},
    },
    jm.evaluate_episodes: {
        **{"learner": LEARNER, "params": LEARNER.init(KEY), "tasks": [TASK]}
    },
    jm.with_noise: {"make": jm.protonet, "model": models.resnet12()},
    jm.with_support_statistics: {"make": jm.protonet, "model": models.conv4(None)},
    jm.Log: {"path": None},
    jm.Checkpoints: {"folder": "nowhere"},
    envs.bandit: {},
    envs.tabular: {},
    envs.navigation: {},
    envs.corners: {},
    envs.semicircle: {},
    envs.grid: {},
    envs.dark_room: {},
    continual.plain: ONLINE,
    continual.ewc: ONLINE,
    continual.si: ONLINE,
    continual.replay: ONLINE,
    continual.agem: ONLINE,
    continual.look_ahead: {"learner": LEARNER, "optimizer": RUN["optimizer"]},
    continual.parts: {"dataset": DATA},
    continual.run: {
        **{"online": continual.plain(models.mlp(1, 2), RUN["optimizer"]), "key": KEY},
        **{"stream": STREAM, "tests": STREAM},
    },
    jm.asynchronous: {},
    transfer.linear_probe: {},
    transfer.bitfit: {},
    transfer.film: {},
    transfer.adapters: {},
    transfer.lora: {"rank": 2},
    transfer.l2_sp: {},
    transfer.by_depth: {
        **{"optimizer": RUN["optimizer"], "decay": 0.5, "layers": ("head",)}
    },
    transfer.lp_ft: {
        **{"probe": RUN["optimizer"], "full": RUN["optimizer"], "steps": (1, 1)}
    },
    transfer.restricted: {
        **{"model": models.mlp(), "params": models.mlp().init(KEY)},
        **{"partition": transfer.full()},
    },
    transfer.fine_tune: {
        **{"model": models.mlp(), "params": models.mlp().init(KEY), "key": KEY},
        **{"batch": TASK.support, "plan": (FULL,), "loss": jm.losses.mse},
    },
    transfer.load_safetensors: {"path": "nowhere"},
    solvers.sinkhorn: {"cost": jnp.ones((2, 2)), "rows": TWO, "columns": TWO},
}
# arguments that are taken apart elsewhere, or that may be anything
APART = {"params", "phi", "frozen", "tasks", "swept", "labels"}
APART |= {"policy", "layers", "partition", "plan", "batch", "squared_bandwidths"}


class Unrun:
    """`Networks` none of which is run."""

    facts, width = Facts(ways=5), 64

    def predictor(self, *, context=0):
        return models.mlp(1, 2, (4,), context=min(context, 2))

    def encoder(self, *sizes):
        return models.mlp(1, 64, (4,))

    maps = pairs = mlp = sets = attention = encoder

    def rater(self, outputs):
        return models.rater(3, outputs, (4,), width=2)


SMALL = {"env": jm.envs.bandit(arms=2), "classes": 4, "heads": 1, "reads": 1}


def learner_calls():
    for entry in learners.REGISTRY.values():
        signature = inspect.signature(entry.constructor).parameters.values()
        given = dict(
            zip((p.name for p in signature), entry.networks(Unrun()), strict=False)
        )
        given |= {k: v for k, v in SMALL.items() if entry.takes(k)}
        yield entry.constructor, given


def kind_of(call, parameter):
    """Its kind, and whether it may be None; no kind for what is APART."""
    hints = typing.get_type_hints(call.__init__ if inspect.isclass(call) else call)
    hint, optional = hints.get(parameter.name, type(parameter.default)), False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        parts = typing.get_args(hint)
        optional = type(None) in parts
        hint = next(part for part in parts if part is not type(None))
        if int in parts and len(parts) > 1 + optional:
            hint = tuple if tuple in map(typing.get_origin, parts) else int
    if parameter.name in APART or (call is solvers.sinkhorn and hint is jax.Array):
        return None, optional
    if parameter.name in NAMED:
        return NAMED[parameter.name], optional
    if hint in KINDS:
        return KINDS[hint], optional
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        return "word", optional
    return ("shape" if tuple in (hint, origin) else "function"), optional


def wrong_for(call, kind, optional, name):
    below = lambda v: type(v) in (int, float) and -INF < v < 0
    values = [v for v in WRONG[kind] if not (name in SIGNED and below(v))]
    if (
        kind in ("size", "number")
        and name not in FROM_ZERO
        and (name, call) not in ZERO_HERE
    ):
        values += range(AT_LEAST.get(name, 1))
    pair = call is jm.meta_sgd and name == "inner_lr"  # (low, high)
    right = (optional, type(None)), (pair, tuple)
    return [v for v in values if not any(r and isinstance(v, t) for r, t in right)]


def generated():
    """(id, call, argument, kind, wrong values) for all arguments of all calls."""
    for call, given in [*learner_calls(), *CALLS.items()]:
        for parameter in inspect.signature(call).parameters.values():
            kind, optional = kind_of(call, parameter)
            if kind is None:
                continue
            values = wrong_for(call, kind, optional, parameter.name)
            yield pytest.param(
                partial(with_argument, call, given, parameter.name),
                *(parameter.name, kind, values),
                id=f"{call.__name__}-{parameter.name}",
            )


def with_argument(call, given, name, value):
    return call(**{**given, name: value})


GENERATED = list(generated())


def refusal(call, *args):
    """The sentence of a ValueError; anything else is a failure of the test."""
    with pytest.raises(ValueError) as caught:
        call(*args)
    assert type(caught.value) is ValueError, caught.value
    return str(caught.value)


def said_of(argument, sentence):
    """Whether the sentence names the argument, and says what was expected."""
    named = re.search(rf"\b{argument}\b", sentence)
    return bool(named and re.search(r"expected|wanted|leave|leaves", sentence))


@pytest.mark.parametrize(("call", "argument", "kind", "values"), GENERATED)
def test_a_wrong_argument_gets_a_sentence(call, argument, kind, values):
    for value in values:
        sentence = refusal(call, value)
        assert said_of(argument, sentence), (value, sentence)
        assert len(sentence) < 400 and " object at 0x" not in sentence


RUNS = (jm.fit, jm.fit_population, jm.evaluate, jm.evaluate_episodes, jm.sample_tasks)
RUNS += (data.omniglot, data.mini_imagenet, data.tiered_imagenet, data.cub)
RUNS += (solvers.sinkhorn, data.ratings, continual.run)
COMPUTING = transfer.fine_tune, *vars(jm.combiners).values()  # would compile for long
SAME = [
    c for c in GENERATED if c.values[2] in RIGHT and c.values[0].args[0] not in RUNS
]


@pytest.mark.parametrize(("call", "argument", "kind", "values"), SAME)
def test_numbers_of_numpy_are_as_good_as_those_of_python(call, argument, kind, values):
    plain, others = RIGHT[kind]
    for value in others:
        assert outcome(call, value) == outcome(call, plain)


def outcome(call, value):
    """None, or what another check says (sizes have to fit each other)."""
    try:
        if call.args[0] in COMPUTING:
            jax.eval_shape(lambda: (call(value), None)[1])
        else:
            call(value)
    except ValueError as error:
        return re.sub(r"got.*", "", str(error))


def test_numbers_of_numpy_run():
    """np.int64 sizes and np.float32 rates, through sampling, training and testing."""
    two = np.int64(2)
    sampler = tasks.sinusoid(shots=two, queries=two)
    learner = jm.maml(
        models.mlp(1, 1, (two,)),
        inner_lr=np.float32(0.25),
        inner_steps=two,
        loss=jm.losses.mse,
        adjoint=jm.Truncated(two),
    )
    sizes = {"steps": two, "tasks_per_step": two, "chunk": two, "tasks_at_once": two}
    state = jm.fit(learner, sampler, optax.adam(1e-3), key=jax.random.key(0), **sizes)
    report = jm.evaluate(
        learner, state.params, sampler, key=jax.random.key(1), num_tasks=two
    )
    assert int(state.step) == 2 and report.num_tasks == 2 and not report.diverged


def test_a_rate_is_a_number_a_schedule_or_traced():
    schedule = optax.linear_schedule(0.1, 0.0, 5)
    jm.maml(models.mlp(), inner_lr=schedule)
    traced = lambda rate: jm.maml(models.mlp(), inner_lr=rate) and rate
    jax.vmap(traced)(jnp.array([0.1, 0.2]))
    for make in (jm.alfa, jm.bmaml, jm.meta_curvature, jm.maml_plus_plus):
        sentence = refusal(partial(make, models.mlp(), inner_lr=schedule))
        assert said_of("inner_lr", sentence)


TRAIN = [("steps", INF), ("steps", NAN), ("tasks_per_step", 1.5), ("chunk", INF)]


@pytest.mark.parametrize(("argument", "value"), TRAIN)
def test_what_would_never_end_is_refused_before_the_loop(argument, value):
    given = {**RUN, "key": KEY, "steps": 5, argument: value}
    assert said_of(argument, refusal(partial(jm.fit, **given)))
