# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Queries of more tokens than an engine allows clauses."""

import asyncio
import logging

import numpy as np
import pytest
from haystack import Document
from helpers.retrieval import assert_ranking, dot_product, dot_products, fresh, pairs, search

from haystack_integrations.components.retrievers.keytok import SparseRetriever

CLAUSE_LIMITED = ("opensearch", "opensearch-knn", "elasticsearch-7")
LIMIT = 1024


TOKENS = {f"t{i:04}": weight for i, weight in enumerate(np.random.default_rng(9).uniform(0.2, 1.0, 3000).tolist())}
STRONGEST = sorted(TOKENS, key=lambda token: -TOKENS[token])


@pytest.fixture(scope="module", params=CLAUSE_LIMITED)
def limited(request, make_store):
    """A store with two documents of 3,000 and 1,500 tokens, on an engine that allows 1,024 clauses."""
    store = make_store(request.param)
    random = np.random.default_rng(10)
    full = {token: float(random.uniform(0.1, 1)) for token in TOKENS}
    half = {token: float(random.uniform(0.1, 1)) for token in list(TOKENS)[::2]}
    store.write_documents(
        [
            Document(id="full", content="wing lift", meta={"key_tokens": full, "year": 1962}),
            Document(id="half", content="wing flow", meta={"key_tokens": half, "year": 1970}),
        ]
    )
    return store


def strongest(number: int) -> dict[str, float]:
    return {token: TOKENS[token] for token in STRONGEST[:number]}


@pytest.fixture
def by_strongest(limited):
    """`by_strongest(n)`: the scores with the `n` strongest tokens of the query."""
    documents = limited.filter_documents()
    return lambda number: dot_products(strongest(number), documents)


def warnings(caplog) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("haystack_integrations.components.retrievers.keytok")
    ]


def test_of_too_many_tokens_the_strongest_are_searched_for(limited, by_strongest, caplog):
    caplog.set_level(logging.INFO)
    retriever = SparseRetriever(limited)
    assert_ranking(search(retriever, TOKENS), by_strongest(LIMIT))
    (warning,) = warnings(caplog)
    assert all(part in warning for part in ("3000", "1024", "strongest"))
    caplog.clear()
    for query in (TOKENS, strongest(1024), strongest(10)):
        assert_ranking(search(retriever, query), by_strongest(min(len(query), LIMIT)))
    assert warnings(caplog) == []


def test_as_many_tokens_as_clauses_are_all_searched_for(limited, by_strongest, caplog):
    assert_ranking(search(SparseRetriever(limited), strongest(LIMIT)), by_strongest(LIMIT))
    assert warnings(caplog) == []
    assert_ranking(search(SparseRetriever(limited), strongest(LIMIT + 1)), by_strongest(LIMIT))
    (warning,) = warnings(caplog)
    assert "1025" in warning


def test_too_many_tokens_with_bm25_and_filters(limited, by_strongest, caplog):
    caplog.set_level(logging.INFO)
    retriever = SparseRetriever(limited, bm25_weight=0.1)
    share = dict(search(retriever, {}, query="wing flow"))
    filters = {
        "operator": "OR",
        "conditions": [{"field": "meta.year", "operator": "==", "value": year} for year in (1970, 1971, 1972)],
    }
    caplog.clear()
    ((key, score),) = search(retriever, TOKENS, query="wing flow", filters=filters)
    scores = {number: by_strongest(number)["half"] + share["half"] for number in range(LIMIT - 100, LIMIT + 1)}
    nearest = min(scores, key=lambda number: abs(scores[number] - score))
    assert key == "half"
    assert score == pytest.approx(scores[nearest], rel=1e-6)
    assert len(warnings(caplog)) == 1
    caplog.clear()
    assert search(retriever, TOKENS, query="wing flow", filters=filters) == [(key, score)]
    assert warnings(caplog) == []


def test_too_many_tokens_in_a_batch(limited, by_strongest, caplog):
    caplog.set_level(logging.INFO)
    retriever = SparseRetriever(limited)
    batch = [strongest(10), TOKENS, {}, strongest(2000), {"unknown": 1.0}]
    first, second, *none = [pairs(hits) for hits in retriever.run_batch(batch)["documents"]]
    assert_ranking(first, by_strongest(10))
    assert_ranking(second, by_strongest(LIMIT))
    assert none == [[], second, []]
    assert len(warnings(caplog)) == 1
    caplog.clear()
    retriever.run_batch(batch)
    assert warnings(caplog) == []


async def test_too_many_tokens_in_many_queries_at_once(limited, by_strongest, caplog):
    """What one refused query has learned must not be learned again by those that were under way."""
    retriever = SparseRetriever(fresh(limited))
    results = await asyncio.gather(*(retriever.run_async(key_tokens=TOKENS) for _ in range(6)))
    later = await retriever.run_async(key_tokens=TOKENS)
    await retriever.close_async()
    assert len(warnings(caplog)) == 1
    for result in [*results, later]:
        assert_ranking(pairs(result["documents"]), by_strongest(LIMIT))


def test_one_long_text_costs_later_queries_no_tokens(limited, by_strongest):
    retriever = SparseRetriever(limited, bm25_weight=0.1)
    query = strongest(64)
    retriever.run(key_tokens=query, query=" ".join(f"word{i}" for i in range(1000)))
    assert_ranking(search(retriever, query, query="unknown"), by_strongest(64))


def test_one_long_text_costs_the_others_of_a_batch_no_tokens(limited, by_strongest):
    retriever = SparseRetriever(limited, bm25_weight=0.1)
    query = strongest(64)
    texts = ["unknown", " ".join(f"word{i}" for i in range(1000))]
    assert_ranking(pairs(retriever.run_batch([query, query], texts)["documents"][0]), by_strongest(64))


@pytest.mark.parametrize("conditions", [1000, 3000])
def test_one_large_filter_costs_later_queries_no_tokens(conditions, limited, by_strongest):
    retriever = SparseRetriever(limited)
    query = strongest(64)
    large = {
        "operator": "OR",
        "conditions": [{"field": "meta.year", "operator": "==", "value": 1962 + i} for i in range(conditions)],
    }
    try:
        retriever.run(key_tokens=query, filters=large)
    except Exception:  # the filter alone may be too large for the engine
        with pytest.raises(Exception, match=r"."):
            limited.filter_documents(large)
    assert_ranking(search(retriever, query), by_strongest(64))


def test_a_long_query_changes_nothing_for_later_ones(limited, by_strongest):
    years = [{"field": "meta.year", "operator": "!=", "value": 1000 + i} for i in range(600)]
    filters = {"operator": "AND", "conditions": [{"operator": "OR", "conditions": years[i::2]} for i in range(2)]}
    retriever, query = SparseRetriever(limited), strongest(64)
    before = search(retriever, query, filters=filters)
    search(retriever, TOKENS)
    assert search(retriever, query, filters=filters) == before
    assert_ranking(before, by_strongest(64))


def test_closing_forgets_the_limit(limited, caplog):
    retriever = SparseRetriever(fresh(limited))
    search(retriever, TOKENS)
    retriever.close()
    search(retriever, TOKENS)
    assert len(warnings(caplog)) == 2
    retriever.close()


@pytest.mark.parametrize("kind", ["in-memory", "elasticsearch-8", "elasticsearch-9"])
def test_engines_that_allow_more_clauses_are_asked_for_all(kind, make_store, caplog):
    store = make_store(kind)
    store.write_documents([Document(id="a", content="x", meta={"key_tokens": TOKENS})])
    assert_ranking(search(SparseRetriever(store), TOKENS), {"a": dot_product(TOKENS, TOKENS)})
    assert warnings(caplog) == []
