# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import pytest
from haystack import Document
from haystack.document_stores.in_memory import InMemoryDocumentStore
from helpers.retrieval import store_of

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder


@pytest.fixture
def store() -> InMemoryDocumentStore:
    """Four documents, one of them without key tokens."""
    return store_of(
        {
            "shocking": {"shock": 1.0, "wave": 0.3},
            "wavy": {"wave": 0.9, "flow": 0.2},
            "hot": {"heat": 0.7, "transfer": 0.6},
            "empty": {},
        }
    )


@pytest.fixture(scope="module")
def small_store(small_model_folder, small_texts, small_embeddings) -> InMemoryDocumentStore:
    """Documents of the small collection with key tokens."""
    documents = [
        Document(id=f"{i:02}", content=text, embedding=embedding.tolist())
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]
    store = InMemoryDocumentStore()
    embedder = KeyTokenSparseEmbedder(small_model_folder, return_sparse_embedding=True)
    store.write_documents(embedder.run(documents=documents)["documents"])
    return store
