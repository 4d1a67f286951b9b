# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Embeddings to look into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.decoder import TokenDecoder
from keytok_haystack.embedding_space import Preparation
from keytok_haystack.evaluation.collection import Collection
from keytok_haystack.model import KeyTokenModel


@dataclass(frozen=True, eq=False)
class Subject:
    """
    Embeddings of one embedder, their texts, and the heads that decode them.

    :param embedder: Name of the embedder.
    :param data: Name of the file or folder with the texts.
    :param texts: The `n` texts.
    :param embeddings: Embeddings of the texts, shape `(n, d)`.
    :param head: Model that decodes the embeddings.
    :param ids: The same head id by id, with a vocabulary that is not folded; None if there is none.
    :param collection: Test collection whose documents are the texts, if they have judgements.
    :param queries: Embeddings of its queries.
    :param backbone: The backbone's embeddings of the texts, shape `(n, d)`.
    :param instructed: Texts and their embeddings under each instruction, including "".
    :param pairs: Pairs of texts with their embeddings, shape `(2, d)`; by default pairs of similar texts are chosen.
    """

    embedder: str
    data: str
    texts: Sequence[str]
    embeddings: NDArray[np.float32]
    head: KeyTokenModel
    ids: KeyTokenModel | None = None
    collection: Collection | None = None
    queries: NDArray[np.float32] | None = None
    backbone: NDArray[np.float32] | None = None
    instructed: Mapping[str, tuple[Sequence[str], NDArray[np.float32]]] = field(default_factory=dict)
    pairs: Sequence[tuple[tuple[str, str], NDArray[np.float32]]] = ()

    @property
    def reader(self) -> KeyTokenModel:
        """The model whose tokens are shown: the head id by id if there is one."""
        return self.ids or self.head

    def with_scaling_heads(self) -> Self:
        """Return the subject with heads that only scale embeddings (`scaling_head`)."""
        return replace(self, head=scaling_head(self.head), ids=None if self.ids is None else scaling_head(self.ids))


def scaling_head(model: KeyTokenModel) -> KeyTokenModel:
    """
    Return a head that scales embeddings to the length that it expects, so that adjusted embeddings can be compared.

    The preparation of a calibrated head is left out, because it is itself an adjustment. That of a fitted decoder
    stays, because its decoder knows only prepared embeddings.
    """
    preparation = model.decoder.preparation
    if model.source == "fit":
        preparation = replace(preparation, normalize=True)
    else:
        preparation = Preparation(transform=preparation.transform)
    return replace(model, decoder=TokenDecoder(model.decoder.weight, preparation))


def linear_decoder(model: KeyTokenModel) -> TokenDecoder:
    """
    Return a model's decoder without the preparation of embeddings, so that a linear head is a matrix product.

    The transform of a masked-language-model head stays, with the scaling that it requires.
    """
    transform = model.decoder.preparation.transform
    return TokenDecoder(model.decoder.weight, Preparation(normalize=transform is not None, transform=transform))
