"""Adapting the last layer alone, the features of the body computed once.

Raghu et al. 2020, arXiv 1909.09157, section 4.2.
"""

from collections.abc import Callable
from dataclasses import replace

from jaxmeta import losses
from jaxmeta.batches import forward
from jaxmeta.inner import Descent
from jaxmeta.once import compute_once
from jaxmeta.types import Batch, Model, PyTree


def head_adapter(
    model: Model, head: str, loss: losses.Loss, descend: Descent
) -> Callable[[PyTree, Batch], PyTree]:
    """(params, support) -> params with an adapted head.

    Args: model: its parameters are a dict of layers; head: the name of the last one;
        loss; descend: how, of an objective of the whole network, in whose place the head's
        is put.
    """

    def outputs(fixed, theta_l):
        body, x, mask = fixed
        return forward(model, body | {head: theta_l}, x, mask)

    def adapt(params, support):
        body = {name: layer for name, layer in params.items() if name != head}
        fixed = (body, support.x, support.mask)
        apply_head, features = compute_once(outputs, fixed, params[head])

        def objective(theta_l, features, batch):
            return losses.mean_loss(loss, apply_head(features, theta_l), batch)

        of_head = replace(descend, objective=objective)
        return body | {head: of_head(params[head], features, support)}

    return adapt
