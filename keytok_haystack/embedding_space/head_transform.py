# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The part of a masked-language-model head before its matrix: dense layer, activation, layer norm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    gelu: NDArray[np.float32] = 0.5 * x * (1 + erf(x / np.sqrt(np.float32(2))))
    return gelu


def _gelu_tanh(x: NDArray[np.float32]) -> NDArray[np.float32]:
    inner = np.sqrt(np.float32(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    gelu: NDArray[np.float32] = 0.5 * x * (1 + np.tanh(inner))
    return gelu


def _relu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.maximum(x, 0)


def _silu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    silu: NDArray[np.float32] = x * expit(x)
    return silu


_ACTIVATIONS: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "relu": _relu,
    "silu": _silu,
    "swish": _silu,
}


@dataclass(frozen=True, eq=False)
class HeadTransform:
    """
    The part of a masked-language-model head that comes before its matrix: `layer_norm(activation(W h + b))`.

    A constant 1 is appended to the result, so that the head's bias can be the last column of the decoder.

    :param weight: `W`, shape `(t, d)`.
    :param bias: `b`, shape `(t,)`.
    :param activation: The activation's name in transformers: "gelu" (exact), "gelu_new", "gelu_pytorch_tanh" (by tanh),
        "relu", "silu" or "swish".
    :param gain: Shape `(t,)`, what the layer norm multiplies by.
    :param offset: Shape `(t,)`, what the layer norm adds.
    :param epsilon: Summand of the variance in the layer norm.
    :param norm: The Euclidean norm that the model's hidden states have, about. An activation is not linear, so a
        unit vector would be read as another one than the hidden state that it points along.
    :raises ValueError: The activation is unknown, or the parameters do not fit together or are not finite.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    activation: str
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    epsilon: float
    norm: float

    def __post_init__(self) -> None:
        """Refuse an unknown activation, and parameters that give no numbers."""
        if not (isinstance(self.activation, str) and self.activation in _ACTIVATIONS):
            msg = f"The activation '{self.activation}' is not one of {', '.join(_ACTIVATIONS)}."
            raise ValueError(msg)
        shapes = [array.shape for array in (self.bias, self.gain, self.offset)]
        if self.weight.ndim != 2 or 0 in self.weight.shape or set(shapes) != {self.weight.shape[:1]}:
            msg = f"The parameters have shapes that do not fit together: {list(self.weight.shape)}, {shapes}."
            raise ValueError(msg)
        if not all(np.isfinite(array).all() for array in self.arrays.values()):
            msg = "The parameters are not finite."
            raise ValueError(msg)
        if not (0 <= self.epsilon < np.inf and 0 < self.norm < np.inf):
            msg = f"The epsilon {self.epsilon} and the norm {self.norm} must be finite, and not negative."
            raise ValueError(msg)

    @property
    def dimension(self) -> int:
        """The dimension `d` of hidden states."""
        return int(self.weight.shape[1])

    @property
    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The parameters that are arrays, by their names."""
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters that are not arrays, by their names."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, np.ndarray)}

    def __call__(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Transform hidden states, shape `(n, d)`, to shape `(n, t + 1)`, the last column of which is 1."""
        # not by BLAS, whose sums for a state alone differ from those in a batch
        products = np.einsum("nd,td->nt", np.ascontiguousarray(states), np.ascontiguousarray(self.weight))
        activated = _ACTIVATIONS[self.activation](products + self.bias)
        centred = activated - activated.mean(axis=1, keepdims=True)
        variance = np.square(centred).mean(axis=1, keepdims=True)
        normed = centred / np.sqrt(variance + np.float32(self.epsilon)) * self.gain + self.offset
        return np.column_stack([normed, np.ones(len(normed), dtype=np.float32)])
