"""The networks that flags ask for, sized for the tasks."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp

from jaxmeta import checks, models
from jaxmeta.cli.options import Options
from jaxmeta.learners.registry import Facts
from jaxmeta.types import Model


@dataclass(frozen=True)
class FlagNetworks:
    """`Networks` of one architecture.

    facts: what the tasks determine. shape: of an input. model, width, strided: the flags.
    """

    facts: Facts
    shape: tuple[int, ...]
    model: str
    width: int
    strided: bool

    @classmethod
    def of(
        cls, options: Options, facts: Facts, shape: tuple[int, ...]
    ) -> "FlagNetworks":
        """Those of a run."""
        assert options.model and options.width
        return cls(facts, shape, options.model, options.width, options.strided)

    def predictor(self, *, context: int = 0) -> Model:
        """A network whose outputs are the task's."""
        make = checks.lookup(ARCHITECTURES, self.model, "model")
        return make(self, self.facts.ways or self.facts.y_dims, context)

    def encoder(self) -> Model:
        """A network without a head; of an MLP, one with `width` features."""
        return checks.lookup(ARCHITECTURES, self.model, "model")(self, None, 0)

    @cached_property
    def features(self) -> int:
        """How many features the encoder makes of an example."""
        model, x = self.encoder(), jax.ShapeDtypeStruct((1, *self.shape), jnp.float32)
        params = jax.eval_shape(model.init, jax.random.key(0))
        return jax.eval_shape(model.apply, params, x).shape[-1]

    def maps(self) -> Model:
        """Feature maps of conv4, a quarter of the image's size."""
        if self.model != "conv4":
            raise ValueError(
                "model: this learner compares feature maps; expected conv4, got "
                f"{self.model}"
            )
        shape = _image_shape(self)
        return models.conv4(
            None, input_shape=shape, widths=self.width, pools=2, grid=True
        )

    def pairs(self) -> Model:
        """A relation module over two of these maps."""
        height, width, _ = _image_shape(self)
        size = (height // 4, width // 4, 2 * self.width)
        return models.relation_module(size, widths=self.width)

    def mlp(self, inputs: int, outputs: int) -> Model:
        """Three hidden layers of `width`."""
        return models.mlp(inputs, outputs, (self.width,) * 3)

    def rater(self, outputs: int) -> Model:
        """Embeddings of user and item of half the width, two hidden layers of `width`."""
        width = self.width
        embedded = max(1, width // 2)
        return models.rater(self.facts.items, outputs, (width, width), width=embedded)

    def sets(self, inputs: int, outputs: int) -> Model:
        """A deep set."""
        return models.set_encoder(inputs, outputs, hidden=(self.width,) * 3)

    def attention(self, inputs: int, values: int) -> Model:
        """One head of attention."""
        return models.cross_attention(inputs, values, width=self.width, heads=1)


def _image_shape(networks: FlagNetworks) -> tuple[int, int, int]:
    if len(networks.shape) != 3:
        raise ValueError(
            f"model: a data set with inputs of shape {networks.shape} "
            f"has no images; expected mlp, got {networks.model}"
        )
    height, width, channels = networks.shape
    return height, width, channels


def _conv4(networks: FlagNetworks, outputs: int | None, context: int) -> Model:
    return models.conv4(
        outputs,
        input_shape=_image_shape(networks),
        widths=networks.width,
        strided=networks.strided,
        context=context,
    )


def _mlp(networks: FlagNetworks, outputs: int | None, context: int) -> Model:
    width = networks.width
    return models.mlp(networks.shape, outputs or width, (width, width), context=context)


def _resnet12(networks: FlagNetworks, outputs: int | None, context: int) -> Model:
    if context:
        raise ValueError("model: resnet12 has no context parameters; expected conv4")
    width = networks.width
    widths = (width, 5 * width // 2, 5 * width, 10 * width)
    return models.resnet12(outputs, input_shape=_image_shape(networks), widths=widths)


# (networks, outputs or None for features, context parameters) -> Model
ARCHITECTURES: dict[str, Callable[[FlagNetworks, int | None, int], Model]] = {
    "conv4": _conv4,
    "mlp": _mlp,
    "resnet12": _resnet12,
}
