# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Mapping
from typing import Any

import pytest
from helpers.live_index import compact, embedding_field
from nodes.stores import RawIndex


@pytest.fixture(scope="module")
def sources(small_texts, small_embeddings) -> dict[str, str]:
    """Sixty documents as JSON, some fields before and some behind those that are read."""
    return {
        str(i): compact(id=str(i), rank=i, content=text, embedding=embedding.tolist(), title=f"{i}th")
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    }


@pytest.fixture
def new_index(make_store):
    """Makes an index without a field of key tokens: its document store, and what is seen of it over HTTP."""

    def new(
        kind: str,
        sources: Mapping[str, str] | None = None,
        *,
        properties: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        **mappings: Any,
    ) -> tuple[Any, RawIndex]:
        fields = {"content": {"type": "text"}, "embedding": embedding_field(kind), **(properties or {})}
        definition = {
            "settings": {"index.number_of_replicas": 0, "index.refresh_interval": "50ms", **(settings or {})},
            "mappings": {"properties": {name: about for name, about in fields.items() if about}, **mappings},
        }
        if kind == "opensearch-knn":
            definition["settings"]["index.knn"] = True
        if kind == "elasticsearch-9":  # whose default is tried by a test of its own
            definition["settings"].setdefault("index.mapping.exclude_source_vectors", False)
        store = make_store(kind, definition=definition)
        raw = RawIndex(kind, make_store.url(kind), store._index)
        if sources:
            raw.write(sources)
        return store, raw

    return new
