"""jaxmeta, and the MAML that one writes first in JAX: scan, vmap, `lax` convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax


def _tree(flat):
    tree = {}
    for name, a in flat.items():
        layer, part = name.split(".")
        tree.setdefault(layer, {})[part] = jnp.asarray(a)
    return tree


def _flat(tree):
    return {
        f"{layer}.{part}": np.asarray(a)
        for layer, parts in tree.items()
        for part, a in parts.items()
    }


class Ours:
    """`jm.make_step` with its defaults."""

    def __init__(self, w, data, weights):
        import jaxmeta as jm

        kwargs = {"inner_lr": w.inner_lr, "inner_steps": w.steps}
        if w.network == "mlp":
            learner = jm.maml(jm.models.mlp(), loss=jm.losses.mse, **kwargs)
        elif w.method == "protonet":
            learner = jm.protonet(jm.models.conv4(None), ways=w.ways)
        else:
            learner = getattr(jm, w.method)(jm.models.conv4(w.ways), **kwargs)
        batch = lambda p: jm.Batch(*(jnp.asarray(data[a + p]) for a in "xy"))
        self.tasks = jm.Task(batch("s"), batch("q"))
        optimizer, params = optax.adam(1e-3), _tree(weights)
        step = jnp.zeros((), jnp.int32)
        self.state = jm.MetaState(params, optimizer.init(params), step)
        self.update = jm.make_step(learner, optimizer)
        self.compute = jax.jit(jm.meta_gradient(learner))

    def step(self):
        self.state, metrics = self.update(self.state, self.tasks)
        float(metrics["loss"])

    def gradient(self):
        return _flat(self.compute(self.state.params, self.tasks)[1])


class Naive:
    """The paper's formula, straight: no library of ours, XLA's own layers."""

    def __init__(self, w, data, weights):
        self.data = tuple(jnp.asarray(data[n]) for n in ("xs", "ys", "xq", "yq"))
        self.params, self.optimizer = _tree(weights), optax.adam(1e-3)
        self.opt_state = self.optimizer.init(self.params)
        apply = _mlp if w.network == "mlp" else _conv4

        def loss(p, x, y):
            out = apply(p, x)
            if w.network == "mlp":
                return jnp.mean((out - y) ** 2)
            return optax.softmax_cross_entropy_with_integer_labels(out, y).mean()

        def task_loss(p, xs, ys, xq, yq):
            def inner(p, _):
                g = jax.grad(loss)(p, xs, ys)
                g = jax.lax.stop_gradient(g) if w.method == "fomaml" else g
                return jax.tree.map(lambda a, b: a - w.inner_lr * b, p, g), None

            return loss(jax.lax.scan(inner, p, None, length=w.steps)[0], xq, yq)

        def meta_loss(p, data):
            return jax.vmap(task_loss, (None, 0, 0, 0, 0))(p, *data).mean()

        def update(p, opt_state, data):
            value, g = jax.value_and_grad(meta_loss)(p, data)
            updates, opt_state = self.optimizer.update(g, opt_state)
            return optax.apply_updates(p, updates), opt_state, value

        self.update, self.compute = jax.jit(update), jax.jit(jax.grad(meta_loss))

    def step(self):
        self.params, self.opt_state, value = self.update(
            self.params, self.opt_state, self.data
        )
        float(value)

    def gradient(self):
        return _flat(self.compute(self.params, self.data))


def _dense(p, x):
    return x @ p["kernel"] + p["bias"]


def _mlp(p, x):
    x = jax.nn.relu(_dense(p["dense1"], x))
    return _dense(p["head"], jax.nn.relu(_dense(p["dense2"], x)))


def _conv4(p, x):
    for i in range(1, 5):
        conv, norm = p[f"conv{i}"], p[f"norm{i}"]
        x = jax.lax.conv_general_dilated(
            x,
            conv["kernel"],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = x + conv["bias"]
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        x = (x - mean) * jax.lax.rsqrt(var + 1e-5) * norm["scale"] + norm["offset"]
        x = jax.lax.reduce_window(
            jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        )
    return _dense(p["head"], x.reshape(len(x), -1))


PEERS = {"jaxmeta": Ours, "jaxmeta, small compiler": Ours, "naive JAX": Naive}
