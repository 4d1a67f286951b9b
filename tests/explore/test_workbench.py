# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What the page shows is what the pipelines find, and what it explains adds up."""

import json
from dataclasses import replace

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.document_stores.errors import DocumentStoreError
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.errors import FilterError
from nodes.stores import DENSE_STORES, connection_to, engine_of

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from keytok_haystack import InvertedIndex, pipeline_yaml
from keytok_haystack.encoders import CachedEmbedder
from keytok_haystack.engines import MappingError, index_definition
from keytok_haystack.evaluation import TextFields
from keytok_haystack.explanation import dense_share
from keytok_haystack.explore import SYSTEMS, Source, Workbench, engine_source, text_source
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.utils.checks import EmbeddingError

QUESTION = "papers on shock-sound wave interaction ."


@pytest.fixture(scope="module")
def found(bench):
    return bench.search(QUESTION)


@pytest.fixture
def embedded_as(monkeypatch):
    """`embedded_as(bench, vector)`: its questions and texts all have this embedding."""

    def embedded_as(bench: Workbench, vector) -> None:
        embedded = type("Embedded", (), {"embeddings": vector[None]})
        monkeypatch.setattr(bench._embedder, "embed", lambda texts, role="document": embedded)

    return embedded_as


def test_the_hybrid_ranking_is_that_of_the_pipeline(bench, found, cranfield_model_folder, embedder):
    definition = pipeline_yaml(
        "hybrid.in_memory",
        {"text_embedder": {"model": embedder}},
        model=cranfield_model_folder,
        document_store=bench.source.parameters,
    )
    data = {"text_embedder": {"text": QUESTION}, "retriever": {"query": QUESTION}}
    hits = Pipeline.loads(definition).run(data)["explainer"]["documents"]
    shown = found["systems"]["hybrid"]["hits"]
    assert [hit["id"] for hit in shown] == [hit.id for hit in hits]
    assert [hit["score"] for hit in shown] == pytest.approx([hit.score for hit in hits], rel=1e-5)
    for hit in hits:
        explained = found["documents"][hit.id]
        assert explained["sentence"] == hit.meta["why"]
        assert list(explained["parts"]) == ["key tokens", "BM25", "dense vectors"]
        assert sum(part["score"] for part in explained["parts"].values()) == pytest.approx(hit.score, rel=1e-5)


def test_rankings_are_those_of_the_cosine_and_of_bm25(bench, found, cranfield_documents, cranfield):
    vectors = cranfield_documents.embeddings / np.linalg.norm(cranfield_documents.embeddings, axis=1, keepdims=True)
    query = bench._embedder.embed([QUESTION], "query").embeddings[0]
    cosines = vectors @ query / np.linalg.norm(query)
    ids = list(cranfield.documents)
    expected = [ids[i] for i in np.argsort(-cosines)[:10]]
    assert [hit["id"] for hit in found["systems"]["dense"]["hits"]] == expected
    index = InvertedIndex(with_bm25=True)
    index.add(ids, [{}] * len(ids), list(cranfield.documents.values()))
    best = index.find({}, 10, text=QUESTION, bm25_weight=1.0)
    shown = found["systems"]["bm25"]["hits"]
    assert [hit["id"] for hit in shown] == [hit.id for hit in best]
    assert [hit["score"] for hit in shown] == pytest.approx([hit.score for hit in best])
    assert found["systems"].keys() == SYSTEMS.keys()


def test_contributions_sum_to_the_score(found):
    for hit in found["systems"]["key_tokens"]["hits"]:
        explained = found["documents"][hit["id"]]
        assert sum(each["contribution"] for each in explained["shared"]) == pytest.approx(hit["score"], rel=1e-6)
        assert explained["score"] == pytest.approx(hit["score"], rel=1e-6)


def test_texts_are_whole_and_only_shared_tokens_are_marked(found, bench, cranfield):
    for key, explained in found["documents"].items():
        assert "".join(piece for piece, _ in explained["text"]) == cranfield.documents[key]
        shared = {each["token"] for each in explained["shared"]}
        marked = {token for _, token in explained["text"] if token is not None}
        literal = set(bench.model.literal_tokens(cranfield.documents[key]))
        assert marked == shared & literal
    assert ("refracts", "refraction") in found["documents"]["64"]["text"]


@pytest.mark.parametrize(
    ("text", "asked", "marked"),
    [
        ("A shock-wave.", "shock wave", ["shock", "wave"]),
        ("two-dimensional", "dimensional", ["dimensional"]),
        ("an x-15 and 15 more", "x-15", ["x-15", "15"]),
        ("in C++ and c#", "C++ c#", ["C++", "c#"]),
        ("SHOCK\u00adWAVES here", "shockwaves", ["SHOCK\u00adWAVES"]),
        ("un cafe\u0301 noir", "caf\u00e9", ["cafe\u0301"]),
        ("U.S. aircraft's wing, 3.14", "wing 3.14", ["wing", "3.14"]),
    ],
)
def test_the_words_that_say_a_token_are_marked(bench, text, asked, marked):
    tokens = {unescape_feature(key) for key in bench.model.literal_tokens(asked)}
    pieces = bench._marked(text, tokens)
    assert "".join(piece for piece, _ in pieces) == text
    assert [piece for piece, token in pieces if token is not None] == marked
    assert {token for _, token in pieces if token is not None} <= tokens


def test_everything_is_json(found):
    read = json.loads(json.dumps(found, allow_nan=False))
    assert read["systems"] == found["systems"]
    assert read["question"] == QUESTION


def test_a_muted_token_takes_its_contribution_away_and_a_boost_doubles_it(bench, found):
    before = {hit["id"]: hit["score"] for hit in found["systems"]["key_tokens"]["hits"]}
    adds = {
        key: {each["token"]: each["contribution"] for each in found["documents"][key]["shared"]}.get("sound", 0.0)
        for key in before
    }
    assert adds["64"] > 0
    for factor, change in ((0, -1), (2, 1)):
        edited = bench.search(QUESTION, {"sound": factor})
        for hit in edited["systems"]["key_tokens"]["hits"]:
            if hit["id"] in before:
                expected = before[hit["id"]] + change * adds[hit["id"]]
                assert hit["score"] == pytest.approx(expected, rel=1e-5)
    assert "sound" not in {each["token"] for each in bench.search(QUESTION, {"sound": 0})["tokens"]}
    added = bench.search(QUESTION, {"vorticity": 2})
    assert {"token": "vorticity", "weight": 1.0, "literal": False} in added["tokens"]


def test_muted_words_are_left_out_of_bm25_too(bench, found):
    muted = bench.search(QUESTION, {"sound": 0, "noise": 0})
    assert muted["systems"]["bm25"] | {"ms": 0} == bench.search(QUESTION.replace("-sound", ""))["systems"]["bm25"] | {
        "ms": 0
    }


def test_why_not_says_the_rank_that_a_deep_ranking_has(bench):
    deep = bench._retrievers["key_tokens"].run(key_tokens=bench._query(QUESTION, {}).tokens, top_k=1000)["documents"]
    for position in (0, 9, 10, 57, 300):
        why = bench.why(QUESTION, document_id=deep[position].id)
        assert why["ranks"]["Key tokens"] == position + 1
        assert why["document"]["score"] == pytest.approx(deep[position].score, rel=1e-6)
        assert f"number {position + 1}" in why["reason"]
    assert f"that of number 10 is {deep[9].score:.2f}" in bench.why(QUESTION, document_id=deep[57].id)["reason"]


def test_why_not_says_the_rank_in_each_ranking(bench, found, cranfield_documents, cranfield):
    for name, system in found["systems"].items():
        for position, hit in enumerate(system["hits"], start=1):
            assert bench.why(QUESTION, document_id=hit["id"])["ranks"][system["name"]] == position, name
    vectors = cranfield_documents.embeddings / np.linalg.norm(cranfield_documents.embeddings, axis=1, keepdims=True)
    order = np.argsort(-vectors @ bench._embedder.embed([QUESTION], "query").embeddings[0])
    ids = list(cranfield.documents)
    assert bench.why(QUESTION, document_id=ids[order[400]])["ranks"]["Dense vectors"] == 401
    assert bench.why(QUESTION, document_id=ids[order[1200]])["ranks"]["Dense vectors"] is None


def test_why_not_takes_texts(bench, cranfield):
    why = bench.why(QUESTION, text=cranfield.documents["64"])
    assert why["ranks"] == {"Key tokens": 1, "Dense vectors": 1}  # beside the document itself, with the same scores
    deep = bench._retrievers["key_tokens"].run(key_tokens=bench._query(QUESTION, {}).tokens, top_k=1000)["documents"]
    far = bench.why(QUESTION, text="a recipe for soup")
    better = sum(hit.score > far["document"]["score"] for hit in deep)
    assert far["ranks"] == {"Key tokens": better + 1, "Dense vectors": None}
    others = {each["token"]: 0 for each in bench.search("aileron")["tokens"] if each["token"] != "aileron"}
    nothing = bench.why("aileron", others, text="a recipe for soup")
    assert nothing["reason"] == "It shares no token with the question."
    assert nothing["ranks"]["Key tokens"] is None
    why = bench.why(QUESTION, text="a study of sound")
    assert "sound" in {each["token"] for each in why["document"]["shared"]}
    assert "paper" in why["document"]["missing"]


def test_why_not_names_the_reason(bench, cranfield):
    nowhere = {"field": "meta.year", "operator": "==", "value": 1}
    first = bench.search(QUESTION)["systems"]["key_tokens"]["hits"][0]["id"]
    assert "filters leave it out" in bench.why(QUESTION, None, nowhere, document_id=first)["reason"]
    with pytest.raises(ValueError, match="no document with the id 'none'"):
        bench.why(QUESTION, document_id="none")
    with pytest.raises(ValueError, match="by its id, or by a text"):
        bench.why(QUESTION)
    bare = Document(id="bare", content="shock", embedding=[0.1] * 384)
    bench.source.store.write_documents([bare])
    try:
        assert "no key tokens" in bench.why(QUESTION, document_id="bare")["reason"]
    finally:
        bench.source.store.delete_documents(["bare"])
    found = bench._retrievers["key_tokens"].run(key_tokens=bench._query("sound", {}).tokens, top_k=2000)["documents"]
    without = next(key for key in cranfield.documents if key not in {hit.id for hit in found})
    assert bench.why("sound", document_id=without)["reason"] == "It shares no token with the question."


def test_a_question_without_words_finds_nothing_and_says_so(bench):
    found = bench.search("the")
    assert found["systems"]["key_tokens"]["hits"] == []
    for name in ("hybrid", "key_tokens"):
        assert "no words but stop words" in found["systems"][name]["empty"]
    assert found["confidence"] == 0


def test_filters_are_those_of_haystack(bench):
    ids = [hit["id"] for hit in bench.search(QUESTION)["systems"]["hybrid"]["hits"]][:3]
    filters = {"field": "id", "operator": "in", "value": ids}
    systems = bench.search(QUESTION, filters=filters)["systems"]
    assert {hit["id"] for hit in systems["hybrid"]["hits"]} == set(ids)
    for system in systems.values():
        assert set() != {hit["id"] for hit in system["hits"]} <= set(ids)
    with pytest.raises(FilterError):
        bench.search(QUESTION, filters={"operator": "AND"})


def test_all_tokens_account_for_all_of_the_dense_similarity(cranfield_model, cranfield_documents):
    pair = cranfield_documents.embeddings[[63, 64]]
    features = cranfield_model.vocabulary.features
    assert dense_share(cranfield_model, pair, features) == pytest.approx(1.0, abs=0.01)
    same = cranfield_documents.embeddings[[0, 0]]
    assert dense_share(cranfield_model, same, features) == pytest.approx(1.0, abs=0.01)
    assert dense_share(cranfield_model, same, []) == 0.0
    few = features[:9]
    assert dense_share(cranfield_model, pair, few * 2) == pytest.approx(dense_share(cranfield_model, pair, few))
    some = [dense_share(cranfield_model, same, features[:n]) for n in (1, 10, 100)]
    assert 0 < some[0] < some[1] < some[2] < 1  # of a text and itself, each token can only add


@pytest.mark.parametrize("kind", DENSE_STORES)
def test_an_engines_index_is_explored_as_texts_are(
    kind, make_store, small_model, small_model_folder, small_texts, small_embeddings, embedded_as
):
    documents = [
        Document(id=f"{i:02}", content=text, embedding=embedding.tolist())
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]
    written = KeyTokenSparseEmbedder(small_model_folder).run(documents)["documents"]
    engine = make_store(kind, dimension=8, model=small_model)
    engine.write_documents(written)
    memory = InMemoryDocumentStore(index=f"test-{engine._index}", embedding_similarity_function="cosine")
    memory.write_documents(written)
    sources = (
        engine_source(engine_of(kind), make_store.url(kind), engine._index),
        Source("memory", memory, "in_memory", memory.to_dict()["init_parameters"]),
    )
    results = []
    for source in sources:
        bench = Workbench(small_model_folder, small_model, source, CachedEmbedder("random-projection"), top_k=5)
        embedded_as(bench, small_embeddings[0])
        found = bench.search(small_texts[0])
        why = bench.why(small_texts[0], document_id="07")
        results.append((found, why))
    (left, left_why), (right, right_why) = results
    for name in SYSTEMS:
        scores = [[hit["score"] for hit in each["systems"][name]["hits"]] for each in (left, right)]
        assert len(scores[0]) == 5 or name != "hybrid"
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    both = left["documents"].keys() & right["documents"].keys()
    assert len(both) >= 5
    for key in both:
        assert left["documents"][key]["sentence"] == right["documents"][key]["sentence"]
        assert left["documents"][key]["unasked"].keys() == right["documents"][key]["unasked"].keys()
    assert left_why["ranks"] == right_why["ranks"]


def test_only_hits_of_the_hybrid_have_parts_of_its_score(found):
    hybrid = {hit["id"] for hit in found["systems"]["hybrid"]["hits"]}
    assert found["documents"].keys() > hybrid
    for key, document in found["documents"].items():
        assert bool(document["parts"]) is (key in hybrid)


@pytest.mark.parametrize("kind", ["opensearch", *DENSE_STORES])
def test_an_index_without_dense_vectors_is_searched_without_them(
    kind, make_store, small_model, small_model_folder, small_texts, small_embeddings, embedded_as
):
    documents = [
        Document(id=f"{i:02}", content=text, embedding=embedding.tolist())
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]
    store = make_store(kind, model=small_model)
    written = KeyTokenSparseEmbedder(small_model_folder).run(documents)["documents"]
    store.write_documents([replace(document, embedding=None) for document in written])
    source = engine_source(engine_of(kind), make_store.url(kind), store._index)
    bench = Workbench(small_model_folder, small_model, source, CachedEmbedder("random-projection"), top_k=5)
    embedded_as(bench, small_embeddings[0])
    found = bench.search(small_texts[0])
    assert found["systems"]["dense"]["hits"] == []
    assert found["systems"]["dense"]["empty"] == "The index has no dense vectors."
    hits = found["systems"]["hybrid"]["hits"]
    assert len(hits) == 5
    for hit in hits:
        parts = found["documents"][hit["id"]]["parts"]
        assert parts.keys() == {"key tokens", "BM25"}
        assert sum(part["score"] for part in parts.values()) == pytest.approx(hit["score"], rel=1e-5)
    assert bench.why(small_texts[0], document_id="07")["ranks"].keys() == {"Hybrid", "Key tokens", "BM25"}
    store.write_documents([Document(id="bare", content="nothing")])
    reason = bench.why(small_texts[0], document_id="bare")["reason"]
    assert reason == "It has no key tokens yet: keytok backfill adds them."
    assert bench.why(small_texts[0], text=small_texts[0])["ranks"] == {"Key tokens": 1}


def test_a_lean_index_is_refused(make_store, small_model, small_model_folder):
    store = make_store("opensearch-knn", definition=index_definition("opensearch", 8, small_model, lean=True))
    source = engine_source("opensearch", make_store.url("opensearch-knn"), store._index)
    with pytest.raises(MappingError, match="is lean: its documents come without their key tokens"):
        Workbench(small_model_folder, small_model, source, CachedEmbedder("random-projection"))


def test_why_not_knows_the_tokens_of_documents_that_come_without(
    make_store, small_model, small_model_folder, small_texts, small_embeddings, embedded_as
):
    """Elasticsearch leaves vectors out of documents by default, and key tokens are vectors there."""
    definition = make_store.definition("elasticsearch-9", dimension=8, model=small_model, field="key_tokens")
    definition["settings"]["index.mapping.exclude_source_vectors"] = True
    store = make_store("elasticsearch-9", definition=definition)
    documents = [
        Document(id=f"{i:02}", content=text, embedding=embedding.tolist())
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]
    store.write_documents(KeyTokenSparseEmbedder(small_model_folder).run(documents)["documents"])
    assert all("key_tokens" not in document.meta for document in store.filter_documents())
    source = engine_source("elasticsearch", make_store.url("elasticsearch-9"), store._index)
    bench = Workbench(small_model_folder, small_model, source, CachedEmbedder("random-projection"), top_k=5)
    embedded_as(bench, small_embeddings[0])
    found = bench.search(small_texts[0])
    hits = found["systems"]["key_tokens"]["hits"]
    for hit in hits:
        assert found["documents"][hit["id"]]["score"] == pytest.approx(hit["score"], rel=1e-5)
    why = bench.why(small_texts[0], document_id=hits[1]["id"])
    assert why["document"]["score"] == pytest.approx(hits[1]["score"], rel=1e-5)
    assert why["reason"] == "It is number 2 by key tokens."


@pytest.mark.parametrize("kind", DENSE_STORES)
def test_an_alias_has_the_fields_of_all_its_indices(
    kind, make_store, small_model, small_model_folder, small_texts, small_embeddings
):
    stores = [make_store(kind, dimension=8, model=small_model) for _ in range(2)]
    for i, (store, meta) in enumerate(zip(stores, ({"year": 1}, {"place": "here"}), strict=True)):
        document = Document(id=str(i), content=small_texts[i], embedding=small_embeddings[i].tolist(), meta=meta)
        store.write_documents(KeyTokenSparseEmbedder(small_model_folder).run([document])["documents"])
    alias = f"{stores[0]._index}-all"
    with connection_to(engine_of(kind), make_store.url(kind), alias) as connection:
        for store in stores:
            connection.client.indices.put_alias(index=store._index, name=alias)
    source = engine_source(engine_of(kind), make_store.url(kind), alias)
    bench = Workbench(small_model_folder, small_model, source, CachedEmbedder("random-projection"))
    assert bench.fields() == ["id", "place", "year"]


@pytest.mark.parametrize("kind", DENSE_STORES)
def test_what_an_engine_refuses_is_told_in_a_sentence(kind, make_store, small_model, small_model_folder):
    store = make_store(kind, dimension=8, model=small_model)
    source = engine_source(engine_of(kind), make_store.url(kind), store._index)
    assert source.documents({"field": "id", "operator": "==", "value": "none"}) == []
    make_store.delete(kind, store._index)
    with pytest.raises(DocumentStoreError, match="has no index"):
        source.documents({"field": "id", "operator": "==", "value": "none"})
    with pytest.raises(DocumentStoreError, match="has no index"):
        source.field_types()


def test_texts_that_cannot_be_read_are_refused(tmp_path, cranfield_model, embedder):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ValueError, match="holds no texts"):
        text_source(tmp_path / "none.jsonl", cranfield_model, CachedEmbedder(embedder))
    (tmp_path / "own.csv").write_text("key,body\na,shock waves\nb,heat transfer\n")
    fields = TextFields(("body",), "key")
    source = text_source(tmp_path / "own.csv", cranfield_model, CachedEmbedder(embedder, progress_bar=False), fields)
    assert [document.id for document in source.store.filter_documents()] == ["a", "b"]


def test_an_embedder_of_another_dimension_is_refused(small_model, tmp_path, embedder):
    (tmp_path / "own.jsonl").write_text('{"text": "shock"}')
    with pytest.raises(EmbeddingError, match="dimension"):
        text_source(tmp_path / "own.jsonl", small_model, CachedEmbedder(embedder, progress_bar=False))


def test_what_only_the_embedding_says_of_a_word_of_the_question_is_told(found, bench, cranfield):
    told = 0
    for key, explained in found["documents"].items():
        said = {*bench.model.literal_tokens(cranfield.documents[key])}
        for each in explained["shared"]:
            assert each["in_text"] is (each["token"] in said)
        implied = [each["token"] for each in explained["shared"] if each["is_literal"] and not each["in_text"]]
        assert explained["implied"] == implied
        told += len(implied)
    assert told


def test_words_that_are_too_weak_to_be_searched_for_are_named(bench):
    question = "why do the papers on shock-sound wave interaction in supersonic flow past a flat plate disagree"
    found = bench.search(question)
    tokens = {each["token"] for each in found["tokens"]}
    assert {*found["unused"]} == {*bench.model.literal_tokens(question)} - tokens
    edited = bench.search(question, {"sound": 0})
    assert "sound" not in edited["unused"]


def test_a_question_whose_tokens_are_all_muted_finds_nothing_by_them(bench, found):
    muted = bench.search(QUESTION, {each["token"]: 0 for each in found["tokens"]})
    for name in ("hybrid", "key_tokens"):
        assert muted["systems"][name]["hits"] == []
        assert "all are muted" in muted["systems"][name]["empty"]
    assert muted["systems"]["dense"]["hits"]
