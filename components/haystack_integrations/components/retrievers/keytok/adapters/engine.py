# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What the adapters of OpenSearch and Elasticsearch have in common: all but the calls of the engine's client."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from heapq import nlargest
from typing import Any, ClassVar

from haystack import Document, logging

from haystack_integrations.components.retrievers.keytok.adapters.failures import ClauseLimitError, clear_errors, failure
from haystack_integrations.components.retrievers.keytok.adapters.store import SparseQuery, StoreAdapter
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import KeyTokenField, MappingError, key_token_field, search_request

logger = logging.getLogger(__name__)


_QUERIES_PER_REQUEST = 100


class EngineAdapter(StoreAdapter):
    """
    Search a field of an engine's index with one request a query.

    How the field is searched follows its type in the live mapping. Errors of the engine are raised as
    `DocumentStoreError`, in one sentence without credentials.
    """

    engine: ClassVar[str]
    client_errors: ClassVar[tuple[type[Exception], ...]]
    """What the engine's client raises."""
    bm25_factor: ClassVar[float]
    """What the engine's BM25 scores are divided by, so that a share of BM25 means the same for every store."""

    def __init__(self, document_store: Any, field: str) -> None:
        """Keep the store; nothing is connected to."""
        self._store = document_store
        self._name = field
        self._field: KeyTokenField | None = None
        self._most_tokens: int | None = None

    @abstractmethod
    def _client(self) -> Any:
        """Return the store's client, connected."""

    @abstractmethod
    async def _async_client(self) -> Any:
        """Return the store's asynchronous client, connected."""

    @abstractmethod
    def _engine_filters(self, filters: dict[str, Any]) -> dict[str, Any]:
        """Turn Haystack's filters into a query, as the store's own retrievers do."""

    @abstractmethod
    def _returned(self, field: KeyTokenField) -> dict[str, Any]:
        """Say what of the documents a search is to return, as the store's own retrievers do, and their key tokens."""

    @abstractmethod
    def _document(self, hit: dict[str, Any]) -> Document:
        """Turn a hit into a document, as the store's own retrievers do."""

    def warm_up(self, model: KeyTokenModel | None) -> None:
        """
        Connect to the store and check the live mapping.

        :raises DocumentStoreError: The engine cannot be reached, refuses the credentials or has no such index.
        :raises MappingError: The index has no field of key tokens, or one that was written with another model.
        """
        with self._clear_errors():
            indices = self._client().indices.get_mapping(index=self._store._index)
        self._check(indices, model)

    async def warm_up_async(self, model: KeyTokenModel | None) -> None:
        """Connect to the store asynchronously and check the live mapping."""
        with self._clear_errors():
            client = await self._async_client()
            indices = await client.indices.get_mapping(index=self._store._index)
        self._check(indices, model)

    def _check(self, indices: Mapping[str, Any], model: KeyTokenModel | None) -> None:
        fields = {name: key_token_field(index["mappings"], self._name, name) for name, index in indices.items()}
        if len({field.type for field in fields.values()}) > 1:
            msg = f"The indices {', '.join(fields)} behind '{self._store._index}' map '{self._name}' differently."
            raise MappingError(msg)
        for index, field in fields.items():
            if model is not None and field.fingerprint is None:
                logger.warning(
                    "The mapping of the index '{index}' does not say with which model the field '{field}' is written, "
                    "so it cannot be checked that it is the model of this retriever ({fingerprint}). "
                    "`keytok mapping --create` writes it.",
                    index=index,
                    field=self._name,
                    fingerprint=model.fingerprint,
                )
            elif model is not None and field.fingerprint != model.fingerprint:
                msg = (
                    f"The field '{self._name}' of the index '{index}' is written with the key-token model "
                    f"{field.fingerprint}, but this retriever has the model {model.fingerprint}: their tokens and "
                    "weights do not match. Give it the model that the documents are written with, or write them to "
                    "another `field` with this one."
                )
                raise MappingError(msg)
            self._field = field

    def search(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """
        Return the best documents with their scores, best first.

        :raises DocumentStoreError: The engine cannot be reached or cannot answer.
        """
        while True:
            request = self._request(query, filters, top_k)
            if request is None:
                return []
            with self._fitting([query]), self._clear_errors():
                return self._documents(self._client().search(index=self._store._index, body=request))

    async def search_async(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores, best first."""
        while True:
            request = self._request(query, filters, top_k)
            if request is None:
                return []
            with self._fitting([query]), self._clear_errors():
                client = await self._async_client()
                return self._documents(await client.search(index=self._store._index, body=request))

    def search_many(
        self, queries: Sequence[SparseQuery], filters: dict[str, Any] | None, top_k: int
    ) -> list[list[Document]]:
        """Search with many queries, up to 100 in one request to the engine."""
        found: list[list[Document]] = []
        while len(found) < len(queries):
            batch = queries[len(found) : len(found) + _QUERIES_PER_REQUEST]
            requests = [self._request(query, filters, top_k) for query in batch]
            with self._fitting(batch), self._clear_errors():
                found += self._documents_of_many(requests)
        return found

    def _documents_of_many(self, requests: Sequence[dict[str, Any] | None]) -> list[list[Document]]:
        lines = [line for request in requests if request is not None for line in ({}, request)]
        response = self._client().msearch(index=self._store._index, body=lines) if lines else {"responses": []}
        answers = iter(response["responses"])
        return [[] if request is None else self._documents(next(answers)) for request in requests]

    def _request(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> dict[str, Any] | None:
        """Return the search request, or None if nothing can be found."""
        if self._field is None:
            msg = "The adapter is not warmed up."
            raise RuntimeError(msg)
        tokens = query.tokens
        if self._most_tokens is not None and len(tokens) > self._most_tokens:
            tokens = dict(nlargest(self._most_tokens, tokens.items(), key=lambda item: item[1]))
        if top_k == 0 or not (tokens or (query.text and query.bm25_weight)):
            return None
        request = search_request(
            tokens,
            self._name,
            self._field.type,
            top_k,
            text=query.text,
            bm25_weight=query.bm25_weight / self.bm25_factor,
            filters=self._engine_filters(filters) if filters else None,
        )
        return {**request, **self._returned(self._field)}

    def _documents(self, response: Mapping[str, Any]) -> list[Document]:
        if "error" in response:  # of one of many searches
            raise failure(response["status"], response, self.engine, self._store._hosts, self._store._index)
        return [self._document(hit) for hit in response["hits"]["hits"]]

    @contextmanager
    def _fitting(self, queries: Sequence[SparseQuery]) -> Iterator[None]:
        """
        Lower the number of tokens that a query is sent with if the engine finds them too many, and let it try again.

        Only the refusal tells the limit of every engine: some size it by their heap, and all but Elasticsearch 7 count
        the words of a text and the conditions of filters, too.
        """
        try:
            yield
        except ClauseLimitError as error:
            longest = max(len(query.tokens) for query in queries)
            sent = min(longest, self._most_tokens or longest)
            words = max(len(query.text.split()) if query.bm25_weight else 0 for query in queries)
            fewer = min(error.limit - words, sent - max(sent // 16, 1))
            if fewer < 1:
                raise
            if self._most_tokens is None:
                logger.warning(
                    "A query has {tokens} tokens, but {engine} allows {limit} clauses in a query: only the strongest "
                    "are searched for. Lower the number of tokens, or raise indices.query.bool.max_clause_count.",
                    tokens=longest,
                    engine=self.engine,
                    limit=error.limit,
                )
            self._most_tokens = fewer

    def _clear_errors(self) -> AbstractContextManager[None]:
        return clear_errors(self.client_errors, self.engine, self._store._hosts, self._store._index)

    def close(self) -> None:
        """Close the store's connection; a later search opens it again."""
        self._forget()
        self._store.close()

    async def close_async(self) -> None:
        """Close the store's asynchronous connection."""
        self._forget()
        await self._store.close_async()

    def _forget(self) -> None:
        self._field = None
        self._most_tokens = None
