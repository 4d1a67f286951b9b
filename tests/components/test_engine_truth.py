# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A real collection in every store: the same documents, scores and explanations, by what the engines say themselves."""

import re
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
from haystack import Document
from helpers.rankings import stored
from helpers.retrieval import assert_matched, own_meta
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nodes.stores import ENGINE_STORES, STORES
from scipy.sparse import csr_array

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever
from keytok_haystack.engines import search_request
from keytok_haystack.evaluation.measures import measure_run
from keytok_haystack.sparse_vectors.rank_features import escape_feature, unescape_feature

TOP_K = 100


def matrix(rows: list[dict[str, float]], columns: dict[str, int]) -> csr_array:
    cells = [(i, columns[key], weight) for i, row in enumerate(rows) for key, weight in row.items() if key in columns]
    index, column, data = (np.array(part) for part in zip(*cells, strict=True))
    return csr_array((data, (index, column)), shape=(len(rows), len(columns)))


@pytest.fixture(scope="module")
def documents(cranfield, cranfield_documents, cranfield_model_folder) -> list[Document]:
    embedder = KeyTokenSparseEmbedder(cranfield_model_folder, progress_bar=False)
    plain = [
        Document(id=key, content=text, embedding=embedding.tolist())
        for (key, text), embedding in zip(cranfield.documents.items(), cranfield_documents.embeddings, strict=True)
    ]
    return [replace(document, embedding=None) for document in embedder.run(documents=plain)["documents"]]


@pytest.fixture(scope="module")
def queries(cranfield, cranfield_queries, cranfield_model_folder) -> list[dict[str, float]]:
    embedder = KeyTokenSparseEmbedder(cranfield_model_folder)
    return [
        embedder.run(embedding=embedding.tolist(), text=text)["key_tokens"]
        for text, embedding in zip(cranfield.queries.values(), cranfield_queries.embeddings, strict=True)
    ]


@pytest.fixture(scope="module")
def truth(documents, queries) -> np.ndarray:
    """The score of every document for every query: a product of matrices in double precision."""
    tokens = [document.meta["key_tokens"] for document in documents]
    columns = {key: i for i, key in enumerate(sorted({key for row in tokens for key in row}))}
    weights = matrix(tokens, columns)
    weights.data = stored(weights.data)
    return (matrix(queries, columns) @ weights.T).toarray()


@pytest.fixture(scope="module")
def cranfield_store(make_store, documents, cranfield_model):
    """`cranfield_store(kind)`: the collection in that store, written when it is first asked for."""
    stores = {}

    def store(kind: str):
        if kind not in stores:
            stores[kind] = make_store(kind, model=cranfield_model)
            stores[kind].write_documents(deepcopy(documents))
        return stores[kind]

    return store


@pytest.fixture(scope="module")
def top_100(cranfield_store, documents, queries):
    """`top_100(kind)`: what that store finds for every query; the hits and their explanations are checked."""
    by_id = {document.id: document for document in documents}
    found = {}

    def of(kind: str) -> list[list[tuple[str, float]]]:
        if kind not in found:
            retriever = SparseRetriever(cranfield_store(kind), top_k=TOP_K, first_phase=1.0)
            answers = retriever.run_batch(queries)["documents"]
            for query, hits in zip(queries, answers, strict=True):
                for hit in hits:
                    tokens = by_id[hit.id].meta["key_tokens"]
                    assert (hit.content, own_meta(hit)) == (by_id[hit.id].content, {})
                    assert_matched(hit, query, tokens)
            found[kind] = [[(hit.id, hit.score) for hit in hits] for hits in answers]
        return found[kind]

    return of


@pytest.mark.parametrize("kind", STORES)
def test_the_top_100_are_those_of_a_matrix_product(kind, top_100, documents, truth):
    position = {document.id: i for i, document in enumerate(documents)}
    found = top_100(kind)
    assert len(found) == len(truth)
    for hits, scores in zip(found, truth, strict=True):
        rows = [position[key] for key, _ in hits]
        best = np.sort(scores[scores > 0])[::-1][:TOP_K]
        assert len(set(rows)) == len(rows) == len(best)
        np.testing.assert_allclose([score for _, score in hits], scores[rows], rtol=1e-6)
        # the order: the n-th hit has the n-th best score, so only documents that tie can change places
        np.testing.assert_allclose(scores[rows], best, rtol=1e-6)
        assert set(np.flatnonzero(scores > best[-1] * (1 + 1e-6)).tolist()) <= set(rows)


@pytest.mark.slow
def test_where_nothing_ties_all_stores_return_the_same_order(top_100, truth):
    orders = [[[key for key, _ in hits] for hits in top_100(kind)] for kind in STORES]
    compared = 0
    for scores, (first, *others) in zip(truth, zip(*orders, strict=True), strict=True):
        best = np.sort(scores)[::-1][: TOP_K + 1]
        if (best[:-1] > best[1:] * (1 + 1e-6)).all():
            assert all(other == first for other in others)
            compared += 1
    assert compared > len(truth) / 2


@pytest.mark.parametrize("kind", ENGINE_STORES)
@pytest.mark.parametrize("top_k", [1, 10, 20])
def test_a_search_for_few_documents_finds_the_best_of_a_search_for_many(
    kind, top_k, cranfield_store, top_100, documents, queries, truth
):
    position = {document.id: i for i, document in enumerate(documents)}
    found = SparseRetriever(cranfield_store(kind), top_k=top_k, first_phase=1.0).run_batch(queries)["documents"]
    for hits, many, scores in zip(found, top_100(kind), truth, strict=True):
        assert len(hits) == min(top_k, len(many))
        np.testing.assert_allclose([hit.score for hit in hits], scores[[position[hit.id] for hit in hits]], rtol=1e-6)
        np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in many[:top_k]], rtol=1e-6)


# Elasticsearch 7 does not tell the scores of tokens, so it finds by all of them
@pytest.mark.parametrize("kind", [kind for kind in STORES if kind != "elasticsearch-7"])
def test_the_strongest_tokens_find_and_all_tokens_rank(kind, cranfield_store, documents, queries, truth):
    """Two products of matrices: the best 50 by a part of the query's tokens, and the best ten of these by all."""
    columns = {key: i for i, key in enumerate(sorted({key for d in documents for key in d.meta["key_tokens"]}))}
    weights = matrix([document.meta["key_tokens"] for document in documents], columns)
    weights.data = stored(weights.data)
    retriever = SparseRetriever(cranfield_store(kind))
    shorter = 0
    for query, scores in [*zip(queries, truth, strict=True)][::5]:
        ordered = sorted(query.items(), key=lambda item: -item[1])
        half = 0.6 * sum(query.values())
        count = next(i for i in range(1, len(ordered) + 1) if sum(w for _, w in ordered[:i]) >= half * (1 - 1e-9))
        strongest = dict(ordered[: max(count, 8)])
        shorter += len(strongest) < len(query)
        first = (matrix([strongest], columns) @ weights.T).toarray()[0]
        window = np.argsort(-first)[:50]
        hits = retriever.run(key_tokens=query)["documents"]
        expected = np.sort(scores[window])[::-1][:10]
        if first[window[-1]] > first[np.argsort(-first)[50]] * (1 + 1e-5):  # or documents tie for the last place
            np.testing.assert_allclose([hit.score for hit in hits], expected, rtol=1e-6)
        for hit in hits:
            assert sum(match["contribution"] for match in hit.meta["matched_tokens"]) == pytest.approx(
                hit.score, rel=1e-6
            )
    assert shorter > 30


@pytest.mark.parametrize("kind", ENGINE_STORES)
def test_a_filter_that_leaves_few_documents_leaves_none_out_that_shares_only_weak_tokens(
    kind, cranfield_store, documents, queries, truth
):
    store, ids = cranfield_store(kind), [document.id for document in documents]
    retriever = SparseRetriever(store, top_k=10)
    for query, scores in zip(queries[:3], truth[:3], strict=True):
        strong = {key for key, weight in query.items() if weight >= 0.4}
        only_weak = [i for i, d in enumerate(documents) if scores[i] > 0 and not strong & d.meta["key_tokens"].keys()][
            :5
        ]
        assert only_weak
        filters = {"field": "id", "operator": "in", "value": [ids[i] for i in only_weak]}
        hits = retriever.run(key_tokens=query, filters=filters)["documents"]
        assert {hit.id for hit in hits} == {ids[i] for i in only_weak}
        assert retriever.run_batch([query], filters=filters)["documents"] == [hits]


def clause_scores(store, kind: str, query: dict[str, float], top_k: int) -> dict[str, dict[str, float]]:
    """What the engine itself says that each token of a query adds to each hit."""
    if kind.startswith("opensearch"):
        body = search_request(query, "key_tokens", "rank_features", top_k)
        for clause in body["query"]["bool"]["should"]:
            clause["rank_feature"]["_name"] = clause["rank_feature"]["field"].removeprefix("key_tokens.")
        response = store._client.search(index=store._index, body=body, params={"include_named_queries_score": "true"})
        return {hit["_id"]: hit["matched_queries"] for hit in response["hits"]["hits"]}
    field_type = "rank_features" if kind == "elasticsearch-7" else "sparse_vector"
    body = search_request(query, "key_tokens", field_type, top_k) | {"explain": True}
    response = store.client.search(index=store._index, body=body)
    return {hit["_id"]: dict(leaves(hit["_explanation"])) for hit in response["hits"]["hits"]}


def leaves(explanation: dict) -> list[tuple[str, float]]:
    """The token and the score of every clause in an engine's explanation of a hit."""
    match = re.match(r"Linear function on the key_tokens field for the (.*) feature", explanation["description"])
    if match:
        return [(match[1], explanation["value"])]
    return [leaf for part in explanation["details"] for leaf in leaves(part)]


@pytest.mark.parametrize("kind", ENGINE_STORES)
def test_explained_contributions_are_the_engines_own_scores_of_the_clauses(kind, cranfield_store, queries):
    store = cranfield_store(kind)
    retriever, explainer = SparseRetriever(store, top_k=10), KeyTokenExplainer(top_k=None)
    for query in queries[::20]:
        hits = retriever.run(key_tokens=query)["documents"]
        explained = explainer.run(documents=hits, key_tokens=query)["documents"]
        own = clause_scores(store, kind, query, 10)
        assert [hit.id for hit in explained] == list(own)
        for hit in explained:
            contributions = {match["token"]: match["contribution"] for match in hit.meta["matched_tokens"]}
            clauses = {unescape_feature(key): score for key, score in own[hit.id].items()}
            assert contributions == pytest.approx(clauses, rel=1e-6)
            assert sum(contributions.values()) == pytest.approx(hit.score, rel=1e-6)
            assert contributions


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_key_tokens_with_a_tenth_of_bm25_beat_dense_vectors(
    kind, cranfield, cranfield_store, cranfield_documents, cranfield_queries, cranfield_model_folder, queries
):
    retriever = SparseRetriever(cranfield_store(kind), model=cranfield_model_folder, bm25_weight=0.1, top_k=10)
    found = retriever.run_batch(queries, list(cranfield.queries.values()))["documents"]
    run = {key: [(d.id, d.score) for d in hits] for key, hits in zip(cranfield.queries, found, strict=True)}

    rows, columns = (
        part / np.linalg.norm(part, axis=1, keepdims=True)
        for part in (cranfield_queries.embeddings, cranfield_documents.embeddings)
    )
    similarities, ids = rows @ columns.T, list(cranfield.documents)
    dense = {
        key: [(ids[i], float(scores[i])) for i in np.argsort(-scores)[:10]]
        for key, scores in zip(cranfield.queries, similarities, strict=True)
    }
    assert measure_run(cranfield, run)["nDCG@10"] > measure_run(cranfield, dense)["nDCG@10"] > 0.3


# any token goes into an index and comes back

NASTY = [
    "",
    " ",
    "  ",
    ".",
    "..",
    "%",
    "%%",
    "%2E",
    "%25",
    "%252E",
    "%2e",
    "a.b",
    "a%2Eb",
    "a%252Eb",
    "a b",
    "a",
    "A",
    "a ",
    " a",
    "\u00e9",  # composed
    "e\u0301",  # decomposed
    "\u212b",  # Angstrom sign
    "\u00c5",
    "\ufb01",
    "fi",
    "\u0130",
    "i\u0307",
    "ß",
    "ss",
    "*",
    "?",
    "a*",
    "_name",
    "key_tokens",
    "key_tokens.a",
    '"',
    "'",
    "\\",
    "\\u0061",
    "\n",
    "\r\n",
    "\t",
    "\x00",
    "\x1f",
    "\x7f",
    "\u200b",
    "\ufeff",
    "\u2028",
    "\uffff",
    "😀",
    "👩\u200d👩\u200d👧",
    "\U0010ffff",
    "{}",
    "[1]",
    "null",
    "true",
    "1",
    "1.0",
    "1e3",
    "-",
    "$",
    "${a}",
    "{{a}}",
    "a:b",
    "a/b",
    "<b>",
    "漢字",
    "x" * 5000,
    "x" * 4999 + "y",
    "." * 2000,
    "😀" * 2000,
]
UNICODE = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SPECIAL = st.text("ab.%25Ee*\"'\\\n\x00 ", max_size=6)
LONG = st.builds(lambda text, n: text * n, st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.just(50))
WEIGHTS = st.floats(1e-15, 1e15) | st.floats(0.001, 4)
VECTORS = st.dictionaries(
    (UNICODE | SPECIAL | LONG).filter(lambda token: len(escape_feature(token).encode()) <= 32_000),
    WEIGHTS,
    min_size=1,
    max_size=25,
)


@pytest.fixture(scope="module", params=["opensearch-knn", "elasticsearch-7", "elasticsearch-9"])
def empty_store(request, make_store):
    return make_store(request.param)


@given(vector=VECTORS)
@example(vector={token: 1.0 + i / 100 for i, token in enumerate(NASTY)})
@settings(max_examples=8)
def test_any_token_is_found_again_with_its_document_and_its_weight(empty_store, vector):
    empty_store.delete_documents([document.id for document in empty_store.filter_documents()])
    written = [
        Document(id=str(i), content="x", meta={"key_tokens": {escape_feature(token): weight}})
        for i, (token, weight) in enumerate(vector.items())
    ]
    everything = {escape_feature(token): weight for token, weight in vector.items()}
    written.append(Document(id="all", content="x", meta={"key_tokens": everything}))
    empty_store.write_documents(deepcopy(written))
    retriever = SparseRetriever(empty_store, top_k=len(written), return_key_tokens=True)
    found = retriever.run_batch([document.meta["key_tokens"] for document in written[:-1]])["documents"]
    weights = stored(list(vector.values()))
    for i, (hits, (token, weight)) in enumerate(zip(found, vector.items(), strict=True)):
        assert {hit.id for hit in hits} == {str(i), "all"}, token
        for hit in hits:
            assert hit.score == pytest.approx(weights[i] * weight, rel=1e-6)
            assert own_meta(hit) == (written[-1] if hit.id == "all" else written[i]).meta
            assert [match["token"] for match in hit.meta["matched_tokens"]] == [token]
