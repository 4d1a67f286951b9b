# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Search requests, as pure data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keytok_haystack.engines.mapping import Engine, FieldType
from keytok_haystack.weighting import rescore_window, strongest_tokens

BM25_CLAUSE = "bm25"
"""Name of the clause whose score is the share of BM25, among the named queries of a hit."""
_LARGEST_WINDOW = 10_000  # `index.max_rescore_window`, as engines have it by default
_AHEAD = 1e6  # of every score of key tokens and BM25


@dataclass(frozen=True)
class DenseShare:
    """
    Share of the cosine of dense vectors in the scores of the best documents.

    BM25 is added to the scores of these alone, too, since searching by it takes more time than all else, and finds no
    better ones.

    Each engine spells a cosine by a score that is not negative. Here it is always `1 + cos`, so that the scores of all
    documents of the window are larger by `weight` than the sum that they stand for; a document without a vector has a
    cosine of 0.

    :param embedding: Dense vector of the query, shape `(d,)`.
    :param weight: Factor of the cosines, positive.
    :param nearest: Number of documents, the nearest by the vector index, that are found beside those. What they score
        does not depend on it.
    :param field: Field of the dense vectors.
    """

    embedding: Sequence[float]
    weight: float
    nearest: int = 0
    field: str = "embedding"


def search_request(
    tokens: Mapping[str, float],
    field: str,
    field_type: FieldType,
    top_k: int,
    *,
    first_phase: float = 1.0,
    window: int = 0,
    text: str = "",
    bm25_weight: float = 0.0,
    content_field: str = "content",
    dense: DenseShare | None = None,
    engine: Engine = "opensearch",
    filters: Mapping[str, Any] | None = None,
    named: bool = False,
) -> dict[str, Any]:
    """
    Return the body of a search request whose scores are dot products of key tokens, plus shares of BM25 and cosines.

    Documents are found by the strongest tokens, and the best of them are scored again by all parts (`rescore`).

    :param tokens: Key tokens of the query, `{key: weight}`.
    :param field: Field of the key tokens.
    :param field_type: Type of that field.
    :param top_k: Maximum number of documents to return.
    :param first_phase: Share of the query's weight whose tokens find documents (`strongest_tokens`).
    :param window: Number of documents, the best of each shard by these tokens, that are scored again; at least twice
        `top_k`.
    :param text: Text of the query, which is matched with the content if `bm25_weight` is positive.
    :param bm25_weight: Factor of the BM25 scores that are added.
    :param content_field: Field of the documents' text.
    :param dense: Share of dense vectors; None for none.
    :param engine: Engine that is asked, for the spelling of what is dense.
    :param filters: Query that documents must match, in the engine's language.
    :param named: Whether each token has a query of its own that is named by the token's position, so that the engine
        can tell its score for each hit (`include_named_queries_score`).
    :raises ValueError: A key has a dot: an engine would take it for a path and never find it.
    """
    strongest = strongest_tokens(tokens, first_phase)
    names = {key: str(position) for position, key in enumerate(tokens)} if named else {}
    found = _clauses(strongest, field, field_type, names)
    added = _clauses({key: tokens[key] for key in tokens if key not in strongest}, field, field_type, names)
    if bm25_weight and text:
        match: dict[str, Any] = {"query": text, "boost": bm25_weight}
        # only beside cosines its score is not what the key tokens leave of the sum
        lexical = {"match": {content_field: {**match, "_name": BM25_CLAUSE} if dense else match}}
        # without key tokens, documents are found by BM25
        (added if dense is not None and found else found).append(lexical)
    nearest = [_nearest(dense, engine, filters)] if dense is not None and dense.nearest else []
    # with a filter beside it, `should` would be optional
    bool_query: dict[str, Any] = {"should": [*found, *nearest], "minimum_should_match": 1}
    if filters:
        bool_query["filter"] = filters
    request = {"query": {"bool": bool_query}, "size": top_k, "track_total_hits": False}
    if dense is not None:
        added += _cosine_clauses(dense, engine)
    if added:
        size = rescore_window(window, top_k) + (dense.nearest if dense is not None else 0)
        request["rescore"] = {
            "window_size": min(size, max(top_k, _LARGEST_WINDOW)),
            "query": _rescoring(found, added, anew=bool(nearest)),
        }
    return request


def required_tokens(keys: Sequence[str], field: str, field_type: FieldType) -> list[dict[str, Any]]:
    """
    Return queries, all of which match exactly the documents that have each of these tokens.

    :param keys: Keys of the tokens.
    :param field: Field of the key tokens.
    :param field_type: Type of that field.
    :raises ValueError: A key has a dot.
    """
    return [clause for key in keys for clause in _clauses({key: 1.0}, field, field_type, {})]


def _clauses(
    tokens: Mapping[str, float], field: str, field_type: FieldType, names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return queries whose scores add up to the dot product of tokens, one for each token if they have names."""
    if field_type == "rank_features":
        if (dotted := next((key for key in tokens if "." in key), None)) is not None:
            msg = (
                f"The query's key '{dotted}' has a dot, by which no engine would find it: escape it with "
                "`escape_feature`."
            )
            raise ValueError(msg)
        # the default function is `saturation`, which does not give a dot product
        return [
            {"rank_feature": {"field": f"{field}.{key}", "linear": {}, "boost": weight, **_name(key, names)}}
            for key, weight in tokens.items()
        ]
    vectors = [{key: weight} for key, weight in tokens.items()] if names else [dict(tokens)] if tokens else []
    # `prune` is true by default and leaves out frequent and weak tokens, and with them most hits
    return [
        {"sparse_vector": {"field": field, "query_vector": vector, "prune": False, **_name(next(iter(vector)), names)}}
        for vector in vectors
    ]


def _name(key: str, names: Mapping[str, str]) -> dict[str, str]:
    return {"_name": names[key]} if names else {}


def _rescoring(found: list[dict[str, Any]], added: list[dict[str, Any]], *, anew: bool) -> dict[str, Any]:
    """
    Return what scores the best documents again.

    :param found: Queries by which documents are found.
    :param added: Queries whose scores are added.
    :param anew: Whether all parts are taken anew: documents that the vector index has found have a part in their first
        score that others lack.
    """
    if anew:
        return {"rescore_query": {"bool": {"should": [*found, *added]}}, "score_mode": "total", "query_weight": 0}
    return {"rescore_query": {"bool": {"should": added}}, "score_mode": "total"}


def _cosine_clauses(dense: DenseShare, engine: Engine) -> list[dict[str, Any]]:
    """Return two queries, of which each document matches one, with the score `weight * (1 + cos)`."""
    has_vector = {"exists": {"field": dense.field}}
    vector = list(dense.embedding)
    if engine == "opensearch":
        # (1 + cos) / 2, as since version 2.19; with or without a graph in the index
        params = {"field": dense.field, "query_value": vector, "space_type": "cosinesimil"}
        script: dict[str, Any] = {"lang": "knn", "source": "knn_score", "params": params}
        boost = 2 * dense.weight
    else:
        script = {
            "source": f"cosineSimilarity(params.query_vector, '{dense.field}') + 1.0",
            "params": {"query_vector": vector},
        }
        boost = dense.weight
    return [
        {"script_score": {"query": has_vector, "script": script, "boost": boost}},
        {"constant_score": {"filter": {"bool": {"must_not": has_vector}}, "boost": dense.weight}},
    ]


def _nearest(dense: DenseShare, engine: Engine, filters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a query for the nearest documents by the vector index, ahead of all others."""
    vector, filtered = list(dense.embedding), {"filter": filters} if filters else {}
    if engine == "opensearch":
        return {"knn": {dense.field: {"vector": vector, "k": dense.nearest, "boost": _AHEAD, **filtered}}}
    candidates = {"k": dense.nearest, "num_candidates": max(100, 2 * dense.nearest)}
    return {"knn": {"field": dense.field, "query_vector": vector, "boost": _AHEAD, **candidates, **filtered}}
