# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import asyncio
import math
from pathlib import Path
from typing import Any

from haystack import Document, component, default_to_dict
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.types import DocumentStore, FilterPolicy, apply_filter_policy

from haystack_integrations.components.embedders.keytok.conversion import encode_query, named_tokens
from haystack_integrations.components.embedders.keytok.loading import load_model
from haystack_integrations.components.retrievers.keytok.adapters import SparseQuery, adapter_for
from keytok_haystack import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import LARGEST_WEIGHT, SMALLEST_WEIGHT


@component
class SparseRetriever:
    """
    Retrieves documents by their key tokens, from an inverted index.

    The score of a document is the sum, over the tokens that it shares with the query, of the query's weight times the
    document's. The query has one of three forms: `key_tokens` from `KeyTokenSparseEmbedder`; `query_embedding` from any
    dense embedder, which needs `model` and makes this the only new component of a query pipeline; or
    `query_sparse_embedding`, the vector of any Haystack sparse embedder.

    Supported document stores: `InMemoryDocumentStore`; `OpenSearchDocumentStore` with a `rank_features` field;
    `ElasticsearchDocumentStore` with a `rank_features` or `sparse_vector` field. `keytok mapping --create` creates an
    index that has the field.

    ### Usage example
    ```python
    from haystack import Document
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack_integrations.components.retrievers.keytok import SparseRetriever

    document_store = InMemoryDocumentStore()
    document_store.write_documents([
        Document(content="Shock waves", meta={"key_tokens": {"shock": 1.0, "wave": 0.9}}),
        Document(content="Heat transfer", meta={"key_tokens": {"heat": 1.0, "transfer": 0.8}}),
    ])
    retriever = SparseRetriever(document_store, top_k=1)
    print(retriever.run(key_tokens={"shock": 1.0, "boundary": 0.5})["documents"][0].content)

    # Shock waves
    ```
    """

    def __init__(
        self,
        document_store: DocumentStore,
        *,
        filters: dict[str, Any] | None = None,
        top_k: int = 10,
        filter_policy: str | FilterPolicy = FilterPolicy.REPLACE,
        model: str | Path | None = None,
        bm25_weight: float = 0.0,
        field: str = "key_tokens",
    ) -> None:
        """
        Creates a SparseRetriever component.

        :param document_store:
            The document store to search.
        :param filters:
            Filters to narrow down the documents.
        :param top_k:
            Maximum number of documents to return.
        :param filter_policy:
            Whether filters at run time replace the ones given here or are merged with them.
        :param model:
            Path of the folder of the key-token model that the documents were written with. It is needed for
            `query_embedding`, and for BM25 over an `InMemoryDocumentStore`; with it, `warm_up` checks that an index of
            OpenSearch or Elasticsearch is written with this very model.
        :param bm25_weight:
            Factor of the BM25 scores of `query` that are added to the key-token scores, in one request. Key-token
            weights have the same scale for every model. 0.1 helps if queries repeat words of the documents that they
            are to find, and costs quality otherwise.
        :param field:
            The key of `meta` that holds a document's key tokens, which is also the name of the field in the index.

        :raises ValueError:
            If `top_k` is not greater than 0, or `bm25_weight` is negative or not finite.
        :raises TypeError:
            If the document store is of a kind that is not supported.
        """
        if top_k <= 0:
            msg = f"top_k must be greater than 0, but got {top_k}."
            raise ValueError(msg)
        if not (math.isfinite(bm25_weight) and bm25_weight >= 0):
            msg = f"bm25_weight must be a finite number and not negative, but got {bm25_weight}."
            raise ValueError(msg)
        self._adapter = adapter_for(document_store, field)
        self.document_store = document_store
        self.filters = filters
        self.top_k = top_k
        self.filter_policy = (
            filter_policy if isinstance(filter_policy, FilterPolicy) else FilterPolicy.from_str(filter_policy)
        )
        self.model = None if model is None else str(model)
        self.bm25_weight = bm25_weight
        self.field = field
        self._model: KeyTokenModel | None = None
        self._is_warm = False

    def to_dict(self) -> dict[str, Any]:
        """
        Serializes the component to a dictionary.

        :returns:
            Dictionary with serialized data.
        """
        return default_to_dict(
            self,
            document_store=self.document_store,
            filters=self.filters,
            top_k=self.top_k,
            filter_policy=self.filter_policy.value,
            model=self.model,
            bm25_weight=self.bm25_weight,
            field=self.field,
        )

    def warm_up(self) -> None:
        """
        Loads the key-token model, if one was given, and checks that the document store can be searched.

        :raises MappingError:
            If the index has no field of key tokens, or one that was written with another model than `model`.
        :raises DocumentStoreError:
            If the engine cannot be reached, refuses the credentials or has no such index.
        """
        if not self._is_warm:
            if self.model is not None:
                self._model = load_model(self.model)
            self._adapter.warm_up(self._model)
            self._is_warm = True

    async def warm_up_async(self) -> None:
        """
        Loads the key-token model and checks the document store as `warm_up` does, in a thread.
        """
        await asyncio.to_thread(self.warm_up)

    def close(self) -> None:
        """
        Frees the model and the index, or closes the document store's connection; a later run restores them.
        """
        self._adapter.close()
        self._model = None
        self._is_warm = False

    async def close_async(self) -> None:
        """
        Frees the model and the index, or closes the document store's asynchronous connection.
        """
        await self._adapter.close_async()
        self._model = None
        self._is_warm = False

    @component.output_types(documents=list[Document])
    def run(
        self,
        key_tokens: dict[str, float] | None = None,
        query_sparse_embedding: SparseEmbedding | None = None,
        query_embedding: list[float] | None = None,
        query: str | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """
        Retrieves documents.

        :param key_tokens:
            Key tokens of the query, `{token: weight}`. Tokens are escaped as in documents (`escape_feature`).
        :param query_sparse_embedding:
            Sparse embedding of the query. With `model`, its indices are features of that model, or hashes of words that
            `query` names, as `KeyTokenSparseEmbedder` returns them. Without, they are those of any other sparse
            embedder, and are looked up as strings.
        :param query_embedding:
            Dense embedding of the query. It needs `model`.
        :param query:
            Text of the query, for BM25, for the literal tokens beside `query_embedding`, and for the names of words in
            `query_sparse_embedding` that the model does not know.
        :param filters:
            Filters to narrow down the documents. `filter_policy` decides whether they replace those given at
            initialization or are merged with them.
        :param top_k:
            Maximum number of documents to return. 0 returns none.
        :returns:
            A dictionary with the following keys:
            - `documents`: The documents with the highest scores, best first, without documents that share no token with
                the query.

        :raises ValueError:
            If not exactly one form of the query is given, the model or text that it needs is missing, a weight is not
            positive, or `top_k` is negative.
        :raises DocumentStoreError:
            If an engine cannot be reached or cannot answer.
        """
        self.warm_up()
        sparse_query = self._sparse_query(key_tokens, query_sparse_embedding, query_embedding, query)
        filters, top_k = self._resolve(filters, top_k)
        return {"documents": self._adapter.search(sparse_query, filters, top_k)}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        key_tokens: dict[str, float] | None = None,
        query_sparse_embedding: SparseEmbedding | None = None,
        query_embedding: list[float] | None = None,
        query: str | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """
        Retrieves documents asynchronously; parameters, result and errors are those of `run`.

        :param key_tokens:
            Key tokens of the query, `{token: weight}`.
        :param query_sparse_embedding:
            Sparse embedding of the query.
        :param query_embedding:
            Dense embedding of the query. It needs `model`.
        :param query:
            Text of the query.
        :param filters:
            Filters to narrow down the documents.
        :param top_k:
            Maximum number of documents to return. 0 returns none.
        :returns:
            A dictionary with the following keys:
            - `documents`: The documents with the highest scores, best first.
        """
        await self.warm_up_async()
        sparse_query = await asyncio.to_thread(
            self._sparse_query, key_tokens, query_sparse_embedding, query_embedding, query
        )
        filters, top_k = self._resolve(filters, top_k)
        return {"documents": await self._adapter.search_async(sparse_query, filters, top_k)}

    def run_batch(
        self,
        key_tokens: list[dict[str, float]],
        queries: list[str] | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[list[Document]]]:
        """
        Retrieves documents for many queries, in few requests to an engine, as for evaluation.

        :param key_tokens:
            Key tokens of each query.
        :param queries:
            Text of each query. It is needed with a `bm25_weight`.
        :param filters:
            Filters to narrow down the documents.
        :param top_k:
            Maximum number of documents to return for each query. 0 returns none.
        :returns:
            A dictionary with the following keys:
            - `documents`: For each query, the documents with the highest scores, best first.

        :raises ValueError:
            If there are not as many texts as queries, or for the reasons that `run` lists.
        """
        self.warm_up()
        texts = [None] * len(key_tokens) if queries is None else queries
        if len(texts) != len(key_tokens):
            msg = f"There are key tokens of {len(key_tokens)} queries, but {len(texts)} texts."
            raise ValueError(msg)
        sparse_queries = [
            self._sparse_query(tokens, None, None, text) for tokens, text in zip(key_tokens, texts, strict=True)
        ]
        filters, top_k = self._resolve(filters, top_k)
        return {"documents": self._adapter.search_many(sparse_queries, filters, top_k)}

    def _resolve(self, filters: dict[str, Any] | None, top_k: int | None) -> tuple[dict[str, Any] | None, int]:
        top_k = self.top_k if top_k is None else top_k
        if top_k < 0:
            msg = f"top_k must not be negative, but got {top_k}."
            raise ValueError(msg)
        return apply_filter_policy(self.filter_policy, self.filters, filters), top_k

    def _sparse_query(
        self,
        key_tokens: dict[str, float] | None,
        query_sparse_embedding: SparseEmbedding | None,
        query_embedding: list[float] | None,
        query: str | None,
    ) -> SparseQuery:
        if sum(form is not None for form in (key_tokens, query_sparse_embedding, query_embedding)) != 1:
            msg = "SparseRetriever needs exactly one of `key_tokens`, `query_sparse_embedding` and `query_embedding`."
            raise ValueError(msg)
        if self.bm25_weight and query is None:
            msg = "SparseRetriever has a `bm25_weight`, so it needs the text of the query: pass `query`."
            raise ValueError(msg)
        if query_embedding is not None:
            if self._model is None:
                msg = "SparseRetriever needs a key-token model for `query_embedding`: set `model`."
                raise ValueError(msg)
            key_tokens, _ = encode_query(self._model, query_embedding, query)
        elif query_sparse_embedding is not None:
            key_tokens = named_tokens(query_sparse_embedding, self._model, query)
        tokens = key_tokens or {}
        for token, weight in tokens.items():
            if not SMALLEST_WEIGHT <= weight <= LARGEST_WEIGHT:
                msg = f"Query weights must be positive and finite, as float32, but that of '{token}' is {weight}."
                raise ValueError(msg)
        return SparseQuery(tokens, query or "", self.bm25_weight)
