# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Ways to adjust embeddings, and measures of adjusted embeddings."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from keytok_haystack.alignment_measures import alignments_among
from keytok_haystack.embedding_space import Preparation, Spectrum, embed_filter
from keytok_haystack.evaluation.alignment.report import AdjustmentMeasures
from keytok_haystack.evaluation.alignment.subject import Subject
from keytok_haystack.evaluation.alignment.token_classes import CLASSES, class_positions, class_shares
from keytok_haystack.evaluation.measures import mean_ndcg
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.sampling import evenly_spaced_rows

HIT_AT = 10
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
N_STRONGEST = 50
"""Number of a text's strongest tokens that are counted by class."""
_N_SCALING = 400

Adjust = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Function from embeddings to adjusted ones, both of shape `(n, d)`."""


def adjustments(spectrum: Spectrum, head: KeyTokenModel, embeddings: NDArray[np.float32]) -> dict[str, Adjust]:
    """Return ways to adjust embeddings by name; EmbedFilter is among them if the head is linear."""
    removal = spectrum.removal()
    few = min(3, len(spectrum.components))
    found: dict[str, Adjust] = {
        "nothing": lambda x: x,
        "remove PC1": removal.adjusted,
        f"remove PC1 to PC{few}": spectrum.removal(few).adjusted,
        "shift along PC1": spectrum.shift().adjusted,
        "remove PC1 and the mean": replace(removal, mean=removal(embeddings).mean(axis=0)),
    }
    if head.decoder.preparation.transform is None and head.dimension > 1:
        found["EmbedFilter, half kept"] = embed_filter(head.decoder.weight).adjusted
    return found


def partial_removals(spectrum: Spectrum) -> dict[str, Adjust]:
    """Return the removal of each share of the first principal component in `STRENGTHS`, by the share."""
    return {f"{share:g}": partial(spectrum.adjust, strength=share) for share in STRENGTHS}


class AdjustmentMeasurement:
    """
    Measures the alignment and the retrieval of adjusted embeddings.

    :param subject: The embeddings, with heads that only scale them.
    """

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._rows = evenly_spaced_rows(len(subject.texts), _N_SCALING)
        self._classes = class_positions(subject.reader)
        decoded = class_positions(subject.head)[: len(subject.head.decoder)]
        self._subsets = [np.arange(len(decoded)), np.flatnonzero(decoded == CLASSES.index("content"))]

    def __call__(self, name: str, adjust: Adjust) -> AdjustmentMeasures:
        """Measure an adjustment."""
        subject = self._subject
        documents = adjust(subject.embeddings)
        sample, head = documents[self._rows], subject.head
        top = subject.reader.decoder.top_k(sample, N_STRONGEST)
        among_all, among_content = alignments_among(
            head.decoder, head.vocabulary, documents, subject.texts, self._subsets, HIT_AT
        )
        measures = AdjustmentMeasures(
            name=name,
            alignment=among_all,
            content_alignment=among_content,
            classes=class_shares(np.bincount(self._classes[top.indices], minlength=len(CLASSES))),
        )
        if subject.collection is None or subject.queries is None:
            return measures
        queries, model = adjust(subject.queries), head.scaled_to(sample)
        cosines = Preparation()(queries) @ Preparation()(documents).T
        scores = (model.encode_queries(queries).rows @ model.encode_documents(documents).rows.T).toarray()
        return replace(
            measures, dense=mean_ndcg(subject.collection, cosines), key_tokens=mean_ndcg(subject.collection, scores)
        )
