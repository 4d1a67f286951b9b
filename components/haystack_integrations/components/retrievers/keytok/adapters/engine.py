# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Search of an engine's index: all that the adapters of OpenSearch and Elasticsearch have in common."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import Any

from haystack import Document, logging

from haystack_integrations.components.retrievers.keytok.adapters.store import SparseQuery, StoreAdapter
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import KeyTokenField, MappingError, key_token_field, search_request
from keytok_haystack.engines.failures import ClauseLimitError, failure, missing_index
from keytok_haystack.engines.server import server_of

logger = logging.getLogger(__name__)

_QUERIES_PER_REQUEST = 100
_WHOLE = {"allow_partial_search_results": False}  # by default engines silently leave out shards that do not answer


class EngineAdapter(StoreAdapter):
    """
    Search of an engine's index, with one request for each query.

    The type of the field in the live mapping decides how it is searched. Errors of the engine are raised as
    `DocumentStoreError`, in one sentence without credentials.
    """

    def __init__(self, document_store: Any, field: str) -> None:
        """Keep the store; nothing is connected to."""
        self._store = document_store
        self._server = server_of(document_store)
        self._name = field
        self._field: KeyTokenField | None = None
        self._has_warned = False

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
        """Return the part of a request that selects the fields of hits: as the store's retrievers, and key tokens."""

    @abstractmethod
    def _document(self, hit: dict[str, Any]) -> Document:
        """Turn a hit into a document, as the store's own retrievers do."""

    def warm_up(self, model: KeyTokenModel | None) -> None:
        """
        Check the live mapping.

        :raises DocumentStoreError: The engine cannot be reached, refuses the credentials or has no such index.
        :raises MappingError: The index has no field of key tokens, or one that was written with another model.
        """
        # a separate client, since the store's would create a missing index, in which nothing can be found
        with self._server.connected() as client:
            indices = client.indices.get_mapping(index=self._server.index)
            self._check(indices, model)
            if self._server.leaves_vectors_out(client):
                logger.warning(
                    "The index '{index}' leaves vectors out of _source (index.mapping.exclude_source_vectors): key "
                    "tokens do not come back with the hits of other retrievers, which cannot be explained then, and "
                    "documents that are read and written back lose their vectors. `keytok mapping --create` creates an "
                    "index that keeps them.",
                    index=self._server.index,
                )

    def _check(self, indices: Mapping[str, Any], model: KeyTokenModel | None) -> None:
        if not indices:
            raise missing_index(self._server.location)
        fields = {
            name: key_token_field(index["mappings"], self._name, name, self._server.field_types)
            for name, index in indices.items()
        }
        if len({field.type for field in fields.values()}) > 1:
            msg = f"The indices {', '.join(fields)} behind '{self._server.index}' map '{self._name}' differently."
            raise MappingError(msg)
        for index, field in fields.items():
            if model is not None and field.fingerprint is None:
                logger.warning(
                    "The mapping of the index '{index}' does not record the model that the field '{field}' is written "
                    "with, so it cannot be checked against the model of this retriever ({fingerprint}). "
                    "`keytok mapping --create` records it.",
                    index=index,
                    field=self._name,
                    fingerprint=model.fingerprint,
                )
            elif model is not None and field.fingerprint != model.fingerprint:
                msg = (
                    f"The field '{self._name}' of the index '{index}' is written with the key-token model "
                    f"{field.fingerprint}, but this retriever has the model {model.fingerprint}: their tokens and "
                    "weights do not match. Give it the model that the documents are written with, or write them with "
                    "this one to another `field`."
                )
                raise MappingError(msg)
            self._field = field

    def search(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """
        Return the best documents with their scores, best first.

        :raises DocumentStoreError: The engine cannot be reached or cannot answer.
        """
        with self._server.clear_errors():
            client = self._client()  # first, since OpenSearch's store then learns which fields are nested
        tokens = query.tokens
        while (request := self._request(query, tokens, filters, top_k)) is not None:
            try:
                with self._server.clear_errors():
                    answer = client.search(index=self._server.index, body=request, **_WHOLE)
                    return self._documents(answer)
            except ClauseLimitError as error:
                tokens = self._within_clause_limit(tokens, query, filters, error)
        return []

    async def search_async(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores, best first."""
        with self._server.clear_errors():
            client = await self._async_client()
        tokens = query.tokens
        while (request := self._request(query, tokens, filters, top_k)) is not None:
            try:
                with self._server.clear_errors():
                    answer = await client.search(index=self._server.index, body=request, **_WHOLE)
                    return self._documents(answer)
            except ClauseLimitError as error:
                tokens = self._within_clause_limit(tokens, query, filters, error)
        return []

    def search_many(
        self, queries: Sequence[SparseQuery], filters: dict[str, Any] | None, top_k: int
    ) -> list[list[Document]]:
        """Search with many queries, up to 100 in one request to the engine."""
        with self._server.clear_errors():
            client = self._client()
        found: list[list[Document]] = []
        for start in range(0, len(queries), _QUERIES_PER_REQUEST):
            batch = queries[start : start + _QUERIES_PER_REQUEST]
            requests = [self._request(query, query.tokens, filters, top_k) for query in batch]
            lines = [line for request in requests if request is not None for line in (_WHOLE, request)]
            with self._server.clear_errors():
                answers = client.msearch(index=self._server.index, body=lines)["responses"] if lines else []
            remaining = iter(answers)
            for query, request in zip(batch, requests, strict=True):
                try:
                    found.append([] if request is None else self._documents(next(remaining)))
                except ClauseLimitError:
                    found.append(self.search(query, filters, top_k))
        return found

    def _request(
        self, query: SparseQuery, tokens: Mapping[str, float], filters: dict[str, Any] | None, top_k: int
    ) -> dict[str, Any] | None:
        """Return the request to search for some of the query's tokens, or None if nothing can be found."""
        if self._field is None:
            msg = "The adapter is not warmed up."
            raise RuntimeError(msg)
        engine_filters = self._engine_filters(filters) if filters else None
        if top_k == 0 or not (tokens or (query.text and query.bm25_weight)):
            return None
        request = search_request(
            tokens,
            self._name,
            self._field.type,
            top_k,
            text=query.text,
            bm25_weight=query.bm25_weight / self._server.bm25_factor,
            filters=engine_filters,
        )
        return {**request, **self._returned(self._field)}

    def _documents(self, response: Mapping[str, Any]) -> list[Document]:
        if "error" in response:  # of one of many searches
            raise failure(response["status"], response, self._server.location)
        return [self._document(hit) for hit in response["hits"]["hits"]]

    def _within_clause_limit(
        self, tokens: Mapping[str, float], query: SparseQuery, filters: dict[str, Any] | None, error: ClauseLimitError
    ) -> Mapping[str, float]:
        """
        Return the strongest tokens, for another attempt after the engine has refused a query with too many clauses.

        Only the refusal reveals the limit on every engine: some size it by their heap, it can be changed at any time,
        and all but Elasticsearch 7 count the words of a text and the conditions of filters, too.
        """
        others = (len(query.text.split()) if query.bm25_weight else 0) + _conditions(filters or {})
        allowed = error.limit - others
        if not 0 < allowed < len(tokens):  # the engine counts other clauses than these, or not all of these
            allowed = len(tokens) // 2
        if not allowed:
            raise error
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "A query has {tokens} tokens, besides {others} words and conditions of filters, but {engine} allows "
                "{limit} clauses: only its {allowed} strongest tokens are searched for. Use fewer, or raise "
                "indices.query.bool.max_clause_count.",
                tokens=len(query.tokens),
                others=others,
                engine=self._server.name,
                limit=error.limit,
                allowed=allowed,
            )
        return dict(nlargest(allowed, tokens.items(), key=lambda item: item[1]))

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
        self._has_warned = False


def _conditions(filters: Mapping[str, Any]) -> int:
    """Return the number of comparisons in filters."""
    return 1 if "field" in filters else sum(_conditions(part) for part in filters.get("conditions", ()))
