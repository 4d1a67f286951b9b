# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Indices that exist: what documents hold before and after they are given key tokens."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nodes.gate import Gate
from nodes.stores import DENSE_STORES, ENGINE_STORES, RawIndex, engine_of

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines.connection import document_store
from keytok_haystack.live_index import backfill
from keytok_haystack.sparse_vectors.rank_features import truncate_weights

KINDS = ("opensearch-knn", "elasticsearch-9")
"""Enough where all engines do the same."""
PLAIN = {"type": "object", "enabled": False}
"""The mapping of a field that may hold anything."""

every_engine = pytest.mark.parametrize("kind", ENGINE_STORES)
two_engines = pytest.mark.parametrize("kind", KINDS)


def compact(**document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def embedding_field(kind: str, **options: Any) -> dict[str, Any]:
    """How an index maps the embeddings: as dense vectors, where the engine has them."""
    if kind == "opensearch-knn":
        method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
        return {"type": "knn_vector", "dimension": 8, "method": method, **options}
    if kind in DENSE_STORES:
        return {"type": "dense_vector", "dims": 8, "index": True, "similarity": "cosine", **options}
    return {"type": "float"}


def through(gate: Gate, kind: str, raw: RawIndex) -> Any:
    return document_store(engine_of(kind), gate.url, raw.name)


def filled(store: Any, model: KeyTokenModel | Path, *arguments: Any, **options: Any) -> Any:
    """Backfill, and return the report, whose numbers say of every document what has become of it."""
    report = backfill(store, model, *arguments, progress_bar=False, **options)
    assert report.documents == report.written + report.already + report.without_embedding + report.failed
    assert len(report.failures) == report.failed
    return report


def tokens_of(model: KeyTokenModel, source: str) -> dict[str, float]:
    """What the model says of the embedding and the content of a document."""
    document = json.loads(source)
    weights = model.encode_documents(np.array([document["embedding"]], np.float32), [document.get("content") or ""])
    return model.document_tokens(weights)[0]


def assert_tokens(model: KeyTokenModel, source: str, field: str = "key_tokens") -> None:
    """Assert that a document has the key tokens of its own embedding and content, with weights that score the same."""
    found, expected = json.loads(source)[field], tokens_of(model, source)
    assert found.keys() == expected.keys()
    assert truncate_weights([found[key] for key in expected]).tolist() == pytest.approx(
        truncate_weights(list(expected.values())).tolist(), rel=0, abs=0
    )


def without(field: str, source: str) -> str:
    """The text of a document with a field of key tokens cut out."""
    return re.sub(rf',"{field}":{{[^}}]*}}|"{field}":{{[^}}]*}},?', "", source)


def assert_found(store: Any, model: KeyTokenModel, sources: Mapping[str, str]) -> None:
    """Assert that a search finds documents in the order, and with the scores, of a product of matrices."""
    tokens = {key: tokens_of(model, source) for key, source in sources.items()}
    words = sorted({word for each in tokens.values() for word in each})
    matrix = np.array([[each.get(word, 0.0) for word in words] for each in tokens.values()])
    query = 1 / np.arange(1, len(words) + 1)
    scores = dict(zip(tokens, truncate_weights(matrix).astype(float) @ query, strict=True))
    retriever = SparseRetriever(store, top_k=len(sources) + 1)
    hits = retriever.run(key_tokens=dict(zip(words, query.tolist(), strict=True)))["documents"]
    retriever.close()
    assert {hit.id for hit in hits} == scores.keys()
    assert [hit.score for hit in hits] == pytest.approx([scores[hit.id] for hit in hits], rel=1e-6)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True), rel=1e-6)
