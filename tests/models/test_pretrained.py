"""Networks that start from given parameters."""

import jax
import numpy as np
import optax
import pytest
from flavours import (
    FLAVOURS,
    WAYS,
    by_hand,
    examples,
    given,
    key,
    made,
    same,
    sampler,
    trained,
)

import jaxmeta as jm

pytestmark = pytest.mark.usefixtures("x64")


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
