# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What the adapters of OpenSearch and Elasticsearch have in common: all but the calls of the engine's client."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from heapq import nlargest
from typing import Any, ClassVar

from haystack import Document, logging
from haystack.document_stores.errors import DocumentStoreError

from haystack_integrations.components.retrievers.keytok.adapters.store import SparseQuery, StoreAdapter
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import FieldType, KeyTokenField, MappingError, key_token_field, search_request
from keytok_haystack.engines.failures import (
    ClauseLimitError,
    addresses,
    clear_errors,
    failure,
    missing_index,
)

logger = logging.getLogger(__name__)


TIMEOUT = 60.0  # seconds, of a client whose document store names none; OpenSearch's would wait for ever
CONNECTIONS = 4  # of a client that threads share; OpenSearch's would have one
_QUERIES_PER_REQUEST = 100
_WHOLE = {"allow_partial_search_results": False}  # by default engines leave out what they cannot reach, and say nothing


class EngineAdapter(StoreAdapter):
    """
    Search a field of an engine's index with one request a query.

    How the field is searched follows its type in the live mapping. Errors of the engine are raised as
    `DocumentStoreError`, in one sentence without credentials.
    """

    engine: ClassVar[str]
    client_errors: ClassVar[tuple[type[Exception], ...]]
    """What the engine's client raises."""
    field_types: ClassVar[tuple[FieldType, ...]]
    """The types of field that the adapter can search."""
    bm25_factor: ClassVar[float]
    """What the engine's BM25 scores are divided by, so that a share of BM25 means the same for every store."""

    def __init__(self, document_store: Any, field: str) -> None:
        """Keep the store; nothing is connected to."""
        self._store = document_store
        self._name = field
        self._field: KeyTokenField | None = None
        self._has_warned = False

    @staticmethod
    @abstractmethod
    def _connect(document_store: Any, **options: Any) -> Any:
        """Return a new client with the store's address and credentials, and further options of the client."""

    @staticmethod
    def leaves_vectors_out(client: Any, index: str) -> bool:  # noqa: ARG004
        """
        Tell whether vectors are left out of the `_source` of documents.

        :param index: The name of an index, or of an alias of several.
        """
        return False

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

    @classmethod
    @contextmanager
    def connected(cls, document_store: Any, **options: Any) -> Iterator[Any]:
        """
        Give a client with a document store's address and credentials, which unlike the store's own creates no index.

        :param options: Further options of the client.
        :raises DocumentStoreError: What goes wrong, in one sentence without credentials.
        """
        hosts, index = document_store._hosts, document_store._index
        try:
            client = cls._connect(document_store, **options)
        except ValueError:
            msg = (
                f"{cls.engine} at {addresses(hosts)} cannot be addressed: check the address, such as "
                "http://localhost:9200, and the credentials."
            )
            raise DocumentStoreError(msg) from None  # the cause may show a password
        with closing(client), clear_errors(cls.client_errors, cls.engine, hosts, index):
            yield client

    def warm_up(self, model: KeyTokenModel | None) -> None:
        """
        Check the live mapping.

        :raises DocumentStoreError: The engine cannot be reached, refuses the credentials or has no such index.
        :raises MappingError: The index has no field of key tokens, or one that was written with another model.
        """
        # a client of its own, since the store's would create an index that is missing, where nothing can be found
        with self.connected(self._store) as client:
            indices = client.indices.get_mapping(index=self._store._index)
            self._check(indices, model)
            self._warn_about_mapping(client)

    def _warn_about_mapping(self, client: Any) -> None:
        """Warn of what else in the index is unfit for key tokens."""

    def _check(self, indices: Mapping[str, Any], model: KeyTokenModel | None) -> None:
        if not indices:
            raise missing_index(self.engine, self._store._hosts, self._store._index)
        fields = {
            name: key_token_field(index["mappings"], self._name, name, self.field_types)
            for name, index in indices.items()
        }
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
        with self._clear_errors():
            client = self._client()  # first, since OpenSearch's store reads then which fields are nested
        tokens = query.tokens
        while (request := self._request(query, tokens, filters, top_k)) is not None:
            try:
                with self._clear_errors():
                    answer = client.search(index=self._store._index, body=request, **_WHOLE)
                    documents = self._documents(answer)
            except ClauseLimitError as error:
                tokens = self._within_clause_limit(tokens, query, filters, error)
            else:
                if not _may_lack_some(documents, request):
                    return documents
                query = replace(query, exact=True)
        return []

    async def search_async(self, query: SparseQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores, best first."""
        with self._clear_errors():
            client = await self._async_client()
        tokens = query.tokens
        while (request := self._request(query, tokens, filters, top_k)) is not None:
            try:
                with self._clear_errors():
                    answer = await client.search(index=self._store._index, body=request, **_WHOLE)
                    documents = self._documents(answer)
            except ClauseLimitError as error:
                tokens = self._within_clause_limit(tokens, query, filters, error)
            else:
                if not _may_lack_some(documents, request):
                    return documents
                query = replace(query, exact=True)
        return []

    def search_many(
        self, queries: Sequence[SparseQuery], filters: dict[str, Any] | None, top_k: int
    ) -> list[list[Document]]:
        """Search with many queries, up to 100 in one request to the engine."""
        with self._clear_errors():
            client = self._client()
        found: list[list[Document]] = []
        for start in range(0, len(queries), _QUERIES_PER_REQUEST):
            batch = queries[start : start + _QUERIES_PER_REQUEST]
            requests = [self._request(query, query.tokens, filters, top_k) for query in batch]
            lines = [line for request in requests if request is not None for line in (_WHOLE, request)]
            with self._clear_errors():
                answers = client.msearch(index=self._store._index, body=lines)["responses"] if lines else []
            remaining = iter(answers)
            for query, request in zip(batch, requests, strict=True):
                try:
                    documents = [] if request is None else self._documents(next(remaining))
                except ClauseLimitError:
                    documents = self.search(query, filters, top_k)
                else:
                    if request is not None and _may_lack_some(documents, request):
                        documents = self.search(replace(query, exact=True), filters, top_k)
                found.append(documents)
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
            bm25_weight=query.bm25_weight / self.bm25_factor,
            filters=engine_filters,
            exact=query.exact,
        )
        return {**request, **self._returned(self._field)}

    def _documents(self, response: Mapping[str, Any]) -> list[Document]:
        if "error" in response:  # of one of many searches
            raise failure(response["status"], response, self.engine, self._store._hosts, self._store._index)
        return [self._document(hit) for hit in response["hits"]["hits"]]

    def _within_clause_limit(
        self, tokens: Mapping[str, float], query: SparseQuery, filters: dict[str, Any] | None, error: ClauseLimitError
    ) -> Mapping[str, float]:
        """
        Return the strongest tokens, to be tried after the engine has found its limit of clauses exceeded.

        Only the refusal tells the limit on every engine: some size it by their heap, it can be changed at any time,
        and all but Elasticsearch 7 count the words of a text and the conditions of filters, too.
        """
        others = (len(query.text.split()) if query.bm25_weight else 0) + _conditions(filters or {})
        allowed = error.limit - others
        if not 0 < allowed < len(tokens):  # other clauses than these count, or not all of these
            allowed = len(tokens) // 2
        if not allowed:
            raise error
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "A query has {tokens} tokens, besides {others} words and conditions of filters, but {engine} allows "
                "{limit} clauses: only its {allowed} strongest tokens are searched for. Ask for fewer, or raise "
                "indices.query.bool.max_clause_count.",
                tokens=len(query.tokens),
                others=others,
                engine=self.engine,
                limit=error.limit,
                allowed=allowed,
            )
        return dict(nlargest(allowed, tokens.items(), key=lambda item: item[1]))

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
        self._has_warned = False


def _may_lack_some(documents: Sequence[Document], request: Mapping[str, Any]) -> bool:
    """Whether there may be more documents than were found by the strong tokens of a query alone."""
    return "rescore" in request and len(documents) < request["size"]


def _conditions(filters: Mapping[str, Any]) -> int:
    """Return how many comparisons filters are made of."""
    return 1 if "field" in filters else sum(_conditions(part) for part in filters.get("conditions", ()))
