# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Search requests, as pure data."""

from collections.abc import Mapping
from typing import Any

from keytok_haystack.engines.mapping import FieldType


def search_request(
    tokens: Mapping[str, float],
    field: str,
    field_type: FieldType,
    top_k: int,
    *,
    text: str = "",
    bm25_weight: float = 0.0,
    filters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    Return the body of a search request whose scores are dot products of key tokens, plus a share of BM25.

    :param tokens: Key tokens of the query, `{key: weight}`.
    :param field: Field of the key tokens.
    :param field_type: Type of that field.
    :param top_k: Maximum number of documents to return.
    :param text: Text of the query, which is matched with `content` if `bm25_weight` is positive.
    :param bm25_weight: Factor of the BM25 scores that are added.
    :param filters: Query that documents must match, in the engine's language.
    :raises ValueError: A key has a dot: an engine would take it for a path and never find it.
    """
    if field_type == "rank_features" and (dotted := next((key for key in tokens if "." in key), None)) is not None:
        msg = (
            f"The query's key '{dotted}' has a dot, by which no engine would find it: escape it with `escape_feature`."
        )
        raise ValueError(msg)
    clauses = _clauses(tokens, field, field_type)
    if bm25_weight and text:
        clauses.append({"match": {"content": {"query": text, "boost": bm25_weight}}})
    # with a filter beside it, `should` would be optional
    bool_query: dict[str, Any] = {"should": clauses, "minimum_should_match": 1}
    if filters:
        bool_query["filter"] = filters
    return {"query": {"bool": bool_query}, "size": top_k, "track_total_hits": False}


def _clauses(tokens: Mapping[str, float], field: str, field_type: FieldType) -> list[dict[str, Any]]:
    """Return queries whose scores add up to the dot product of tokens."""
    if field_type == "rank_features":
        # the default function is `saturation`, which does not give a dot product
        return [
            {"rank_feature": {"field": f"{field}.{key}", "linear": {}, "boost": weight}}
            for key, weight in tokens.items()
        ]
    # `prune` is true by default and leaves out frequent and weak tokens, and with them most hits
    vector = {"field": field, "query_vector": dict(tokens), "prune": False}
    return [{"sparse_vector": vector}] if tokens else []
