# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""BM25 as engines have it by default, and how many tokens and postings each system has."""

import json
from collections.abc import Callable, Iterator, Sequence
from uuid import uuid4

import numpy as np
import pytest
from haystack import Document
from helpers.retrieval import lucene_bm25
from nodes.plugin import DECISIVE
from nodes.stores import RawIndex
from scipy.sparse import csr_array

from keytok_haystack import fit
from keytok_haystack.evaluation import Collection
from keytok_haystack.evaluation.measures import mean_ndcg
from keytok_haystack.evaluation.systems import (
    System,
    default_bm25,
    dense,
    key_tokens,
    key_tokens_with_bm25,
    min_max,
    reciprocal_rank_fusion,
    sparse_vectors,
    stemmed_bm25,
)
from keytok_haystack.inverted_index import standard_tokens

SPELLED = """
    can't stop x-15 3.5 1,000.5 foo_bar _ __a u.s.a. O'Neil's a:b c++ C# 'quoted' 5'9 12:30 3,a a.3 l·l #5 e.g., x² ½ Ⅳ
    naïve e\u0301a it\u2019s co\u00adop a\u200bb שב"א Überschall ÉTÉ ⓐ हिन्दी ١٢٣ สวัสดีชาวโลก ខ្មែរ 한국어
    日本語 々〇 ひらがな カタカナ ｶﾀｶﾅ aー ﬁ 🚀 👩\u200d👩\u200d👧 ™ 1\ufe0f\u20e3
"""


@pytest.fixture(params=DECISIVE)
def index(request: pytest.FixtureRequest, engine_url: Callable[[str], str]) -> Iterator[RawIndex]:
    """An index that does not exist yet, so that the engine maps it as it likes."""
    raw = RawIndex(request.param, engine_url(request.param), f"test-{uuid4().hex[:12]}")
    yield raw
    raw.ask("DELETE", "")


def test_tokens_and_scores_are_those_of_an_engine_by_default(index: RawIndex, cranfield: Collection):
    """Elasticsearch multiplies all scores by k1 + 1."""
    texts = [text for text in cranfield.documents.values() if text][:200]
    texts += ["Überschall-Überschall 3.5", "of the and", *filter(standard_tokens, SPELLED.split())]
    index.write({str(i): json.dumps({"content": text}) for i, text in enumerate(texts)})
    for text in (SPELLED, *SPELLED.split()):
        body = json.dumps({"analyzer": "standard", "text": text})
        tokens = json.loads(index.ask("POST", "_analyze", body))["tokens"]
        assert standard_tokens(text) == [token["token"] for token in tokens]
    factor = 2.2 if index.kind.startswith("elasticsearch") else 1
    queries = [
        *list(cranfield.queries.values())[:20],
        "3.5 überschall of the",
        "flow flow of x-15",
        "カタカナ",
        "zebra",
        "",
    ]
    system = default_bm25(texts, queries)
    for i, query in enumerate(queries):
        scores = factor * system.scores(i)
        asked = {"size": len(texts), "query": {"match": {"content": query}}, "_source": False}
        hits = json.loads(index.ask("POST", "_search", json.dumps(asked)))["hits"]["hits"]
        found = {str(j): float(scores[j]) for j in np.flatnonzero(scores)}
        assert found == pytest.approx({hit["_id"]: hit["_score"] for hit in hits}, rel=1e-5)


def test_default_bm25_is_lucenes_formula(small_texts: list[str]):
    documents = [Document(id=str(i), content=text) for i, text in enumerate(small_texts)]
    queries = ["wing lift", "SHOCK shock wave", "zebra"]
    system = default_bm25(small_texts, queries)
    for i, query in enumerate(queries):
        scores = system.scores(i)
        found = {str(j): float(scores[j]) for j in np.flatnonzero(scores)}
        assert found == pytest.approx(lucene_bm25(documents, query), rel=1e-5)


def test_default_bm25_of_cranfield_is_that_of_the_engines(cranfield: Collection):
    """Which reach .344; they round the lengths of documents."""
    queries = list(cranfield.queries.values())
    system = default_bm25(list(cranfield.documents.values()), queries)
    scores = np.array([system.scores(i) for i in range(len(queries))])
    assert mean_ndcg(cranfield, scores) == pytest.approx(0.344, abs=0.002)


def postings_read(documents: Sequence[set[str]], queries: Sequence[set[str]]) -> float:
    """Count them one by one, per document of the collection; mean over the queries."""
    read = [sum(token in document for token in query for document in documents) for query in queries]
    return sum(read) / len(queries) / len(documents)


def assert_sizes(system: System, documents: Sequence[set[str]], queries: Sequence[set[str]]) -> None:
    assert system.tokens_per_document == pytest.approx(np.mean([len(document) for document in documents]))
    assert system.postings_per_document == pytest.approx(postings_read(documents, queries))


TEXTS = ["Heat heat transfer", "waves of heat", "", "the shock wave", "a wave's heat"]
QUERIES = ["the heat of waves", "zebra", "", "shock shock"]


def test_sizes_of_bm25():
    stems = [{"heat", "transfer"}, {"wave", "heat"}, set(), {"shock", "wave"}, {"wave", "heat"}]
    assert_sizes(stemmed_bm25(TEXTS, QUERIES), stems, [{"heat", "wave"}, {"zebra"}, set(), {"shock"}])
    words = [set(text.lower().split()) for text in TEXTS]
    assert_sizes(default_bm25(TEXTS, QUERIES), words, [set(query.split()) for query in QUERIES])


def test_sizes_of_sparse_vectors():
    random = np.random.default_rng(5)
    documents, queries = (random.random((n, 9), dtype=np.float32) * (random.random((n, 9)) < 0.3) for n in (20, 7))
    system = sparse_vectors(csr_array(documents), csr_array(queries))
    sets = [[set(map(str, np.flatnonzero(row))) for row in rows] for rows in (documents, queries)]
    assert_sizes(system, *sets)
    for i, query in enumerate(queries):
        assert system.scores(i) == pytest.approx(documents @ query, rel=1e-6)


def test_sizes_of_key_tokens_and_of_combinations(small_embeddings: np.ndarray):
    random = np.random.default_rng(6)
    words = ["wing", "lift", "drag", "shock", "wave", "heat", "flow", "plate"]
    texts = [" ".join(random.choice(words, size=random.integers(2, 7))) for _ in range(60)]
    model = fit(small_embeddings, texts, language="none")
    texts[7] = "wing zebra"  # with a word that the vocabulary lacks
    queries = ["wing lift", "zebra heat heat", "giraffe"]
    embedded = small_embeddings[:3]
    encoded = model.encode_documents(small_embeddings, texts)
    ours = key_tokens(model, encoded, embedded, queries)
    documents = [set(tokens) for tokens in model.document_tokens(encoded)]
    asked = [set(tokens) for tokens in model.query_tokens(model.encode_queries(embedded, queries))]
    assert "zebra" in documents[7] & asked[1]
    assert_sizes(ours, documents, asked)
    bm25 = default_bm25(texts, queries)
    literals = [[set(text.split()) for text in batch] for batch in (texts, queries)]
    assert_sizes(bm25, *literals)
    for both in (key_tokens_with_bm25(ours, bm25), min_max(ours, bm25), reciprocal_rank_fusion(ours, bm25)):
        assert both.tokens_per_document == pytest.approx(ours.tokens_per_document + bm25.tokens_per_document)
        assert both.postings_per_document == pytest.approx(ours.postings_per_document + bm25.postings_per_document)
    vectors = dense(small_embeddings, embedded)
    for system in (vectors, min_max(vectors, bm25)):
        assert system.tokens_per_document is system.postings_per_document is None
