# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Search of an engine's index: all that the adapters of OpenSearch and Elasticsearch have in common."""

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from heapq import nlargest
from typing import Any

from haystack import Document, logging

from haystack_integrations.components.embedders.keytok.conversion import matched_tokens, stored_key_tokens
from haystack_integrations.components.retrievers.keytok.adapters.store import (
    SearchQuery,
    SearchSettings,
    StoreAdapter,
    set_score_parts,
)
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import (
    DenseShare,
    KeyTokenField,
    LeanIndexError,
    MappingError,
    key_token_field,
    required_tokens,
    search_request,
)
from keytok_haystack.engines.failures import ClauseLimitError, missing_index
from keytok_haystack.engines.mapping import dense_fields
from keytok_haystack.engines.request import BM25_CLAUSE
from keytok_haystack.engines.server import NamedScores, server_of
from keytok_haystack.inverted_index import standard_tokens
from keytok_haystack.sparse_vectors.rank_features import nearest_stored
from keytok_haystack.weighting import strongest_tokens

logger = logging.getLogger(__name__)

_EMBEDDING = "embedding"
_WHOLE = {"allow_partial_search_results": False}  # by default engines silently leave out shards that do not answer


class EngineAdapter(StoreAdapter):
    """
    Search of an engine's index, with one request for each query.

    The type of the field in the live mapping decides how it is searched. Errors of the engine are raised as
    `DocumentStoreError`, in one sentence without credentials.
    """

    def __init__(self, document_store: Any, settings: SearchSettings) -> None:
        """Keep the store; nothing is connected to."""
        self._store = document_store
        self._server = server_of(document_store)
        self._settings = settings
        self._name = settings.field
        self._model: KeyTokenModel | None = None
        self._with_dense = False
        self._fields: dict[str, KeyTokenField] = {}
        self._named_scores = NamedScores(tokens=True, rescoring=True)
        self._stores: dict[asyncio.AbstractEventLoop, Any] = {}
        self._has_warned = False

    @abstractmethod
    def _client(self) -> Any:
        """Return the store's client, connected, which waits for an answer no longer than the timeout."""

    @abstractmethod
    async def _async_client(self) -> Any:
        """Return the store's asynchronous client, connected, which waits no longer than the timeout."""

    def _store_of_loop(self) -> Any:
        """Return a store of the running event loop's own: an asynchronous client serves only the loop it began in."""
        loop = asyncio.get_running_loop()
        if (store := self._stores.get(loop)) is None:
            self._forget_ended_loops()
            store = copy(self._store)
            store._async_client = None
            self._stores[loop] = store
        return store

    def _forget_ended_loops(self) -> None:
        """Drop the stores of loops that have ended, whose connections nothing else can close any more."""
        for loop in [loop for loop in list(self._stores) if loop.is_closed()]:
            self._stores.pop(loop, None)

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """Return options of each request to the client."""

    @abstractmethod
    def _engine_filters(self, filters: dict[str, Any]) -> dict[str, Any]:
        """Turn Haystack's filters into a query, as the store's own retrievers do."""

    @abstractmethod
    def _returned(self, field: KeyTokenField, *, with_tokens: bool) -> dict[str, Any]:
        """Return the part of a request that selects the fields of hits: as the store's retrievers, and key tokens."""

    @abstractmethod
    def _document(self, hit: dict[str, Any]) -> Document:
        """Turn a hit into a document, as the store's own retrievers do."""

    def warm_up(self, model: KeyTokenModel | None, *, with_dense: bool, with_bm25: bool) -> None:  # noqa: ARG002
        """
        Check the live mapping.

        :raises DocumentStoreError: The engine cannot be reached, refuses the credentials or has no such index.
        :raises MappingError: The index has no field of key tokens, or one that was written with another model; or it
            has no dense vectors, or the engine cannot compute their cosines, though these are asked for.
        """
        self._model, self._with_dense = model, with_dense
        # a separate client, since the store's would create a missing index, in which nothing can be found
        with self._server.connected() as client:
            version = self._server.version(client)
            self._named_scores = self._server.named_scores(version)
            if with_dense:
                self._server.check_cosines(version)
            self._fields = self._checked_fields(client)
            if self._server.leaves_vectors_out(client, unasked=True):
                logger.warning(
                    "The index '{index}' leaves vectors out of _source (index.mapping.exclude_source_vectors): key "
                    "tokens do not come back with the hits of other retrievers, which cannot be explained then, and "
                    "documents that are read and written back lose their vectors. `keytok mapping --create` creates an "
                    "index that keeps them.",
                    index=self._server.index,
                )
        for index, field in self._fields.items():
            if model is not None and field.fingerprint is None:
                logger.warning(
                    "The mapping of the index '{index}' does not record the model that the field '{field}' is written "
                    "with, so it cannot be checked against the model of this retriever ({fingerprint}). "
                    "`keytok mapping --create` records it.",
                    index=index,
                    field=self._name,
                    fingerprint=model.fingerprint,
                )

    def _checked_fields(self, client: Any) -> dict[str, KeyTokenField]:
        """Return the field of key tokens of each index behind the name, checked."""
        indices = client.indices.get_mapping(index=self._server.index)
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
            if self._with_dense and _EMBEDDING not in dense_fields(indices[index]["mappings"]):
                msg = (
                    f"The index '{index}' has no dense vectors in the field '{_EMBEDDING}', but this retriever has a "
                    "`dense_weight`: set it to 0, or create an index that has them (`keytok mapping --create`)."
                )
                raise MappingError(msg)
            if self._brings_tokens and not field.in_source:
                msg = (
                    f"The index '{index}' leaves '{self._name}' out of the documents that it returns (`_source` in its "
                    "mapping), so hits cannot bring their key tokens: set `return_key_tokens` to False, with "
                    "OpenSearch 2.13 or Elasticsearch 8.8 or later, and credentials that may ask for the version."
                )
                raise LeanIndexError(msg)
            if self._model is not None and field.fingerprint not in (None, self._model.fingerprint):
                msg = (
                    f"The field '{self._name}' of the index '{index}' is written with the key-token model "
                    f"{field.fingerprint}, but this retriever has the model {self._model.fingerprint}: their tokens "
                    "and weights do not match. Give it the model that the documents are written with, or write them "
                    "with this one to another `field`."
                )
                raise MappingError(msg)
        return fields

    def search(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """
        Return the best documents with their scores and matched tokens, best first.

        :raises DocumentStoreError: The engine cannot be reached or cannot answer.
        """
        with self._server.clear_errors():
            client = self._client()  # first, since OpenSearch's store then learns which fields are nested
        asked = self._explainable(query)
        while (request := self._request(asked, filters, top_k)) is not None:
            try:
                with self._server.clear_errors():
                    answer = client.search(**request)
                    if self._is_too_narrow(asked, answer, top_k):
                        asked = replace(asked, first_phase=1.0)
                    elif self._is_of_known_indices(answer) or self._is_unchanged():
                        return self._documents(answer, asked)
            except ClauseLimitError as error:
                asked = self._within_clause_limit(asked, query, filters, error)
        return []

    async def search_async(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> list[Document]:
        """Return the best documents with their scores and matched tokens, best first."""
        with self._server.clear_errors():
            client = await self._async_client()
        asked = self._explainable(query)
        while (request := self._request(asked, filters, top_k)) is not None:
            try:
                with self._server.clear_errors():
                    answer = await client.search(**request)
                    if self._is_too_narrow(asked, answer, top_k):
                        asked = replace(asked, first_phase=1.0)
                    elif self._is_of_known_indices(answer) or await asyncio.to_thread(self._is_unchanged):
                        return self._documents(answer, asked)
            except ClauseLimitError as error:
                asked = self._within_clause_limit(asked, query, filters, error)
        return []

    def _explainable(self, query: SearchQuery) -> SearchQuery:
        """Return a query whose tokens' scores the engine can tell: of rescoring, earlier versions tell none."""
        return query if self._named_scores.rescoring else replace(query, first_phase=1.0)

    def _request(self, query: SearchQuery, filters: dict[str, Any] | None, top_k: int) -> dict[str, Any] | None:
        """Return the arguments of the client's search for a query, or None if nothing can be found."""
        field = next(iter(self._fields.values()), None)
        if field is None:
            msg = "The adapter is not warmed up."
            raise RuntimeError(msg)
        engine_filters = self._engine_filters(filters) if filters else None
        if query.required:
            required = required_tokens(query.required, self._name, field.type)
            engine_filters = {"bool": {"filter": [*required, *([engine_filters] if engine_filters else [])]}}
        dense = None
        if query.embedding is not None and query.dense_weight:
            dense = DenseShare(query.embedding, query.dense_weight, self._settings.nearest, _EMBEDDING)
        if top_k == 0 or not (query.tokens or (query.text and query.bm25_weight) or (dense and dense.nearest)):
            return None
        request = search_request(
            query.tokens,
            self._name,
            field.type,
            top_k,
            first_phase=query.first_phase,
            window=self._settings.rescored,
            text=query.text,
            bm25_weight=query.bm25_weight / self._server.bm25_factor,
            content_field=self._settings.content_field,
            dense=dense,
            engine=self._server.engine,
            filters=engine_filters,
            named=self._named_scores.tokens,
        )
        options = {"include_named_queries_score": True} if self._named_scores.tokens else {}
        body = {**request, **self._returned(field, with_tokens=self._brings_tokens)}
        return {"index": self._server.index, "body": body, **_WHOLE, **options, **self._options()}

    @property
    def _brings_tokens(self) -> bool:
        """Whether hits bring all their key tokens, also because the engine does not tell the score of each."""
        return self._settings.return_key_tokens or not self._named_scores.tokens

    def _is_of_known_indices(self, answer: Mapping[str, Any]) -> bool:
        """Return whether there are hits, all from indices that have been checked."""
        hits = answer["hits"]["hits"]
        return bool(hits) and all(hit["_index"] in self._fields for hit in hits)

    def _is_too_narrow(self, query: SearchQuery, answer: Mapping[str, Any], top_k: int) -> bool:
        """Return whether there are fewer hits than asked for, and others may have weaker tokens of the query."""
        is_short = len(answer["hits"]["hits"]) < top_k
        return is_short and len(strongest_tokens(query.tokens, query.first_phase)) < len(query.tokens)

    def _is_unchanged(self) -> bool:
        """
        Check the indices anew, and return whether they are the same: an alias may have been moved since.

        :raises MappingError: The new ones cannot be searched with this model.
        """
        known = self._fields
        with self._server.connected() as client:
            self._fields = self._checked_fields(client)
        return known == self._fields

    def _documents(self, response: Mapping[str, Any], query: SearchQuery) -> list[Document]:
        """Return the hits with their matched tokens, and with what each part gave to the score if there are several."""
        hits = response["hits"]["hits"]
        if query.dense_weight:  # of which the engine has added the weighted cosine plus 1
            hits = [{**hit, "_score": hit["_score"] - query.dense_weight} for hit in hits]
        documents = [self._document(hit) for hit in hits]
        for document, tokens in zip(documents, self._tokens_of_query(hits, documents, query), strict=True):
            document.meta["matched_tokens"] = matched_tokens(query.tokens, tokens)
            if not self._settings.return_key_tokens:
                document.meta.pop(self._name, None)
        if not (query.bm25_weight or query.dense_weight):
            return documents
        parts = {
            "key_tokens": [
                sum(match["contribution"] for match in document.meta["matched_tokens"]) for document in documents
            ]
        }
        if query.bm25_weight and query.dense_weight and self._named_scores.rescoring:
            parts["bm25"] = [hit.get("matched_queries", {}).get(BM25_CLAUSE, 0.0) for hit in hits]
        rest = [hit["_score"] - sum(known) for hit, *known in zip(hits, *parts.values(), strict=True)]
        both = query.bm25_weight and query.dense_weight and not self._named_scores.rescoring
        parts["bm25_and_dense" if both else "dense" if query.dense_weight else "bm25"] = rest
        set_score_parts(documents, parts)
        return documents

    def _tokens_of_query(
        self, hits: list[dict[str, Any]], documents: list[Document], query: SearchQuery
    ) -> list[Mapping[str, float]]:
        """Return the query's tokens that each hit has, with its weights: read off the score of each, if it is told."""
        if not self._named_scores.tokens:
            return [stored_key_tokens(document, self._name) for document in documents]
        keys = list(query.tokens)
        told = [
            (i, keys[int(name)], score)
            for i, hit in enumerate(hits)
            for name, score in hit.get("matched_queries", {}).items()
            if name != BM25_CLAUSE
        ]
        weights = nearest_stored([score / query.tokens[key] for _, key, score in told]).tolist()
        tokens: list[dict[str, float]] = [{} for _ in hits]
        for (i, key, _), weight in zip(told, weights, strict=True):
            tokens[i][key] = weight
        return [*tokens]

    def _within_clause_limit(
        self, asked: SearchQuery, query: SearchQuery, filters: dict[str, Any] | None, error: ClauseLimitError
    ) -> SearchQuery:
        """
        Return the strongest tokens, and the first words, for another attempt after a refusal of too many clauses.

        Only the refusal reveals the limit on every engine: some size it by their heap, it can be changed at any time,
        and all but Elasticsearch 7 count the words of a text and the conditions of filters, too.
        """
        words = list(dict.fromkeys(standard_tokens(asked.text))) if query.bm25_weight else []
        conditions = _conditions(filters or {})
        allowed = error.limit - conditions
        if not 0 < allowed < len(asked.tokens) + len(words):  # the engine counts other clauses than these
            allowed = (len(asked.tokens) + len(words)) // 2
        if not allowed:
            raise error
        tokens = min(len(asked.tokens), max(allowed - len(words), allowed // 2))
        kept = " ".join(words[: allowed - tokens])
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "A query has {tokens} tokens, and {words} words for BM25, besides {conditions} conditions of filters, "
                "but {engine} allows {limit} clauses: only the {kept_tokens} strongest tokens and the first "
                "{kept_words} words are searched for. Use fewer, or raise indices.query.bool.max_clause_count.",
                tokens=len(query.tokens),
                words=len(words),
                conditions=conditions,
                engine=self._server.name,
                limit=error.limit,
                kept_tokens=tokens,
                kept_words=len(words[: allowed - tokens]),
            )
        strongest = dict(nlargest(tokens, asked.tokens.items(), key=lambda item: item[1]))
        return replace(asked, tokens=strongest, text=kept if query.bm25_weight else asked.text)

    def close(self) -> None:
        """Close the store's connection; a later search opens it again."""
        self._has_warned = False
        self._forget_ended_loops()
        self._store.close()

    async def close_async(self) -> None:
        """Close the asynchronous connection of the running event loop."""
        self._has_warned = False
        if (store := self._stores.pop(asyncio.get_running_loop(), None)) is not None:
            await store.close_async()


def _conditions(filters: Mapping[str, Any]) -> int:
    """Return the number of comparisons in filters."""
    return 1 if "field" in filters else sum(_conditions(part) for part in filters.get("conditions", ()))
