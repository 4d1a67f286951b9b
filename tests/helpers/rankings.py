# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import ir_measures
import numpy as np
import pytest
from haystack import Document
from numpy.typing import ArrayLike

from keytok_haystack.evaluation import Collection


def assert_same_hits(hits: list[Document], expected: list[Document]) -> None:
    """
    Assert that two runs of a hybrid pipeline found the same.

    The last bit of a score may differ, and hits of equal scores may change places, also over the end of the ranking.
    """
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected])
    certain = {hit.id: hit.meta for hit in expected if hit.score > expected[-1].score + 1e-9}
    found = {hit.id: hit.meta for hit in hits}
    assert certain
    assert {key: found.get(key) for key in certain} == certain


def stored(weights: ArrayLike) -> np.ndarray:
    """What Lucene stores of floats: their signs, their exponents and the first 8 bits of their mantissas."""
    bits = np.asarray(weights, dtype=np.float32).view(np.uint32)
    return (bits & np.uint32(0xFFFF8000)).view(np.float32).astype(np.float64)


def ndcg(collection: Collection, scores: np.ndarray) -> float:
    """nDCG@10 of a matrix of scores, shape (queries, documents)."""
    documents, run = list(collection.documents), []
    for query, row in zip(collection.queries, scores, strict=True):
        run += [ir_measures.ScoredDoc(query, documents[i], float(row[i])) for i in np.argsort(-row, kind="stable")[:50]]
    qrels = [
        ir_measures.Qrel(query, document, relevance)
        for query, judged in collection.qrels.items()
        for document, relevance in judged.items()
    ]
    return ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10]
