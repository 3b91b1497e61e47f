"""The LSTM over rows against Flax's."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxmeta.models import lstm


@pytest.mark.usefixtures("x64")
def test_lstm_is_flaxs():
    random = np.random.default_rng(0)
    params = jax.eval_shape(lambda key: lstm.init(key, 3, 5), jax.random.key(0))
    params = jax.tree.map(lambda p: random.normal(size=p.shape), params)
    cell = lstm.Cell(*(random.normal(size=(4, 5)) for _ in range(2)))
    x = random.normal(size=(4, 3))
    theirs = {}
    for k, gate in enumerate("ifog"):
        w, b = params["w"][:, 5 * k : 5 * k + 5], params["b"][5 * k : 5 * k + 5]
        theirs |= {
            f"i{gate}": {"kernel": w[:3]},
            f"h{gate}": {"kernel": w[3:], "bias": b},
        }
    flaxs = jax.jit(nn.LSTMCell(5).apply)
    (c, h), _ = flaxs({"params": theirs}, (cell.c, cell.h), x)
    ours = jax.jit(lstm.step)(params, cell, x)
    np.testing.assert_allclose(ours.h, h, rtol=1e-6)
    np.testing.assert_allclose(ours.c, c, rtol=1e-6)
