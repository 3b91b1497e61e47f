"""jaxmeta: `online_bilevel` run by `fit`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import two_levels_workloads as of

import jaxmeta as jm


def level_of(weights, level):
    """The parameters of one level as a tree."""
    if f"{level}.dense1.kernel" not in weights:
        return {n.split(".")[1]: a for n, a in weights.items() if n.startswith(level)}
    layer = lambda n: {k: weights[f"{level}.{n}.{k}"] for k in ("kernel", "bias")}
    return {n: layer(n) for n in ("dense1", "head")}


def cleaning():
    """The inner and the outer function of hyper-cleaning."""

    def inner(low, high, batch):
        each = jm.losses.cross_entropy(batch.x @ low["kernel"], batch.y)
        weighted = jnp.mean(jax.nn.sigmoid(high["logits"]) * each)
        return weighted + of.PENALTY / 2 * jnp.sum(low["kernel"] ** 2)

    def outer(low, high, batch):
        return jnp.mean(jm.losses.cross_entropy(batch.x @ low["kernel"], batch.y))

    return inner, outer, lambda low, x: x @ low["kernel"]


def weight_net(w):
    """The inner and the outer function of Meta-Weight-Net."""
    body = jm.models.mlp(of.PIXELS, of.CLASSES, (w.width,))
    net = jm.models.mlp(1, 1, (w.net_width,))
    losses = lambda low, batch: jm.losses.cross_entropy(
        body.apply(low, batch.x), batch.y
    )

    def inner(low, high, batch):
        each = losses(low, batch)
        given = jax.lax.stop_gradient(each)[:, None]
        weights = jax.nn.sigmoid(net.apply(high, given) - given)[:, 0]
        return jnp.mean(weights * each)

    return inner, lambda low, high, batch: jnp.mean(losses(low, batch)), body.apply


class Ours:
    """A turn is one call of `fit`, which goes on from the last one's state."""

    def __init__(self, w, data, weights):
        self.w, self.data = w, data
        self.state: Any = None
        self.given = level_of(weights, "high"), level_of(weights, "low")
        made = weight_net(w) if w.method == "weight_net" else cleaning()
        self.inner, self.outer_loss, self.logits = made
        sets = (
            jm.Batch(data[n], data[f"{n}_y"].astype(np.int32))
            for n in ("train", "validation")
        )
        self.sampler = jm.tasks.single(*sets, batch_size=w.batch)
        self.outer = self.outer_with(optax.adam(w.outer_lr))

    def outer_with(self, optimizer):
        w, (high, low) = self.w, self.given
        adjoints = {
            "implicit": jm.Implicit("cg", iterations=of.ITERATIONS),
            "unrolled": jm.Reverse(unroll=w.inner_steps),
        }
        return jm.online_bilevel(
            self.inner,
            self.outer_loss,
            optimizer,
            init=lambda key: jax.tree.map(jnp.asarray, high),
            start=lambda key: jax.tree.map(jnp.asarray, low),
            inner_steps=w.inner_steps,
            inner_lr=w.inner_lr,
            adjoint=adjoints.get(w.method, jm.MixedMode()),
        )

    def run(self, steps):
        done = 0 if self.state is None else int(self.state.step)
        key, state = jax.random.key(0), self.state
        self.state = jm.fit(
            self.outer, self.sampler, steps=done + steps, key=key, state=state
        )

    def step(self):
        self.run(self.w.turn)

    def gradient(self):
        """How far one step of plain SGD with a rate of one goes down."""
        outer = self.outer_with(optax.sgd(1.0))
        state = jm.fit(outer, self.sampler, steps=1, key=jax.random.key(0))
        down = jax.tree.map(lambda a, b: np.asarray(a - b), self.given[0], state.params)
        return named("high", down)

    def told(self):
        """Share of the test set that is right; F1 of the wrong labels, of cleaning."""
        logits = self.logits(self.state.w, self.data["test"])
        right = np.asarray(logits).argmax(1) == self.data["test_y"]
        found = {"accuracy": float(right.mean())}
        if self.w.method != "weight_net":
            out = np.asarray(self.state.params["logits"]) < 0
            found["f1"] = of.f1(out, self.data["wrong"])
        return found


def named(name, tree):
    """A tree of dictionaries as arrays by dotted name."""
    if not isinstance(tree, dict):
        return {name: tree}
    parts = (named(f"{name}.{n}", sub) for n, sub in tree.items())
    return {n: a for part in parts for n, a in part.items()}


PEERS = {"jaxmeta": Ours}
