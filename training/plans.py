"""Plans: which layers a model runs in a training step, and which to predict."""

from collections.abc import Sequence
from typing import NamedTuple

from kernels import BFLOAT16
from layers import (
    LAYER_TYPES,
    Layer,
    Softmax,
    end_in_full_precision,
    fold,
    fuse,
    in_full_precision,
    walk,
)


class Plans(NamedTuple):
    """What `make_plans` returns.

    Attributes
    ----------
    training : list of Layer
        The layers that compute the logits in a training step.
    inference : list of Layer
        Those that compute the logits to predict.
    head : Softmax
        It computes probabilities and the loss from the logits.
    is_capturable : bool
        Whether the kernel calls of a step may be captured and replayed.
    """

    training: list[Layer]
    inference: list[Layer]
    head: Softmax
    is_capturable: bool


def make_plans(layers: Sequence[Layer], fused: bool) -> Plans:
    """Split layers into those that compute the logits and the softmax behind them.

    In mixed precision, the logits and the softmax are computed in float32, and so is the last
    layer if it is a Dense.

    Parameters
    ----------
    layers : sequence of Layer
        The built layers of a model, at least one. The last may be a Softmax.
    fused : bool
        Whether layers that one kernel can compute together are combined.
    """
    last = layers[-1]
    is_mixed = last.compute_dtype == BFLOAT16
    head = Softmax()
    if isinstance(last, Softmax):
        body, head = list(layers[:-1]), last
    else:
        body = list(layers)
        if len(last.output_shape) == 1:
            head.build(last.output_shape, last.backend, last.compute_dtype)
    if is_mixed:
        body = end_in_full_precision(body)
        head = in_full_precision(head) if head.built else head
    # A user's own layer may do more than call the backend, which a capture would miss.
    only_known_layers = all(type(layer) in LAYER_TYPES.values() for layer in walk(layers))
    if not fused:
        return Plans(body, list(body), head, False)
    return Plans(fuse(body), fold(body), head, only_known_layers)
