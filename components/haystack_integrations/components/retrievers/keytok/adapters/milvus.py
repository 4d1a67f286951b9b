# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from typing import Any

from haystack import Document
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.errors import DocumentStoreError
from milvus_haystack import MilvusDocumentStore
from pymilvus import MilvusException

from haystack_integrations.components.retrievers.keytok.adapters.sparse_vectors import SparseVectorAdapter
from haystack_integrations.components.retrievers.keytok.adapters.store import SearchQuery
from keytok_haystack.utils.artefacts import one_line


class MilvusAdapter(SparseVectorAdapter):
    """Search of a `MilvusDocumentStore`, embedded (milvus-lite) or on a server, by its own sparse retrieval."""

    has_cosines = False  # its hybrid search has ranks, or scores that are squeezed into 0 to 1
    _returns_vectors = True
    _store: MilvusDocumentStore

    def _find(
        self,
        vector: SparseEmbedding,
        query: SearchQuery,  # noqa: ARG002
        filters: dict[str, Any] | None,
        top_k: int,
    ) -> list[Document]:
        try:
            found: list[Document] = self._store._sparse_embedding_retrieval(vector, filters, top_k)
        except MilvusException as error:
            msg = f"Milvus cannot answer: {one_line(error.message)}"
            raise DocumentStoreError(msg) from error
        # documents without a sparse embedding have one that milvus-haystack makes up, and takes for none when it reads
        return [document for document in found if document.sparse_embedding is not None]

    def close(self) -> None:
        """Do nothing: the store has a connection as long as it exists."""

    async def close_async(self) -> None:
        """Do nothing: the store has a connection as long as it exists."""
