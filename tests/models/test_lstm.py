"""The LSTM over rows against Flax's."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmeta.models import lstm


@pytest.mark.usefixtures("x64")
def test_lstm_is_flaxs():
    random = np.random.default_rng(0)
    params = lstm.init(jax.random.key(0), 3, 5)
    params = jax.tree.map(lambda p: jnp.asarray(random.normal(size=p.shape)), params)
    cell = lstm.Cell(*(jnp.asarray(random.normal(size=(4, 5))) for _ in range(2)))
    x = jnp.asarray(random.normal(size=(4, 3)))
    theirs = {}
    for k, gate in enumerate("ifog"):
        w, b = params["w"][:, 5 * k : 5 * k + 5], params["b"][5 * k : 5 * k + 5]
        theirs |= {
            f"i{gate}": {"kernel": w[:3]},
            f"h{gate}": {"kernel": w[3:], "bias": b},
        }
    (c, h), _ = nn.LSTMCell(5).apply({"params": theirs}, (cell.c, cell.h), x)
    ours = lstm.step(params, cell, x)
    np.testing.assert_allclose(ours.h, h, rtol=1e-6)
    np.testing.assert_allclose(ours.c, c, rtol=1e-6)
