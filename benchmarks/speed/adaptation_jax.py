"""jaxmeta: `adapt` on one pair of domains and `predict`, as one compiled program."""

import adaptation_workloads as of
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxmeta as jm
from jaxmeta.learners.adaptation.domains import Network


def learner_of(w) -> jm.MetaLearner:
    """The learner of a workload."""
    if w.method == "coral":
        how = {"standardise": "none", "regularization": 1e-6}
        return jm.coral(None, ways=w.ways, **how)
    if w.method == "dann":
        encoder = jm.models.mlp(w.inputs, w.width, (w.width,))
        judge = jm.models.mlp(w.width, 1, (w.width,))
        how = {"inner_steps": w.steps, "batch_size": w.batch, "rule": optax.adam}
        return jm.dann(encoder, judge, ways=w.ways, features=w.width, **how)
    how = {"regularization": of.REGULARIZATION, "iterations": of.ITERATIONS}
    if w.method == "class_regularised":
        how |= {"class_penalty": "half_power", "eta": of.ETA, "rounds": of.ROUNDS - 1}
    return jm.optimal_transport(None, ways=w.ways, **how)


def start_of(weights):
    """Meta-parameters of `dann`."""
    layer = lambda name: {n: weights[f"{name}.{n}"] for n in ("kernel", "bias")}
    network = lambda name: {n: layer(f"{name}.{n}") for n in ("dense1", "head")}
    classifier = layer("classifier").values()
    whole = Network(network("encoder"), *classifier)
    return {"network": whole, "discriminator": network("discriminator")}


class Ours:
    """`adapt` and `predict`; the first step compiles."""

    def __init__(self, w, data, weights):
        learner, self.right = learner_of(w), data["query_y"]
        params = start_of(weights) if w.method == "dann" else {}
        support = jm.Batch(
            np.concatenate([data["source"], data["target"]]),
            np.concatenate([data["source_y"], np.full(w.examples, -1)]),
        )
        self.given = params, support, data["query"], jax.random.key(0)

        @jax.jit
        def logits(params, support, query, key):
            return learner.predict(learner.adapt(params, support, key), query)

        self.logits = logits

    def step(self):
        self.classes = np.asarray(jnp.argmax(self.logits(*self.given), axis=1))

    def gradient(self):
        """Logits after training, which compare all gradients."""
        return {"logits": np.asarray(self.logits(*self.given))}

    def told(self):
        """Share of the query set that is right."""
        return {"accuracy": float(np.mean(self.classes == self.right))}


PEERS = {"jaxmeta": Ours}
