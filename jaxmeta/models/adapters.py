"""A user's own network as a `Model`: Flax Linen, Flax NNX, plain functions.

Whatever a network has gets its place, the same one in both flavours of Flax:

    parameters          `Model.init(key)`, or those that were given (`pretrained`)
    frozen state        constants of `Model.apply`: running statistics, a fixed body
    train and eval      `apply` is eval; dropout and its like are on in `Model.noisy`
    randomness          `Model.noisy` draws all of it from one key, see `jm.with_noise`
    masks               reach each batch norm, and a parameter `mask` of the network
    normalisation       `statistics`: of the batch at hand, or the running ones

Layers are reached where they are called, so the network itself needs no change.
"""

import contextlib
import contextvars
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmeta import checks
from jaxmeta.boundary import remembered
from jaxmeta.models import parameters
from jaxmeta.types import Model

PyTree = Any
Statistics = Literal["batch", "running"]

# what networks call the argument that tells training from use; its value in training
FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False}


class _Pass(NamedTuple):
    """What a forward pass asks of the layers that it meets."""

    running: bool  # batch norm: the running statistics, or those of the batch at hand
    strict: bool  # refuse a layer that asks for running statistics by itself
    train: bool  # noise is on
    mask: jax.Array | None  # [examples]


@remembered
def from_linen(
    module: Any,
    input_shape: tuple[int, ...],
    *,
    dtype: Any = jnp.float32,
    variables: Mapping[str, Any] | None = None,
    statistics: Statistics | None = None,
    **kwargs: Any,
) -> Model:
    """A Flax Linen module as a `Model`.

    Args:
        module: a `flax.linen.Module` whose `__call__` takes x [n, *input_shape]. If it
            takes `mask`, it gets `Batch.mask`; if it takes `train`, `training`,
            `is_training` or `deterministic`, it is told whether noise is on.
        input_shape: shape of one example.
        dtype: of the inputs, e.g. `jnp.int32` for token numbers.
        variables: of a trained network. "params" (may be left out, or lack layers) is
            what `init` returns; all else is frozen: "batch_stats", and what else the
            module keeps.
        statistics: what batch norm normalises by. "batch": the batch at hand, without
            masked examples; "running": the "batch_stats" of `variables`; None =
            "running" if they were given, else "batch".
        kwargs: passed to each call as they are.

    Returns: a `Model`; its params are the module's `params` collection. What a call
        writes into other collections is thrown away: it is a function of params alone.
        `noisy` is there if the module draws random numbers in training.
    Raises: ValueError for variables that do not fit the module, for "running" without
        statistics of a trained network (mean 0 and variance 1 are none), and for a module
        that asks for running statistics by itself while there are none.

    >>> import flax.linen as nn, jax
    >>> model = from_linen(nn.Embed(10, 3), (), dtype=jax.numpy.int32)
    >>> model.apply(model.init(jax.random.key(0)), jax.numpy.array([1, 2])).shape
    (2, 3)
    """
    import flax.linen as nn
    from flax.core import unfreeze

    if not isinstance(module, nn.Module):
        raise ValueError(
            "module: expected a flax.linen.Module (an NNX module: jm.models.from_nnx), got "
            f"{checks.said(module)}"
        )
    checks.check_shapes(input_shape=input_shape)
    if not isinstance(variables, (Mapping, type(None))):
        raise ValueError(
            "variables: expected the dict that module.init returns, got "
            f"{checks.said(variables)}"
        )
    given = dict(unfreeze(dict(variables or {})))
    params = given.pop("params", None)
    running = _chosen(statistics, given.get("batch_stats"))
    call = _Call(type(module).__call__, kwargs)

    def run(method, x, mask=None, train=False, **how):
        strict = statistics is None and not running and (train or not call.flags)
        now = _Pass(running, strict, train, mask)
        with nn.intercept_methods(functools.partial(_intercept, nn, now)):
            return method(x=x, **call.arguments(train, x, mask), **how)

    def fresh(key):
        rngs = {"params": key}
        example = jnp.zeros((1, *input_shape), dtype)
        return run(lambda x, **how: module.init(rngs, x, **how), example)

    def forward(params, x, mask, train=False, rngs=None):
        state = given
        if missing:  # constants of initialisation, e.g. zeros
            made = fresh(jax.random.key(0))
            state = given | {name: made[name] for name in missing}
        every = {"params": params, **state}
        method = lambda x, **how: module.apply(every, x, **how)
        return run(method, x, mask, train, rngs=rngs, mutable=list(state))[0]

    key = jax.eval_shape(lambda: jax.random.key(0))
    shapes = dict(unfreeze(jax.eval_shape(fresh, key)))
    wanted = shapes.pop("params", {})
    missing = [name for name in shapes if name not in given]
    parameters.check_fits(
        "variables", given, {n: shapes[n] for n in shapes if n in given}
    )

    @jax.jit
    def init(key):
        return fresh(key).get("params", {})

    def apply(params, x, mask=None):
        return forward(params, x, mask)

    def noisy(params, x, mask, key, step):
        del step
        named, other = jax.random.split(key)  # by default streams are those of params
        return forward(params, x, mask, True, {"dropout": named, "params": other})

    def trial(rngs, params):
        return forward(params, jnp.zeros((2, *input_shape), dtype), None, True, rngs)

    random = _reads_first(trial, {"dropout": key, "params": key}, wanted)
    model = Model(init, apply, uses_mask=True, noisy=noisy if random else None)
    return model if params is None else pretrained(model, params)


def from_nnx(
    make: Any, *, statistics: Statistics | None = None, **kwargs: Any
) -> Model:
    """A Flax NNX module as a `Model`.

    Args:
        make: rngs -> module, e.g. `lambda rngs: MyNet(5, rngs=rngs)`; or a (pre-trained)
            module itself, as it is now: `init` returns its `nnx.Param`s, and all else
            (running statistics) is frozen.
        statistics, kwargs: as in `from_linen`; the running statistics are those of a
            module that was given. So are `mask` and `train` of the module's `__call__`.

    Returns: a `Model`; its params are the module's `nnx.Param`s as a plain dict. Other
        variables keep their values: every call is a function of `params` alone. `noisy`
        is there if the module keeps a stream of random numbers (`nnx.Dropout` does).
    Raises: ValueError as `from_linen`.

    >>> import jax
    >>> from flax import nnx
    >>> model = from_nnx(lambda rngs: nnx.Linear(2, 3, rngs=rngs))
    >>> params = model.init(jax.random.key(0))
    >>> model.apply(params, jax.numpy.ones((4, 2))).shape
    (4, 3)
    """
    from flax import nnx

    checks.check_functions(make=make)
    # a module may be changed from outside, a function makes the same again
    adapted = _from_nnx if isinstance(make, nnx.Module) else _from_nnx_remembered
    return adapted(make, statistics, **kwargs)


def _from_nnx(make, statistics, **kwargs) -> Model:
    from flax import nnx

    build, trained = make, {}
    if isinstance(make, nnx.Module):
        kept = nnx.clone(make)
        build = lambda rngs: nnx.clone(kept)
        trained = nnx.to_pure_dict(nnx.state(kept, nnx.BatchStat))
    running = _chosen(statistics, trained)

    def once():
        module = build(nnx.Rngs(0))
        if not isinstance(module, nnx.Module):
            raise ValueError(
                "make: expected an nnx.Module or a function rngs -> nnx.Module (a Linen "
                f"module: jm.models.from_linen), got one that makes {checks.said(module)}"
            )
        return module

    sketch = nnx.eval_shape(once)
    call = _Call(type(sketch).__call__, kwargs)
    for norm in _nodes(sketch, nnx.BatchNorm):
        if statistics is None and not running and norm.use_running_average:
            raise ValueError(_NO_STATISTICS)

    def split(key):
        return nnx.split(build(nnx.Rngs(key)), nnx.Param, ...)

    def forward(params, x, mask, key=None):
        graph, state, rest = split(jax.random.key(0))
        nnx.replace_by_pure_dict(state, params)
        net, train = nnx.merge(graph, state, rest), key is not None
        net.train() if train else net.eval()
        for i, stream in enumerate(_nodes(net, nnx.RngStream) if train else ()):
            now = jax.random.fold_in(jax.random.clone(key), i)
            shape = stream.key.shape
            stream.key[...] = jax.random.split(now, shape) if shape else now
        for layer in _nodes(net, (nnx.BatchNorm, nnx.Dropout, nnx.MultiHeadAttention)):
            object.__setattr__(layer, "__class__", _arranged_class(type(layer)))
        strict = statistics is None and not running and (train or not call.flags)
        with _set(_NOW, _Pass(running, strict, train, mask)):
            return net(x, **call.arguments(train, x, mask))

    def init(key):
        return jax.tree.map(jnp.array, nnx.to_pure_dict(split(key)[1]))

    def apply(params, x, mask=None):
        return forward(params, x, mask)

    def noisy(params, x, mask, key, step):
        del step
        return forward(params, x, mask, key)

    random = bool(_nodes(sketch, nnx.RngStream))
    return Model(init, apply, uses_mask=True, noisy=noisy if random else None)


_from_nnx_remembered = remembered(_from_nnx)


def from_functions(init: Callable, apply: Callable, *, uses_mask=False) -> Model:
    """A plain pair of functions as a `Model`: the same as `Model(init, apply)`.

    Args: init: key -> params; apply: (params, x [n, ...]) -> outputs [n, ...];
        uses_mask as in `Model`.
    Raises: ValueError if one of them can't be called.
    """
    checks.check_functions(init=init, apply=apply)
    checks.check_flags(uses_mask=uses_mask)
    return Model(init, apply, uses_mask)


def pretrained(
    model: Model, params: PyTree, *, learned: tuple[str, ...] | None = None
) -> Model:
    """A model that starts from given parameters, all or some of which are learned.

    Args:
        model: the network.
        params: where it starts, a tree like `model.init(key)`. Of a dict of layers some
            may be left out (a new head): they are initialised from the key.
        learned: names of the layers that are learned; the others are frozen: constants of
            the network, not among its parameters. () freezes all; None learns all.

    Returns: a `Model`; its params are the layers that are learned.
    Raises: ValueError for layers the model does not have, arrays of other shapes, a
        frozen layer that was not given, or `learned` for parameters that are no dict.

    >>> import jax, jaxmeta as jm
    >>> model = jm.models.mlp(2, 3)
    >>> trained = model.init(jax.random.key(0))
    >>> frozen_body = jm.models.pretrained(model, trained, learned=("head",))
    >>> list(frozen_body.init(jax.random.key(1)))
    ['head']
    """
    checks.check_models(model=model)
    wanted = jax.eval_shape(model.init, jax.eval_shape(lambda: jax.random.key(0)))
    layers = isinstance(wanted, dict) and isinstance(params, Mapping)
    params = jax.tree.map(jnp.asarray, dict(params) if layers else params)
    own = {n: wanted[n] for n in wanted if n in params} if layers else wanted
    parameters.check_fits("params", params, own)
    if learned is None:
        names = list(wanted) if layers else None
    elif not isinstance(wanted, dict):
        raise ValueError(
            "learned: expected parameters that are a dict of layers, got "
            f"{type(wanted).__name__}"
        )
    else:
        names = [learned] if isinstance(learned, str) else list(learned)
        _check_names("learned", names, wanted)
        if absent := sorted(set(wanted) - set(names) - set(params)):
            raise ValueError(
                f"learned: {', '.join(absent)} would be frozen, but params has no such "
                "layer; give it, or learn it"
            )
    copy = lambda tree: jax.tree.map(jnp.array, tree)  # what is trained may be donated
    if names is None:
        return model._replace(init=lambda key: copy(params))
    frozen = {n: layer for n, layer in params.items() if n not in names}
    fresh = [n for n in names if n not in params]

    def init(key):
        made = model.init(key) if fresh else {}
        return {n: made[n] if n in fresh else copy(params[n]) for n in names}

    def apply(params, x, *mask):
        return model.apply(frozen | params, x, *mask)

    def noisy(params, *how):
        assert model.noisy is not None
        return model.noisy(frozen | params, *how)

    return Model(init, apply, model.uses_mask, noisy if model.noisy else None)


_NO_STATISTICS = (
    "statistics: the network asks for the running statistics of its batch norm, and those "
    "of a trained network were not given (they start as mean 0, variance 1); give them "
    "(from_linen: variables={'batch_stats': ...}; from_nnx: the trained module itself, not "
    "a function that makes one), or choose statistics='batch', the batch at hand"
)


def _chosen(statistics, trained) -> bool:
    """Whether batch norm runs on running statistics. trained: those given, or none."""
    start = {"mean": 0, "var": 1}
    leaves = jax.tree_util.tree_leaves_with_path(trained or {})
    at_start = lambda path, a: np.all(np.asarray(a) == start.get(path[-1].key, np.nan))
    given = not all(at_start(*leaf) for leaf in leaves)
    if statistics is not None:
        checks.check_choice("statistics", statistics, ("batch", "running"))
    if statistics == "running" and not given:
        raise ValueError(_NO_STATISTICS)
    return given if statistics is None else statistics == "running"


def _reads_first(f, first, *rest) -> bool:
    """Whether the program of f computes with its first argument."""
    program = jax.make_jaxpr(f)(first, *rest).jaxpr
    read = {id(v) for equation in program.eqns for v in equation.invars}
    return any(id(v) in read for v in program.invars[: len(jax.tree.leaves(first))])


class _Call:
    """The keyword arguments of a network's `__call__`."""

    def __init__(self, function, given):
        takes = inspect.signature(function).parameters
        self.given = given
        self.flags = {n: v for n, v in FLAGS.items() if n in takes and n not in given}
        self.masked = "mask" in takes and "mask" not in given
        self.needs_mask = (
            self.masked and takes["mask"].default is inspect.Parameter.empty
        )

    def arguments(self, train, x, mask):
        flags = {n: v if train else not v for n, v in self.flags.items()}
        if mask is None and self.needs_mask:
            mask = jnp.ones(len(jax.tree.leaves(x)[0]))
        return self.given | flags | ({"mask": mask} if self.masked else {})


def _arranged(now: _Pass, own: bool | None, signature, args, kwargs):
    """The bound arguments of a layer, as the pass wants them.

    own: the setting of the layer itself. args, kwargs: what it is called with.
    """
    bound = signature.bind(*args, **kwargs)
    given = bound.arguments
    if "use_running_average" not in signature.parameters:
        if not now.train:
            given["deterministic"] = True
        elif own is None:
            given.setdefault("deterministic", False)
        return bound
    asks = given.get("use_running_average") if own is None else own
    if asks and now.strict:
        raise ValueError(_NO_STATISTICS)
    given["use_running_average"] = now.running
    if now.mask is not None and given.get("mask") is None:
        given["mask"] = _rows(now.mask, bound.args[0].shape)
    return bound


def _rows(mask, shape):
    """A mask of examples for an array [examples, ...]."""
    if shape[:1] != mask.shape:
        raise ValueError(
            f"mask: batch norm sees an array of shape {shape}, the batch has "
            f"{mask.shape[0]} examples; expected them on its first axis, or a network "
            "whose `__call__` takes `mask` and hands it on"
        )
    return jnp.reshape(mask > 0, (-1,) + (1,) * (len(shape) - 1))


def _intercept(nn, now, next_fun, args, kwargs, context):
    """A Linen layer's `__call__`, its setting in the constructor overruled."""
    layer, name = context.module, "deterministic"
    if isinstance(layer, nn.BatchNorm):
        name = "use_running_average"
    elif not isinstance(layer, (nn.Dropout, nn.MultiHeadDotProductAttention)):
        return next_fun(*args, **kwargs)
    if context.method_name != "__call__":
        return next_fun(*args, **kwargs)
    own = getattr(layer, name)
    signature = inspect.signature(context.orig_method)
    bound = _arranged(now, own, signature, args, kwargs)
    if name in bound.arguments:
        object.__setattr__(layer, name, None)  # Linen takes one of the two alone
    try:
        return next_fun(*bound.args, **bound.kwargs)
    finally:
        object.__setattr__(layer, name, own)


_NOW: contextvars.ContextVar[_Pass] = contextvars.ContextVar("pass")


@contextlib.contextmanager
def _set(variable, value):
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@functools.cache
def _arranged_class(layer: type) -> type:
    """A class of NNX layers whose `__call__` does as the pass wants."""
    signature = inspect.signature(functools.partial(layer.__call__, None))

    def __call__(self, *args, **kwargs):  # noqa: N807
        bound = _arranged(_NOW.get(), None, signature, args, kwargs)
        return layer.__call__(self, *bound.args, **bound.kwargs)

    return type(layer.__name__, (layer,), {"__call__": __call__})


def _nodes(module, kind) -> list:
    from flax import nnx

    return [node for _, node in nnx.iter_graph(module) if isinstance(node, kind)]


def _check_names(argument, names, known):
    for name in names:
        if name not in known:
            raise ValueError(
                f"{argument}: the model has no {name!r}; it has "
                f"{', '.join(map(str, known)) or 'nothing that is named'}"
            )
