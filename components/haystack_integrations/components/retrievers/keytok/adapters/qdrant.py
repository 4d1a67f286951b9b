# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from typing import Any

from haystack import Document
from haystack.dataclasses import SparseEmbedding
from haystack_integrations.document_stores.qdrant import QdrantDocumentStore
from haystack_integrations.document_stores.qdrant.converters import DENSE_VECTORS_NAME, SPARSE_VECTORS_NAME
from haystack_integrations.document_stores.qdrant.document_store import QdrantStoreError
from haystack_integrations.document_stores.qdrant.filters import convert_filters_to_qdrant
from qdrant_client import models
from qdrant_client.http.exceptions import ApiException

from haystack_integrations.components.retrievers.keytok.adapters.sparse_vectors import SparseVectorAdapter
from haystack_integrations.components.retrievers.keytok.adapters.store import SearchQuery
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import MappingError
from keytok_haystack.utils.artefacts import one_line
from keytok_haystack.weighting import rescore_window


class QdrantAdapter(SparseVectorAdapter):
    """Search of a `QdrantDocumentStore`, embedded or on a server, with one request for each query."""

    has_cosines = True
    _store: QdrantDocumentStore

    def warm_up(self, model: KeyTokenModel | None, *, with_dense: bool, with_bm25: bool) -> None:
        """
        Check the settings of the store; its collection is created by the store, when it is first used.

        :raises MappingError: The store keeps no sparse embeddings, changes their scores, or measures dense vectors by
            something else than cosines.
        """
        super().warm_up(model, with_dense=with_dense, with_bm25=with_bm25)
        similarity = self._store.similarity
        if not self._store.use_sparse_embeddings:
            what = "keeps no sparse embeddings: set `use_sparse_embeddings` to True"
        elif self._store.sparse_idf:
            what = "weighs sparse embeddings again: set `sparse_idf` to False"
        elif with_dense and similarity != "cosine":
            what = f"has '{similarity}' as its `similarity`, and not 'cosine': set the `dense_weight` to 0"
        else:
            return
        msg = f"The QdrantDocumentStore of '{self._store.index}' {what}."
        raise MappingError(msg)

    @property
    def _returns_vectors(self) -> bool:
        return self._store.return_embedding

    def _find(
        self, vector: SparseEmbedding, query: SearchQuery, filters: dict[str, Any] | None, top_k: int
    ) -> list[Document]:
        conditions = convert_filters_to_qdrant(filters)
        sparse = models.SparseVector(indices=vector.indices, values=vector.values)
        if query.dense_weight:
            request = self._weighted_sum(sparse, query, conditions, top_k)
        else:
            request = {"query": sparse, "using": SPARSE_VECTORS_NAME, "query_filter": conditions}
        returned = [SPARSE_VECTORS_NAME, *([DENSE_VECTORS_NAME] if self._store.return_embedding else [])]
        try:
            self._store._initialize_client()
            client: Any = self._store._client
            answer = client.query_points(
                self._store.index, **request, limit=top_k, with_payload=True, with_vectors=returned
            )
        except ApiException as error:
            msg = f"Qdrant cannot answer: {one_line(error)}"
            raise QdrantStoreError(msg) from error
        return self._store._process_query_point_results(answer.points)

    def _weighted_sum(
        self, sparse: models.SparseVector, query: SearchQuery, conditions: models.Filter | None, top_k: int
    ) -> dict[str, Any]:
        """Return a request that finds candidates, scores all of them by each part, and adds the parts."""
        by_tokens = {"query": sparse, "using": SPARSE_VECTORS_NAME}
        by_cosine = {"query": list(query.embedding or ()), "using": DENSE_VECTORS_NAME}
        window = rescore_window(self._settings.rescored, top_k)
        searches = [(by_tokens, window)] * bool(sparse.indices) + [(by_cosine, self._settings.nearest)]
        candidates = [models.Prefetch(**search, filter=conditions, limit=limit) for search, limit in searches if limit]
        number = window + self._settings.nearest
        weights = [(by_tokens, 1.0)] * bool(sparse.indices) + [(by_cosine, query.dense_weight)]
        parts = [models.Prefetch(prefetch=candidates, **search, limit=number) for search, _ in weights]
        scores = [f"$score[{i}]" for i in range(len(parts))]
        weighted: list[Any] = [models.MultExpression(mult=[w, s]) for s, (_, w) in zip(scores, weights, strict=True)]
        formula = models.FormulaQuery(formula=models.SumExpression(sum=weighted), defaults=dict.fromkeys(scores, 0.0))
        return {"prefetch": parts, "query": formula}

    def close(self) -> None:
        """Close the store's connection; a later search opens it again, but what was only in memory is lost."""
        self._store.close()

    async def close_async(self) -> None:
        """Do nothing: asynchronous searches share the connection of the others."""
