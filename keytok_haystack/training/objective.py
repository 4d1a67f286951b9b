# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The objective of Text2Token (arXiv 2510.10224): the divergence of what a head reads in embeddings from targets."""

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, log_softmax
from transformers.activations import ACT2FN

from keytok_haystack.decoder import TokenDecoder


class Head(torch.nn.Module):
    """
    A decoder's matrix and the transform before it as a torch module without trainable parameters.

    Only the transform of the decoder's preparation is used: the head reads hidden states as they are.
    """

    def __init__(self, decoder: TokenDecoder) -> None:
        super().__init__()
        transform = decoder.preparation.transform
        self._transform = transform
        columns = decoder.weight.shape[1]
        self.register_buffer("weight", torch.from_numpy(decoder.weight[:, : columns - (transform is not None)]))
        self.register_buffer("bias", None if transform is None else torch.from_numpy(decoder.weight[:, -1]))
        for name, array in ({} if transform is None else transform.arrays).items():
            self.register_buffer(f"transform_{name}", torch.from_numpy(array))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits, shape `(b, V)`, of embeddings, shape `(b, d)`."""
        if self._transform is not None:
            parts = dict(self.named_buffers())
            hidden = linear(embeddings, parts["transform_weight"], parts["transform_bias"])
            hidden = ACT2FN[self._transform.activation](hidden)
            gain, offset = parts["transform_gain"], parts["transform_offset"]
            embeddings = layer_norm(hidden, gain.shape, gain, offset, self._transform.epsilon)
        return linear(embeddings, self.weight, self.bias)  # type: ignore[arg-type]


def divergence(logits: Tensor, features: Tensor, probabilities: Tensor, temperature: float = 1.0) -> Tensor:
    """
    Return the mean over texts of `KL(target || softmax(logits / temperature))`, in nats.

    :param logits: Shape `(b, V)`.
    :param features: Shape `(b, t)`, the features of the targets; padding is any feature.
    :param probabilities: Shape `(b, t)`, the probability of each feature, 0 for padding.
    """
    log_probabilities = log_softmax(logits / temperature, dim=1).gather(1, features)
    terms = torch.xlogy(probabilities, probabilities) - probabilities * log_probabilities
    return terms.sum(dim=1).mean()
