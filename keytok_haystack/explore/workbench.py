# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Searches of one collection by several systems, explained token by token, as plain data."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from haystack import Document, Pipeline

from keytok_haystack.confidence import as_floats, note_of
from keytok_haystack.embedding_space import cosine
from keytok_haystack.encoders import CachedEmbedder
from keytok_haystack.engines import LeanIndexError, MappingError
from keytok_haystack.explanation import Explanation, dense_share, spans_of, without_tokens
from keytok_haystack.explore.sources import Source
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.pipelines import pipeline_yaml
from keytok_haystack.sparse_vectors.rank_features import escape_feature, unescape_feature
from keytok_haystack.weighting import BM25_WEIGHT, DENSE_WEIGHT

SYSTEMS: Mapping[str, str] = {
    "hybrid": "Hybrid",
    "key_tokens": "Key tokens",
    "dense": "Dense vectors",
    "bm25": "BM25",
}
"""Systems whose rankings are compared, and their names for people."""
PARTS: Mapping[str, str] = {
    "key_tokens": "key tokens",
    "bm25": "BM25",
    "dense": "dense vectors",
    "bm25_and_dense": "BM25 and dense vectors",
}
"""Parts of a hybrid score, and their names for people."""
_FIELD = "key_tokens"
_FILTERABLE = {
    *("keyword", "boolean", "date"),
    *("int", "integer", "long", "short", "byte", "float", "double", "half_float", "scaled_float"),
}
_DEPTH = 1000  # hits among which a document's rank is looked for
_ADDED = 0.5  # weight of a token that the query lacks, before it is boosted


@dataclass(frozen=True)
class _Query:
    """
    A question as systems take it.

    :param embedding: Its embedding.
    :param words: Its text for BM25, without the words whose tokens are muted.
    :param tokens: Its key tokens, edited.
    :param literals: Keys of its literal tokens.
    :param unused: Literal tokens that are not among its key tokens, although nobody has muted them.
    :param confidence: Its confidence, if the model knows it.
    """

    words: str
    embedding: list[float]
    tokens: dict[str, float]
    literals: list[str]
    unused: list[str]
    confidence: float | None


class Workbench:
    """
    Searches one collection by key tokens, dense vectors, BM25, and all of them, and explains the hits.

    Everything that it returns is made of dicts, lists, strings and numbers, for JSON.
    """

    def __init__(
        self, folder: str | Path, model: KeyTokenModel, source: Source, embedder: CachedEmbedder, top_k: int = 10
    ) -> None:
        """
        Check the index.

        :param folder: Path of the key-token model that the documents were written with.
        :param model: The model.
        :param source: Documents.
        :param embedder: Embedder of queries.
        :param top_k: Number of hits of each system.
        :raises MappingError: The index has no key tokens of this model.
        :raises DocumentStoreError: The engine cannot be reached, or refuses.
        """
        self.model = model
        self.source = source
        self._top_k = top_k
        self._embedder = embedder
        self._folder = folder
        self._retrievers = {
            "key_tokens": self._retriever(first_phase=1.0),
            "bm25": self._retriever(bm25_weight=1.0),
            "dense": self._retriever(dense_weight=1.0, nearest=top_k),
        }
        try:
            self._retrievers["key_tokens"].warm_up()
        except LeanIndexError as error:
            msg = (
                f"'{source.name}' is lean: its documents come without their key tokens, which are shown here. Search "
                "it with SparseRetriever, or write it anew without --lean."
            )
            raise MappingError(msg) from error
        self._has_vectors = self._can_search_vectors()
        dense_weight = DENSE_WEIGHT if self._has_vectors else 0.0
        self._retrievers["hybrid"] = self._retriever(dense_weight=dense_weight, bm25_weight=BM25_WEIGHT)
        # the nearest documents are as many as a retriever is made for, other hits as many as it is asked for
        self._deep_retrievers = {**self._retrievers, "dense": self._retriever(dense_weight=1.0, nearest=_DEPTH)}
        self._literal_tokens = lru_cache(1 << 16)(self.model.literal_tokens)

    def _retriever(self, **parameters: float) -> Any:
        definition = pipeline_yaml(
            f"query.{self.source.kind}",
            {"retriever": {"return_key_tokens": True, "top_k": self._top_k, **parameters}},
            model=self._folder,
            document_store=self.source.parameters,
        )
        return Pipeline.loads(definition).get_component("retriever")

    def _can_search_vectors(self) -> bool:
        """Return whether the index, which has key tokens of the model, has dense vectors, too."""
        try:
            self._retrievers["dense"].warm_up()
        except MappingError:
            return False
        return True

    def search(
        self, question: str, edits: Mapping[str, float] | None = None, filters: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """
        Ask all systems.

        :param question: Question.
        :param edits: Factors of tokens: 0 mutes one, 2 boosts it; a token that the query lacks is added.
        :param filters: Haystack's filters to narrow down the documents.
        :returns: The query's tokens, its words that are not among them, the ranking of each system, and the
            explanation of each document in one of them.
        :raises ValueError: The question or the filters cannot be read.
        :raises DocumentStoreError: The engine cannot be reached, or refuses.
        """
        query = self._query(question, edits or {})
        hits: dict[str, Document] = {}
        asked = self._asked(query, filters)
        systems = {name: self._ranking(name, inputs, hits) for name, inputs in asked.items()}
        parts = {hit["id"]: hits[hit["id"]].meta.get("score_parts", {}) for hit in systems["hybrid"]["hits"]}
        documents = self._stored_documents(hits)
        return {
            "question": question,
            "confidence": query.confidence,
            "note": note_of(query.confidence),
            "tokens": self._described(query),
            "unused": query.unused,
            "edits": dict(edits or {}),
            "systems": systems,
            "documents": {
                key: self._explained(query, document, parts.get(key, {})) for key, document in documents.items()
            },
        }

    def fields(self) -> list[str]:
        """
        Return the names of the metadata fields that filters can name.

        :raises DocumentStoreError: The engine cannot be reached, or refuses.
        """
        types = self.source.field_types()
        return sorted(name for name, kind in types.items() if name != _FIELD and kind in _FILTERABLE)

    def _asked(self, query: _Query, filters: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
        """Return what each system is asked."""
        embedding = {"query_embedding": query.embedding}
        asked: dict[str, dict[str, Any]] = {
            "hybrid": {"key_tokens": query.tokens, "query": query.words, **(embedding if self._has_vectors else {})},
            "key_tokens": {"key_tokens": query.tokens},
            "dense": {"key_tokens": {}, **embedding},
            "bm25": {"key_tokens": {}, "query": query.words},
        }
        return {name: {**inputs, "filters": filters} for name, inputs in asked.items()}

    def _hits(
        self, retrievers: Mapping[str, Any], name: str, inputs: Mapping[str, Any], **options: int
    ) -> tuple[list[Document], str | None]:
        """Return the hits of a system, and why there are none, if it says so."""
        if name == "dense" and not self._has_vectors:
            return [], "The index has no dense vectors."
        if name in ("hybrid", "key_tokens") and not inputs["key_tokens"]:
            return [], "The question has no key tokens: it has no words but stop words, or all are muted."
        found = retrievers[name].run(**inputs, **options)
        return found["documents"], found["meta"].get("empty")

    def _ranking(self, name: str, inputs: Mapping[str, Any], hits: dict[str, Document]) -> dict[str, Any]:
        """Return the ranking of a system, and collect its hits."""
        started = time.perf_counter()
        found, empty = self._hits(self._retrievers, name, inputs)
        milliseconds = 1000 * (time.perf_counter() - started)
        for hit in found:
            hits.setdefault(hit.id, hit)
        ranking = [{"id": hit.id, "score": hit.score} for hit in found]
        return {"name": SYSTEMS[name], "hits": ranking, "empty": empty, "ms": round(milliseconds, 1)}

    def _stored_documents(self, hits: Mapping[str, Document]) -> dict[str, Document]:
        """Return the documents of hits as they are stored, with their embeddings and key tokens."""
        if not hits:
            return {}
        stored = self.source.documents({"field": "id", "operator": "in", "value": list(hits)})
        by_id = {document.id: document for document in stored}  # others may have been deleted since
        return {key: _with_tokens_of(hit, by_id.get(key, hit)) for key, hit in hits.items()}

    def why(
        self,
        question: str,
        edits: Mapping[str, float] | None = None,
        filters: dict[str, Any] | None = None,
        *,
        document_id: str | None = None,
        text: str | None = None,
    ) -> dict[str, Any]:
        """
        Say where a document is in the rankings, and why.

        :param question: Question.
        :param edits: As for `search`.
        :param filters: As for `search`.
        :param document_id: Id of a document.
        :param text: Or any text, which is embedded.
        :returns: A `reason` in a sentence, the `ranks` by each system, None if it is not among its best 1,000, and the
            explanation. A text is not in the index: it has ranks by key tokens and dense vectors alone, those that its
            scores would have.
        :raises ValueError: Neither or both of id and text are given, there is no such document, or the question cannot
            be read.
        """
        if (document_id is None) == (text is None):
            msg = "Name one document: by its id, or by a text."
            raise ValueError(msg)
        query = self._query(question, edits or {})
        document = self._stored(document_id, query) if document_id is not None else self._of_text(str(text))
        described = self._explained(query, document, {})
        rankings = {
            name: self._deep_ranking(name, inputs)
            for name, inputs in self._asked(query, filters).items()
            if name != "dense" or self._has_vectors
        }
        if document_id is not None:
            ranks = {name: _position(ranking, document_id) for name, ranking in rankings.items()}
        else:
            ranks = {"key_tokens": _place(rankings["key_tokens"], described["score"]) if described["shared"] else None}
            if self._has_vectors:
                ranks["dense"] = _place(rankings["dense"], cosine(query.embedding, document.embedding or []))
        rank = ranks["key_tokens"]
        if not document.meta.get(_FIELD):
            is_stored = document_id is not None and self.source.kind != "in_memory"
            reason = f"It has no key tokens{' yet: keytok backfill adds them' if is_stored else ''}."
        elif not described["shared"]:
            reason = "It shares no token with the question."
        elif document_id is not None and filters and not self._passes(document_id, filters):
            reason = "The filters leave it out."
        elif rank is None:
            reason = f"It is not among the best {_DEPTH:,} by key tokens: its score is {described['score']:.2f}."
        elif rank <= self._top_k:
            reason = f"It is number {rank} by key tokens."
        else:
            last = rankings["key_tokens"][self._top_k - 1].score
            reason = (
                f"It is number {rank} by key tokens: its score is {described['score']:.2f}, and that of number "
                f"{self._top_k} is {last:.2f}."
            )
        return {"reason": reason, "ranks": {SYSTEMS[name]: ranks[name] for name in ranks}, "document": described}

    def _deep_ranking(self, name: str, inputs: Mapping[str, Any]) -> list[Document]:
        """Return a ranking that begins as the one that is shown, although more candidates are scored for it."""
        shown, _ = self._hits(self._retrievers, name, inputs)
        deep, _ = self._hits(self._deep_retrievers, name, inputs, top_k=_DEPTH)
        ids = {hit.id for hit in shown}
        return [*shown, *(hit for hit in deep if hit.id not in ids)]

    def _stored(self, document_id: str, query: _Query) -> Document:
        this = {"field": "id", "operator": "==", "value": document_id}
        found = self.source.documents(this)
        if not found:
            msg = f"There is no document with the id '{document_id}'."
            raise ValueError(msg)
        if _FIELD in found[0].meta:
            return found[0]
        # Elasticsearch may leave key tokens out of documents, but not out of the hits of a SparseRetriever
        system = "dense" if self._has_vectors else "key_tokens"
        hits = self._retrievers[system].run(**self._asked(query, this)[system])["documents"]
        return _with_tokens_of(hits[0], found[0]) if hits else found[0]

    def _of_text(self, text: str) -> Document:
        embeddings = self._embedder.embed([text]).embeddings
        (tokens,) = self.model.document_tokens(self.model.encode_documents(embeddings, [text]))
        return Document(id="Your text", content=text, embedding=embeddings[0].tolist(), meta={_FIELD: tokens})

    def _passes(self, document_id: str, filters: dict[str, Any]) -> bool:
        this = {"field": "id", "operator": "==", "value": document_id}
        both = {"operator": "AND", "conditions": [this, filters]}
        return bool(self.source.documents(both))

    def _query(self, question: str, edits: Mapping[str, float]) -> _Query:
        embeddings = self._embedder.embed([question], "query").embeddings
        encoded = self.model.encode_queries(embeddings, [question])
        (tokens,) = self.model.query_tokens(encoded)
        for token, factor in edits.items():
            key = escape_feature(token)
            tokens[key] = tokens.get(key, _ADDED) * float(factor)
        positive = {key: weight for key, weight in tokens.items() if weight > 0}
        (confidence,) = as_floats(encoded.confidences, 1)
        literals = self.model.literal_tokens(question)
        left_out = [key for key in literals if key not in positive]
        muted = [key for key in left_out if unescape_feature(key) in edits]
        unused = [unescape_feature(key) for key in left_out if key not in muted]
        words = without_tokens(self.model, question, muted)
        return _Query(words, embeddings[0].tolist(), positive, literals, unused, confidence)

    def _described(self, query: _Query) -> list[dict[str, Any]]:
        """Return the tokens of a query, the strongest first."""
        return [
            {"token": unescape_feature(key), "weight": weight, "literal": key in query.literals}
            for key, weight in sorted(query.tokens.items(), key=lambda item: -item[1])
        ]

    def _explained(self, query: _Query, document: Document, parts: Mapping[str, Any]) -> dict[str, Any]:
        """Return the explanation of a document, which has these parts of the hybrid's score."""
        explanation = Explanation.of(query.tokens, document.meta.get(_FIELD) or {}, query.literals)
        said = {unescape_feature(key) for key in self.model.literal_tokens(document.content or "")}
        shared = [each.token for each in explanation.shared]
        share = None
        if document.embedding is not None:
            embeddings = np.array([query.embedding, document.embedding], dtype=np.float32)
            share = dense_share(self.model, embeddings, shared)
        return {
            "id": document.id,
            "sentence": explanation.sentence,
            "score": explanation.score,
            "shared": [
                {**vars(each), "contribution": each.contribution, "in_text": each.token in said}
                for each in explanation.shared
            ],
            "implied": [each.token for each in explanation.shared if each.is_literal and each.token not in said],
            "missing": explanation.missing,
            "unasked": explanation.unasked,
            "dense_share": share,
            "parts": {PARTS[key]: part for key, part in parts.items()},
            "text": self._marked(document.content or "", shared),
        }

    def _marked(self, text: str, tokens: Collection[str]) -> list[tuple[str, str | None]]:
        """Cut a text into pieces, each with the token that it says, if it is one of those given."""
        pieces: list[tuple[str, str | None]] = []
        end = 0
        for start, stop, key in spans_of(text, {escape_feature(token) for token in tokens}, self._literal_tokens):
            pieces += [(text[end:start], None), (text[start:stop], unescape_feature(key))]
            end = stop
        pieces.append((text[end:], None))
        return [(piece, token) for piece, token in pieces if piece]


def _position(ranking: Sequence[Document], document_id: str) -> int | None:
    """Return the rank of a document, if it is in a ranking."""
    return next((rank for rank, hit in enumerate(ranking, start=1) if hit.id == document_id), None)


def _place(ranking: Sequence[Document], score: float) -> int | None:
    """Return the rank that a score would have in a ranking, unless that is below all of a full one."""
    rank = 1 + sum((hit.score or 0.0) > score + 1e-9 for hit in ranking)
    return rank if rank <= _DEPTH else None


def _with_tokens_of(hit: Document, document: Document) -> Document:
    """Return a document with the key tokens of the hit that it is, if it comes without."""
    return replace(document, meta={_FIELD: hit.meta.get(_FIELD), **document.meta})
