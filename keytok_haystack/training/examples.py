# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Examples to learn from, and the split into those and the held-out ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from keytok_haystack.encoders.inputs import Input

_HELD_OUT_SHARE, _MAXIMUM_HELD_OUT = 0.05, 256


@dataclass(frozen=True)
class Examples:
    """
    Texts as inputs of the model, with the targets of their embeddings.

    :param inputs: The `n` inputs.
    :param targets: Shape `(n, V)`, rows of sum 1.
    """

    inputs: Sequence[Input]
    targets: csr_array

    def __len__(self) -> int:
        """Return the number of texts, `n`."""
        return len(self.inputs)

    def __getitem__(self, row: int) -> "Example":
        """Return the example of a row."""
        entries = slice(self.targets.indptr[row], self.targets.indptr[row + 1])
        features = torch.from_numpy(self.targets.indices[entries].astype(np.int64))
        probabilities = torch.from_numpy(self.targets.data[entries].astype(np.float32))
        return Example(self.inputs[row], features, probabilities)


class Example(NamedTuple):
    """An input, the features of its target, and their probabilities."""

    input: Input
    features: Tensor
    probabilities: Tensor


def split(targets: csr_array, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """
    Split the rows that have a target into those to train on and those to hold out, a twentieth and at most 256.

    :param targets: Shape `(n, V)`.
    :param seed: Seed of the split.
    :returns: The rows to train on and the rows to hold out, both ascending.
    """
    order = np.random.default_rng(seed).permutation(np.flatnonzero(np.diff(targets.indptr)))
    size = max(1, min(round(_HELD_OUT_SHARE * len(order)), _MAXIMUM_HELD_OUT))
    return np.sort(order[size:]), np.sort(order[:size])
