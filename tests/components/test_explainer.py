# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
from copy import deepcopy

import pytest
from haystack import Document, Pipeline
from haystack.components.joiners import DocumentJoiner
from haystack.components.retrievers.in_memory import InMemoryBM25Retriever, InMemoryEmbeddingRetriever
from haystack.core.serialization import component_from_dict
from haystack.dataclasses import SparseEmbedding
from haystack.document_stores.in_memory import InMemoryDocumentStore
from helpers.rankings import stored

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever

TYPE = "haystack_integrations.components.retrievers.keytok.explainer.KeyTokenExplainer"


def test_init_default():
    explainer = KeyTokenExplainer()
    assert (explainer.top_k, explainer.strip, explainer.field) == (10, True, "key_tokens")


def test_init_with_parameters():
    explainer = KeyTokenExplainer(top_k=None, strip=False, field="tokens")
    assert (explainer.top_k, explainer.strip, explainer.field) == (None, False, "tokens")


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_top_k_without_a_meaning_is_refused(top_k):
    with pytest.raises(ValueError, match="top_k"):
        KeyTokenExplainer(top_k=top_k)


def test_to_dict():
    assert KeyTokenExplainer().to_dict() == {
        "type": TYPE,
        "init_parameters": {"top_k": 10, "strip": True, "field": "key_tokens"},
    }


def test_to_dict_with_custom_parameters():
    assert KeyTokenExplainer(top_k=None, strip=False, field="t").to_dict() == {
        "type": TYPE,
        "init_parameters": {"top_k": None, "strip": False, "field": "t"},
    }


def test_from_dict():
    data = {"type": TYPE, "init_parameters": {"top_k": 3, "strip": False, "field": "t"}}
    explainer = component_from_dict(KeyTokenExplainer, data, "explainer")
    assert (explainer.top_k, explainer.strip, explainer.field) == (3, False, "t")


def test_shared_tokens_are_listed_strongest_first():
    document = Document(content="x", meta={"key_tokens": {"shock": 0.5, "wave": 1.0, "heat": 2.0, "lift": 0.1}})
    query = {"boundary": 1.0, "lift": 0.8, "wave": 0.25, "shock": 1.0}
    (explained,) = KeyTokenExplainer().run(documents=[document], key_tokens=query)["documents"]
    assert explained.meta["matched_tokens"] == [
        {"token": "shock", "query_weight": 1.0, "document_weight": 0.5, "contribution": 0.5},
        {"token": "wave", "query_weight": 0.25, "document_weight": 1.0, "contribution": 0.25},
        {"token": "lift", "query_weight": 0.8, "document_weight": stored(0.1), "contribution": 0.8 * stored(0.1)},
    ]


def test_equal_contributions_are_listed_by_token():
    document = Document(content="x", meta={"key_tokens": dict.fromkeys("cab", 1.0)})
    (explained,) = KeyTokenExplainer().run(documents=[document], key_tokens=dict.fromkeys("bca", 0.5))["documents"]
    assert [match["token"] for match in explained.meta["matched_tokens"]] == ["a", "b", "c"]


@pytest.mark.parametrize(("top_k", "expected"), [(1, 1), (10, 10), (100, 20), (None, 20)])
def test_top_k_limits_the_list(top_k, expected):
    tokens = {str(i): 1.0 + i for i in range(20)}
    document = Document(content="x", meta={"key_tokens": tokens})
    (explained,) = KeyTokenExplainer(top_k=top_k).run(documents=[document], key_tokens=tokens)["documents"]
    assert [match["token"] for match in explained.meta["matched_tokens"]] == [
        str(i) for i in range(19, 19 - expected, -1)
    ]


def test_strip_takes_the_key_tokens_out():
    document = Document(content="x", meta={"key_tokens": {"shock": 1.0}, "year": 1962})
    for strip in (True, False):
        (explained,) = KeyTokenExplainer(strip=strip).run(documents=[document], key_tokens={"shock": 1.0})["documents"]
        assert ("key_tokens" in explained.meta) is not strip
        assert explained.meta["year"] == 1962


def test_field_names_the_key_in_meta():
    document = Document(content="x", meta={"tokens": {"shock": 1.0}, "key_tokens": {"wave": 1.0}})
    query = {"shock": 1.0, "wave": 1.0}
    (explained,) = KeyTokenExplainer(field="tokens").run(documents=[document], key_tokens=query)["documents"]
    assert [match["token"] for match in explained.meta["matched_tokens"]] == ["shock"]
    assert explained.meta["key_tokens"] == {"wave": 1.0}


@pytest.mark.parametrize(("key", "token"), [("3%2E5", "3.5"), ("100%25", "100%"), ("%252E", "%2E"), ("##ing", "##ing")])
def test_escaped_tokens_are_shown_unescaped(key, token):
    document = Document(content="x", meta={"key_tokens": {key: 1.0}})
    (explained,) = KeyTokenExplainer().run(documents=[document], key_tokens={key: 1.0})["documents"]
    assert explained.meta["matched_tokens"][0]["token"] == token


@pytest.mark.parametrize("meta", [{}, {"key_tokens": None}, {"key_tokens": {}}, {"key_tokens": {"heat": 1.0}}])
def test_a_document_that_shares_nothing_has_no_matched_tokens(meta):
    document = Document(content="x", meta=meta)
    (explained,) = KeyTokenExplainer().run(documents=[document], key_tokens={"shock": 1.0})["documents"]
    assert explained.meta["matched_tokens"] == []


@pytest.mark.parametrize("value", [["shock", "wave"], "shock wave", 5])
def test_a_document_whose_field_holds_something_else_is_named(value):
    document = Document(id="odd", content="x", meta={"key_tokens": value})
    with pytest.raises(TypeError, match="'odd'"):
        KeyTokenExplainer().run(documents=[document], key_tokens={"shock": 1.0})


def test_inputs_are_not_mutated_and_outputs_keep_everything_else():
    documents = [
        Document(content=str(i), meta={"key_tokens": {"shock": 1.0}, "a": {"b": i}}, score=i / 7, embedding=[1.0])
        for i in range(5)
    ]
    query = {"shock": 0.5}
    before, query_before = deepcopy(documents), deepcopy(query)
    explained = KeyTokenExplainer().run(documents=documents, key_tokens=query)["documents"]
    assert (documents, query) == (before, query_before)
    kept = [(d.id, d.content, d.score, d.embedding, d.meta["a"]) for d in before]
    assert [(d.id, d.content, d.score, d.embedding, d.meta["a"]) for d in explained] == kept


def test_run_on_empty_list():
    assert KeyTokenExplainer().run(documents=[], key_tokens={"shock": 1.0}) == {"documents": []}


@pytest.mark.parametrize("wrong", [None, "shock", ["shock"], Document(content="x")])
def test_run_wrong_input(wrong):
    with pytest.raises(TypeError, match="KeyTokenExplainer"):
        KeyTokenExplainer().run(documents=wrong, key_tokens={"shock": 1.0})


@pytest.fixture(scope="module")
def hits(cranfield, cranfield_documents, cranfield_queries, cranfield_model_folder):
    """For some queries: key tokens, and what SparseRetriever finds for them."""
    store = InMemoryDocumentStore(return_embedding=False)
    embedder = KeyTokenSparseEmbedder(cranfield_model_folder, progress_bar=False)
    documents = [
        Document(id=key, content=text, embedding=embedding.tolist())
        for (key, text), embedding in zip(cranfield.documents.items(), cranfield_documents.embeddings, strict=True)
    ]
    store.write_documents(embedder.run(documents=documents)["documents"])
    retriever = SparseRetriever(store, top_k=50)
    results = []
    for text, embedding in list(zip(cranfield.queries.values(), cranfield_queries.embeddings, strict=True))[::9]:
        key_tokens = embedder.run(embedding=embedding.tolist(), text=text)["key_tokens"]
        results.append((key_tokens, retriever.run(key_tokens=key_tokens)["documents"]))
    return results


def test_contributions_sum_to_the_score_of_the_retriever(hits):
    for key_tokens, found in hits:
        explained = KeyTokenExplainer(top_k=None).run(documents=found, key_tokens=key_tokens)["documents"]
        assert len(explained) == 50
        for document in explained:
            total = math.fsum(match["contribution"] for match in document.meta["matched_tokens"])
            assert total == pytest.approx(document.score, abs=1e-9)


def test_contributions_sum_to_the_score_for_another_embedder_s_sparse_vectors():
    store = InMemoryDocumentStore()
    store.write_documents([Document(content="x", sparse_embedding=SparseEmbedding([3, 30], [0.5, 2.0]))])
    query = SparseEmbedding([3, 30], [1.0, 0.25])
    (hit,) = SparseRetriever(store).run(query_sparse_embedding=query)["documents"]
    assert hit.score == 1.0
    (explained,) = KeyTokenExplainer().run(documents=[hit], key_tokens={"3": 1.0, "30": 0.25})["documents"]
    assert sum(match["contribution"] for match in explained.meta["matched_tokens"]) == 1.0


def hybrid_pipeline(join_mode: str) -> Pipeline:
    """Key tokens, dense vectors and BM25, each finding another document first; `explainer` explains all."""
    store = InMemoryDocumentStore()
    contents = {
        "key": ("nothing", [0.0, 1.0], {"shock": 1.0, "wave": 0.3}),
        "dense": ("nothing", [1.0, 0.1], {"wave": 0.7}),
        "lexical": ("turbulence", [0.0, 1.0], {"shock": 0.01}),
        "all": ("turbulence", [0.9, 0.2], {"shock": 0.6, "heat": 0.5}),
        "none": ("nothing", [-1.0, 0.0], {"heat": 1.0}),
    }
    store.write_documents(
        [
            Document(id=key, content=content, embedding=embedding, meta={"key_tokens": tokens})
            for key, (content, embedding, tokens) in contents.items()
        ]
    )
    pipeline = Pipeline()
    pipeline.add_component("key", SparseRetriever(store, top_k=2))
    pipeline.add_component("dense", InMemoryEmbeddingRetriever(store, top_k=2))
    pipeline.add_component("lexical", InMemoryBM25Retriever(store, top_k=2))
    pipeline.add_component("joiner", DocumentJoiner(join_mode=join_mode))
    pipeline.add_component("explainer", KeyTokenExplainer(top_k=None))
    for retriever in ("key", "dense", "lexical"):
        pipeline.connect(f"{retriever}.documents", "joiner.documents")
    pipeline.connect("joiner.documents", "explainer.documents")
    return pipeline


QUERY = {"shock": 1.0, "wave": 0.5}
EXPLANATIONS = {
    "key": {"shock": 1.0, "wave": 0.5 * stored(0.3)},
    "dense": {"wave": 0.5 * stored(0.7)},
    "lexical": {"shock": stored(0.01)},
    "all": {"shock": stored(0.6)},
}


def explanations(documents: list[Document]) -> dict[str, dict[str, float]]:
    return {d.id: {match["token"]: match["contribution"] for match in d.meta["matched_tokens"]} for d in documents}


def hybrid_input() -> dict:
    return {
        "key": {"key_tokens": QUERY},
        "dense": {"query_embedding": [1.0, 0.0]},
        "lexical": {"query": "turbulence"},
        "explainer": {"key_tokens": QUERY},
    }


@pytest.mark.parametrize(
    "join_mode", ["concatenate", "merge", "reciprocal_rank_fusion", "distribution_based_rank_fusion"]
)
async def test_behind_a_joiner_every_hit_is_explained_whoever_found_it(join_mode):
    data, outputs = hybrid_input(), {"key", "dense", "lexical"}
    result = hybrid_pipeline(join_mode).run(data, include_outputs_from=outputs)
    found = {name: {document.id for document in result[name]["documents"]} for name in outputs}
    assert found == {"key": {"key", "all"}, "dense": {"dense", "all"}, "lexical": {"lexical", "all"}}
    assert explanations(result["explainer"]["documents"]) == EXPLANATIONS
    for hit in result["key"]["documents"]:
        assert math.fsum(EXPLANATIONS[hit.id].values()) == pytest.approx(hit.score, abs=1e-9)
    assert all("key_tokens" not in document.meta for document in result["explainer"]["documents"])
    concurrently = await hybrid_pipeline(join_mode).run_async(data)
    assert explanations(concurrently["explainer"]["documents"]) == EXPLANATIONS


@pytest.mark.parametrize("escaped", [True, False])
def test_what_a_retriever_has_told_is_kept_whatever_the_spelling_of_its_keys(escaped):
    keys = ["3%2E5", "50%25", "wave"] if escaped else ["3.5", "50%", "wave"]
    store = InMemoryDocumentStore()
    store.write_documents([Document(id="a", meta={"key_tokens": dict.fromkeys(keys, 0.5)})])
    query = {key: 1 / i for i, key in enumerate(keys, start=1)}
    found = SparseRetriever(store).run(key_tokens=query)
    assert "key_tokens" not in found["documents"][0].meta
    (explained,) = KeyTokenExplainer(top_k=2).run(**found)["documents"]
    assert [match["token"] for match in explained.meta["matched_tokens"]] == ["3.5", "50%"]


@pytest.mark.parametrize("told", [None, "wave", 5, [1], [{}], [{"token": "wave"}], {"wave": 1}])
def test_what_others_have_stored_as_matched_tokens_explains_nothing(told):
    stale = [{"token": "wave", "query_weight": 0.3, "document_weight": 1.0, "contribution": 0.3}]
    for stored_list in (told, stale):
        document = Document(id="a", meta={"matched_tokens": stored_list})
        (explained,) = KeyTokenExplainer().run(documents=[document], key_tokens={"wave": 1.0})["documents"]
        assert explained.meta["matched_tokens"] == []


def test_a_hit_with_a_sparse_embedding_is_explained_by_what_its_retriever_tells():
    """Its indices are strings to nobody: a store that keeps both returns hits with one and without the other."""
    store = InMemoryDocumentStore()
    vector = SparseEmbedding(indices=[3], values=[0.5])
    store.write_documents([Document(content="x", sparse_embedding=vector, meta={"key_tokens": {"shock": 0.5}})])
    (hit,) = SparseRetriever(store).run(key_tokens={"shock": 1.0})["documents"]
    assert hit.sparse_embedding == vector
    (explained,) = KeyTokenExplainer().run(documents=[hit], key_tokens={"shock": 1.0})["documents"]
    assert [match["token"] for match in explained.meta["matched_tokens"]] == ["shock"]
    assert explained.meta["missing"] == []
