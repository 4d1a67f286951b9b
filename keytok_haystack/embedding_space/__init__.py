# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Dense embeddings: checked, described by their principal components, and prepared for decoding."""

from keytok_haystack.embedding_space.embed_filter import embed_filter
from keytok_haystack.embedding_space.embeddings import BATCH_SIZE, cosine, in_batches
from keytok_haystack.embedding_space.head_transform import HeadTransform
from keytok_haystack.embedding_space.moments import Moments
from keytok_haystack.embedding_space.preparation import Preparation
from keytok_haystack.embedding_space.spectrum import Method, Spectrum

__all__ = [
    "BATCH_SIZE",
    "HeadTransform",
    "Method",
    "Moments",
    "Preparation",
    "Spectrum",
    "cosine",
    "embed_filter",
    "in_batches",
]
