# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Search requests, as pure data."""

from collections.abc import Mapping
from typing import Any

from keytok_haystack.engines.mapping import FieldType

# chosen by benchmarks/engines.py, where docs/engines.md has the curve
_PRUNE_RATIO = 0.4  # of the weight of a query's strongest token: what documents are looked for by
_RESCORE_WINDOW = 100  # how many of them are rescored
_TWO_PHASE_HITS = 20  # of more hits, too many would be others than those of the exact search


def search_request(
    tokens: Mapping[str, float],
    field: str,
    field_type: FieldType,
    top_k: int,
    *,
    text: str = "",
    bm25_weight: float = 0.0,
    filters: Mapping[str, Any] | None = None,
    exact: bool = False,
) -> dict[str, Any]:
    """
    Return the body of a search request whose scores are dot products of key tokens, plus a share of BM25.

    Where few hits are asked for, the engine looks for documents by the query's strong tokens and BM25, and adds what
    the other tokens contribute for the best of them (`rescore`). Their scores are whole; a document that is good by
    many weak tokens alone may be missed.

    :param tokens: The query's `{key: weight}`.
    :param field: The field of the key tokens.
    :param field_type: The type of that field.
    :param top_k: How many documents to return at most.
    :param text: The query's text, which is matched with `content` if `bm25_weight` is positive.
    :param bm25_weight: What BM25 scores are multiplied by before they are added.
    :param filters: A query that documents must match, in the engine's language.
    :param exact: Whether to look for documents by all tokens.
    :raises ValueError: A key has a dot, which an engine would take for a path and never find.
    """
    if field_type == "rank_features" and (dotted := next((key for key in tokens if "." in key), None)) is not None:
        msg = f"The query's key '{dotted}' has a dot, and no engine finds such a key: escape it with `escape_feature`."
        raise ValueError(msg)
    strong = 0.0 if exact or top_k > _TWO_PHASE_HITS else _PRUNE_RATIO * max(tokens.values(), default=0.0)
    clauses, weak = (
        _clauses({key: weight for key, weight in tokens.items() if (weight >= strong) is is_strong}, field, field_type)
        for is_strong in (True, False)
    )
    if bm25_weight and text:
        clauses.append({"match": {"content": {"query": text, "boost": bm25_weight}}})
    # with a filter beside it, `should` would be optional
    bool_query: dict[str, Any] = {"should": clauses, "minimum_should_match": 1}
    if filters:
        bool_query["filter"] = filters
    request = {"query": {"bool": bool_query}, "size": top_k, "track_total_hits": False}
    if weak:
        request["rescore"] = {"window_size": _RESCORE_WINDOW, "query": {"rescore_query": {"bool": {"should": weak}}}}
    return request


def _clauses(tokens: Mapping[str, float], field: str, field_type: FieldType) -> list[dict[str, Any]]:
    """Return queries whose scores add up to the dot product of tokens."""
    if field_type == "rank_features":
        # the default function is `saturation`, which is no dot product
        return [
            {"rank_feature": {"field": f"{field}.{key}", "linear": {}, "boost": weight}}
            for key, weight in tokens.items()
        ]
    # `prune` is true by default and leaves out frequent and weak tokens, and with them most hits
    vector = {"field": field, "query_vector": dict(tokens), "prune": False}
    return [{"sparse_vector": vector}] if tokens else []
