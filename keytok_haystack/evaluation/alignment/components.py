# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Principal components of embeddings: what they say in tokens, and how training changes them."""

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.embedding_space import Moments, Spectrum
from keytok_haystack.evaluation.alignment.adjustments import N_STRONGEST
from keytok_haystack.evaluation.alignment.report import BackboneChange, Component
from keytok_haystack.evaluation.alignment.subject import linear_decoder
from keytok_haystack.evaluation.alignment.token_classes import CLASSES, class_positions, class_shares, tokens_of
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rows import top_k
from keytok_haystack.utils.checks import check_embeddings

N_COMPONENTS = 8
_N_CHANGED = 50


def leading_components(head: KeyTokenModel, embeddings: NDArray[np.float32], spectrum: Spectrum) -> list[Component]:
    """
    Return what a head reads in the leading components, and their contributions to texts' strongest tokens.

    :param head: Model that decodes the embeddings.
    :param embeddings: Embeddings of some texts, shape `(n, d)`.
    :param spectrum: Spectrum of these embeddings, or of more.
    """
    decoder, classes, preparation = linear_decoder(head), class_positions(head), head.decoder.preparation
    logits = decoder.logits(embeddings)
    top = np.argpartition(-logits, min(N_STRONGEST, len(decoder)) - 1, axis=1)[:, :N_STRONGEST]
    strongest = np.take_along_axis(logits, top, axis=1).sum()
    components = []
    for number, (direction, energy) in enumerate(
        zip(spectrum.components[:N_COMPONENTS], spectrum.explained_energy, strict=False), start=1
    ):
        coefficients = embeddings @ direction
        size = float(np.sqrt(np.square(coefficients).mean())) or 1.0
        # of what a decoder has removed, it would read rounding errors
        seen = np.float32(not preparation.has_removed(direction[None]))
        without = embeddings - seen * np.outer(coefficients, direction).astype(np.float32)
        contributions = logits - decoder.logits(without)
        raised = top_k(contributions, N_STRONGEST)
        ends = seen * decoder.logits(np.stack([direction, -direction]) * np.float32(size))
        components.append(
            Component(
                number=number,
                explained_energy=float(energy),
                constancy=float(abs(coefficients.mean()) / size),
                tokens=tokens_of(head, ends[0]),
                opposite=tokens_of(head, ends[1]),
                contribution=float(np.take_along_axis(contributions, top, axis=1).sum() / strongest),
                classes=class_shares(np.bincount(classes[raised.indices], raised.data, len(CLASSES))),
            )
        )
    return components


def backbone_change(embeddings: NDArray[np.float32], backbone: NDArray[np.float32]) -> BackboneChange:
    """
    Compare embeddings with the backbone's of the same texts (section 4 of the paper).

    Lengths are not compared, because some embedders normalize their embeddings: both are scaled to a root mean square
    norm of 1.

    :param embeddings: Shape `(n, d)`.
    :param backbone: Shape `(n, d)`.
    :raises EmbeddingError: The dimensions differ.
    :raises ValueError: The numbers of embeddings differ, or the embeddings are the same.
    """
    after, before = (_scaled(check_embeddings(x, embeddings.shape[1])) for x in (embeddings, backbone))
    if len(after) != len(before):
        msg = f"There are {len(after)} embeddings, but {len(before)} of the backbone."
        raise ValueError(msg)
    spectrum = Spectrum.from_embeddings(before, n_components=_N_CHANGED)
    moments = Moments(after.shape[1])
    moments.add(after - before)
    total = np.trace(moments.second_moment)
    if total <= 1e-10 * len(after):
        msg = "The embeddings are the backbone's own: name the model that the embedder was made from."
        raise ValueError(msg)
    axes = spectrum.components.astype(np.float64)
    energy = np.einsum("kd,de,ke->k", axes, moments.second_moment, axes) / total
    return BackboneChange(
        energy.tolist(), (axes @ moments.mean).tolist(), spectrum.explained_energy.astype(float).tolist()
    )


def _scaled(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale all embeddings by one factor to a root mean square norm of 1."""
    size = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64).mean())
    scaled: NDArray[np.float32] = (embeddings / size).astype(np.float32)
    return scaled
