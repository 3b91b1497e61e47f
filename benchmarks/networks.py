"""The papers' networks for Omniglot, and learners by name on top of them."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmeta import models
from jaxmeta.learners import registry
from jaxmeta.learners.registry import Facts, Networks, facts_of
from jaxmeta.types import MetaLearner, Model, Sampler

SHAPE = (28, 28, 1)


@dataclass
class Conv4:
    """`Networks` of most papers: four blocks of 64 channels, with max-pooling."""

    facts: Facts
    width: int = 64

    def predictor(self, *, context: int = 0) -> Model:
        """Conv4 and a head."""
        return models.conv4(self.facts.ways, widths=self.width, context=context)

    def encoder(self) -> Model:
        """Conv4, `width` features of an image."""
        return models.conv4(None, widths=self.width)

    def maps(self) -> Model:
        """7 x 7 positions, after two of the four poolings."""
        return models.conv4(None, widths=self.width, pools=2, grid=True)

    def pairs(self) -> Model:
        """The relation module of Sung et al. 2018."""
        return models.relation_module((7, 7, 2 * self.width), widths=self.width)

    def mlp(self, inputs: int, outputs: int) -> Model:
        """One hidden layer."""
        return models.mlp(inputs, outputs, (self.width,))

    def rater(self, outputs: int) -> Model:
        """That of MeLU."""
        return models.rater(self.facts.items, outputs, width=self.width)

    def sets(self, inputs: int, outputs: int) -> Model:
        """A deep set."""
        return models.set_encoder(inputs, outputs, hidden=(self.width,))

    def attention(self, inputs: int, values: int) -> Model:
        """One head."""
        return models.cross_attention(inputs, values, width=self.width, heads=1)


class Strided(Conv4):
    """Conv4 with strides in place of max-pooling, as MAML has it on Omniglot."""

    def predictor(self, *, context: int = 0) -> Model:
        """Strided Conv4 and a head."""
        ways, width = self.facts.ways, self.width
        return models.conv4(ways, widths=width, strided=True, context=context)


class Dense(Conv4):
    """Conv4 and a dense layer: with it SNAIL leaves chance sooner."""

    def encoder(self) -> Model:
        """Conv4 and a dense layer, `width` features of an image."""
        return models.conv4(self.width, widths=self.width)


class Grid(Conv4):
    """Conv4 whose last block keeps its map of 3 x 3 positions."""

    def encoder(self) -> Model:
        """Three poolings, 9 times `width` features of an image."""
        return models.conv4(None, widths=self.width, pools=3)


class Pixels(Conv4):
    """No network: MANN reads images of 14 x 14."""

    def encoder(self) -> Model:
        """Images at half their size, flat."""

        def apply(params, x):
            halves = jnp.reshape(x, (len(x), 14, 2, 14, 2))
            return jnp.reshape(jnp.mean(halves, axis=(2, 4)), (len(x), -1))

        return Model(lambda key: (), apply)


def build(
    name: str, sampler: Sampler, networks: Callable[[Facts], Networks], **hyper
) -> MetaLearner:
    """The learner of that name for a sampler's tasks.

    Args: networks: one of the classes above. hyper: the learner's arguments.
    """
    facts = facts_of(sampler)
    features = features_of(networks(facts).encoder())
    facts = facts._replace(features=features)
    return registry.build(name, facts, networks(facts), **hyper)


def features_of(encoder: Model) -> int:
    """How many numbers an encoder makes of an image."""
    image = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
    params = jax.eval_shape(encoder.init, jax.random.key(0))
    return jax.eval_shape(encoder.apply, params, image).shape[-1]
