# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Backfilling: key tokens for the documents that real engines have."""

import gc
import json
import threading
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.document_stores.errors import DocumentStoreError
from helpers.live_index import (
    PLAIN,
    assert_found,
    assert_tokens,
    compact,
    embedding_field,
    every_engine,
    filled,
    through,
    tokens_of,
    two_engines,
    without,
)
from nodes.stores import RawIndex, engine_of

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines.connection import document_store
from keytok_haystack.live_index import Fields, backfill, create_index, drop, dry_run, sample
from keytok_haystack.live_index.documents import StoredDocument
from keytok_haystack.sparse_vectors.rank_features import truncate_weights

PAGE = 25
ODD = {
    "numbers": "[1.10,1E2,12345678901234567,-0.0,1e-7,0.1000000000000000055511,123456789012345678901234567890,5e-324]",
    "strings": r'["\u00e9","é","\/","/","\ud83d\ude00","😀","\"\\\n\u0000","","\u2028","a  b"]',
    "nested": '{"b":{"a":[{"z":1,"y":{}},{"z":[]},[[],[null]]]},"a":null,"":0,"a b":1,"c.d":{"e.f":true}}',
    "order": '{"z":1,"a":2,"10":3,"9":4}',
}
"""JSON that no parser and writer would leave as it is."""


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Few documents are many pages."""
    monkeypatch.setattr("keytok_haystack.live_index.scan.PAGE", PAGE)


@every_engine
def test_every_document_gets_the_key_tokens_of_its_embedding_and_text(kind, new_index, sources, small_model):
    store, raw = new_index(kind, sources)
    report = filled(store, small_model)
    assert (report.documents, report.written) == (60, 60)
    raw.ask("POST", "_refresh")
    after = raw.sources()
    assert after.keys() == sources.keys()
    for source in after.values():
        assert_tokens(small_model, source)
    assert_found(store, small_model, sources)
    noted = {"fingerprint": small_model.fingerprint, "embedder": small_model.embedder}
    assert raw.mappings()["_meta"] == {"keytok": {"key_tokens": noted}}

    before = raw.versions()
    report = filled(store, small_model)
    assert (report.documents, report.written, report.already) == (60, 0, 60)
    assert raw.versions() == before


@every_engine
def test_all_other_fields_stay_byte_for_byte(kind, new_index, small_embeddings, small_model):
    needed = f'"embedding":{json.dumps(small_embeddings[0].tolist())},"content":"Shock  wAve \\u00e9 é"'
    odd = ",".join(f'"{name}":{value}' for name, value in ODD.items())
    documents = {
        "behind": f'{{"odd":{{{odd}}},{needed}}}',
        "before": f'{{{needed},"odd":{{{odd}}}}}',
        "among": f'{{"z":1.10,"a b":"c","key_tokens":{{"stale":1.0}},{needed},"a":"\\/","d.e":1E2,"é":null,"f":[]}}',
        "first": f'{{"key_tokens":{{"stale":1.0}},{needed}}}',
    }
    tokens = {"type": "sparse_vector" if kind in ("elasticsearch-8", "elasticsearch-9") else "rank_features"}
    store, raw = new_index(kind, documents, properties={"odd": PLAIN, "key_tokens": tokens})
    before = raw.sources()
    if kind != "opensearch-knn":  # which spells documents anew as it takes vectors out, and puts them back
        assert before == documents
    assert filled(store, small_model).written == len(documents)
    after = raw.sources()
    for key, source in before.items():
        assert_tokens(small_model, after[key])
        assert without("key_tokens", after[key]) == without("key_tokens", source)
    if kind != "opensearch-knn":
        assert after["first"].startswith('{"key_tokens":{')
        assert ',"key_tokens":{' in after["among"].partition('"embedding"')[0]


@every_engine
def test_documents_that_are_written_over_several_lines(kind, new_index, sources, small_model):
    pretty = {key: json.dumps(json.loads(source), indent=2) for key, source in list(sources.items())[:3]}
    store, raw = new_index(kind)
    for key, source in pretty.items():
        raw.ask("PUT", f"_doc/{key}", source, refresh="true")
    before = raw.sources()
    assert filled(store, small_model).written == len(pretty)
    for key, source in raw.sources().items():
        assert_tokens(small_model, source)
        assert "".join(without("key_tokens", source).split()) == "".join(before[key].split())


@pytest.mark.parametrize(
    ("kind", "excluded", "similarity"),
    [
        ("opensearch-knn", None, None),
        ("elasticsearch-8", None, "cosine"),
        ("elasticsearch-9", "false", "cosine"),
        ("elasticsearch-9", "true", "cosine"),
        ("elasticsearch-9", "true", "l2_norm"),
        ("elasticsearch-9", "true", "max_inner_product"),
    ],
)
def test_dense_vectors_stay_and_are_searched(
    kind, excluded, similarity, new_index, sources, small_embeddings, small_model
):
    # not quantized, which would depend on the segment
    options = {"similarity": similarity, "index_options": {"type": "hnsw"}} if similarity else {}
    settings = {} if excluded is None else {"index.mapping.exclude_source_vectors": excluded}
    properties = {"embedding": embedding_field(kind, **options)}
    store, raw = new_index(kind, sources, properties=properties, settings=settings)

    def vectors() -> np.ndarray:
        raw.ask("POST", "_refresh")
        found = raw.sources()
        return np.array([json.loads(found[key])["embedding"] for key in sources])

    def hits() -> list[list[tuple[str, float]]]:
        found = [store._embedding_retrieval(embedding.tolist(), top_k=10) for embedding in small_embeddings[:5]]
        return [[(hit.id, pytest.approx(hit.score, rel=1e-5)) for hit in each] for each in found]

    before, found_before = vectors(), hits()
    np.testing.assert_allclose(before, small_embeddings, rtol=1e-6)
    assert filled(store, small_model).written == len(sources)
    if (excluded, similarity) == ("true", "cosine"):  # Elasticsearch itself rounds such vectors whenever it writes
        np.testing.assert_allclose(vectors(), before, rtol=1e-6)
    else:
        assert vectors().tolist() == before.tolist()
    assert hits() == found_before


@every_engine
def test_key_tokens_are_replaced_and_only_where_they_differ(kind, new_index, sources, small_model):
    tokens = {"type": "sparse_vector" if kind in ("elasticsearch-8", "elasticsearch-9") else "rank_features"}
    keys = ("right", "spelled otherwise", "stale", "too many", "too few", "other weight", "empty", "none")
    documents = {key: {**json.loads(source), "id": key} for key, source in zip(keys, sources.values(), strict=False)}
    right = {key: tokens_of(small_model, json.dumps(document)) for key, document in documents.items()}
    for key, document in documents.items():
        document["key_tokens"] = dict(right[key])
    for word, weight in right["spelled otherwise"].items():
        documents["spelled otherwise"]["key_tokens"][word] = weight * (1 + 1e-7)
    documents["stale"]["key_tokens"] = {"stale": 1.0}
    documents["too many"]["key_tokens"]["stale"] = 0.01
    documents["too few"]["key_tokens"].popitem()
    documents["other weight"]["key_tokens"][next(iter(right["other weight"]))] *= 1.01
    documents["empty"]["key_tokens"] = {}
    del documents["none"]["key_tokens"]
    texts = {key: json.dumps(document) for key, document in documents.items()}
    store, raw = new_index(kind, texts, properties={"key_tokens": tokens})
    before = raw.versions()
    stale = {*keys} - {"right", "spelled otherwise"}

    def written_since() -> set[str]:
        return {key for key, number in raw.versions().items() if number != before[key]}

    report = filled(store, small_model, resume=True)
    assert written_since() == {"empty", "none"}  # which have not any
    report = filled(store, small_model)
    assert report.already == len(texts) - report.written
    assert written_since() == stale
    for source in raw.sources().values():
        assert_tokens(small_model, source)
    assert_found(store, small_model, texts)
    retriever = SparseRetriever(store)
    assert retriever.run(key_tokens={"stale": 1.0})["documents"] == []
    retriever.close()


@every_engine
def test_what_others_change_while_a_document_is_written_is_kept(
    kind, new_index, gate, sources, small_embeddings, small_model
):
    _, raw = new_index(kind, sources)
    each = gate(kind)
    newest = {"content": "newest", "embedding": small_embeddings[9].tolist(), "by": "others"}
    asked: list[str] = []

    def change(path: str, body: bytes) -> None:
        if "_bulk" in path and not asked:
            asked.append(path)
            keys = [json.loads(line)["index"]["_id"] for line in body.decode().splitlines()[::2]]
            raw.ask("PUT", f"_doc/{keys[0]}", json.dumps(newest))
            raw.ask("POST", f"_update/{keys[1]}", '{"doc": {"title": "changed", "seen": 1.10}}')
            raw.ask("DELETE", f"_doc/{keys[2]}")
            raw.ask("DELETE", f"_doc/{keys[3]}")
            raw.ask("PUT", f"_doc/{keys[3]}", json.dumps({**newest, "by": "one who makes it anew"}))
            raw.ask("PUT", "_doc/created", json.dumps({**newest, "by": "one who makes it"}))
            changed.extend(keys)

    changed: list[str] = []
    each.asked = change
    report = backfill(through(each, kind, raw), small_model, progress_bar=False)
    assert (report.documents, report.written, report.failed) == (60, 59, 0)
    after = raw.sources() if raw.ask("POST", "_refresh") else {}
    replaced, updated, deleted, remade = changed[:4]
    assert after.keys() == sources.keys() - {deleted} | {"created"}
    assert "key_tokens" not in after.pop("created")
    expected = {key: json.loads(source) for key, source in sources.items()}
    expected[replaced] = newest
    expected[updated] |= {"title": "changed", "seen": 1.10}
    expected[remade] = {**newest, "by": "one who makes it anew"}
    for key, source in after.items():
        assert_tokens(small_model, source)
        found, wanted = json.loads(source), expected[key]
        assert found.pop("embedding") == pytest.approx(wanted["embedding"], rel=1e-6)
        assert {**found, "embedding": 0, "key_tokens": 0} == {**wanted, "embedding": 0, "key_tokens": 0}


@two_engines
def test_others_who_write_all_the_time_lose_nothing(kind, new_index, sources, small_model, monkeypatch):
    monkeypatch.setattr("keytok_haystack.live_index.scan.PAGE", 6)
    store, raw = new_index(kind, sources)
    counts = dict.fromkeys(sources, 0)
    done = threading.Event()

    def count() -> None:
        while not done.is_set():
            for key in counts:
                if not done.wait(0.002):
                    body = json.dumps({"doc": {"count": counts[key] + 1}})
                    raw.ask("POST", f"_update/{key}", body, retry_on_conflict=10)
                    counts[key] += 1

    other = threading.Thread(target=count)
    other.start()
    try:
        while min(counts.values()) < 1:
            done.wait(0.01)
        report = filled(store, small_model)
    finally:
        done.set()
        other.join()
    assert (report.written, report.failed) == (60, 0)
    for key, source in raw.sources().items():
        assert json.loads(source)["count"] == counts[key]
        assert_tokens(small_model, source)


@two_engines
def test_a_document_that_changes_whenever_it_is_written_is_named(kind, new_index, gate, sources, small_model):
    _, raw = new_index(kind, sources)
    each = gate(kind)

    def change(path: str, body: bytes) -> None:
        if "_bulk" in path and b'"_id":"7"' in body:
            raw.ask("POST", "_update/7", json.dumps({"doc": {"count": uuid4().hex}}))

    each.asked = change
    report = filled(through(each, kind, raw), small_model)
    assert (report.written, [failure.id for failure in report.failures]) == (59, ["7"])
    assert "others have changed it" in report.failures[0].reason
    after = raw.sources()
    assert "key_tokens" not in after.pop("7")
    for source in after.values():
        assert_tokens(small_model, source)


@every_engine
def test_an_alias_of_indices_with_shards_and_routing(kind, new_index, make_store, sources, small_model):
    alias = f"test-{uuid4().hex[:12]}"
    several = {"index.number_of_shards": 3}
    indices = [new_index(kind, settings=several, _routing={"required": True})[1] for _ in range(2)]
    for number, raw in enumerate(indices):
        for source_id, source in sources.items():
            raw.ask("PUT", f"_doc/{source_id}", source, routing=f"{number}-{source_id}")
        raw.ask("POST", "_refresh")
        raw.ask("PUT", f"_alias/{alias}", "{}")
    before = [{key: raw.source(key, routing=f"{i}-{key}") for key in sources} for i, raw in enumerate(indices)]
    report = filled(document_store(engine_of(kind), make_store.url(kind), alias), small_model)
    assert (report.documents, report.written) == (120, 120)
    for number, raw in enumerate(indices):
        assert raw.versions().keys() == sources.keys()
        for key in sources:
            after = raw.source(key, routing=f"{number}-{key}")
            assert_tokens(small_model, after)
            assert without("key_tokens", after) == before[number][key]
        assert raw.mappings()["_meta"]["keytok"]["key_tokens"]["fingerprint"] == small_model.fingerprint


@two_engines
def test_an_alias_that_gets_another_index_meanwhile(kind, new_index, gate, sources, small_model):
    alias = f"test-{uuid4().hex[:12]}"
    _, raw = new_index(kind, sources)
    _, newer = new_index(kind)
    raw.ask("PUT", f"_alias/{alias}", "{}")
    each = gate(kind)
    each.asked = lambda path, body: newer.ask("PUT", f"_alias/{alias}", "{}") and None if "_bulk" in path else None
    report = filled(document_store(engine_of(kind), each.url, alias), small_model)
    assert report.written == 60


@two_engines
def test_the_ingest_pipeline_of_the_index_is_not_run_again(kind, new_index, sources, small_model):
    store, raw = new_index(kind, sources)
    raw.settings(default_pipeline="none-of-this-name")  # with which every write would fail
    assert filled(store, small_model).written == 60


@two_engines
def test_documents_that_cannot_be_searched_yet_are_not_missed(kind, new_index, sources, small_model):
    store, raw = new_index(kind, settings={"index.refresh_interval": -1})
    raw.write(sources, refresh="false")
    assert filled(store, small_model).written == 60


@two_engines
def test_what_was_written_is_found_at_once(kind, new_index, sources, small_model):
    store, raw = new_index(kind, sources, settings={"index.refresh_interval": "-1"})
    assert filled(store, small_model).written == 60
    hits = json.loads(raw.ask("POST", "_search", '{"size": 100}'))["hits"]["hits"]
    assert len(hits) == len(sources)
    assert all(hit["_source"]["key_tokens"] for hit in hits)


@two_engines
def test_no_request_is_larger_than_engines_take(kind, new_index, gate, sources, small_model, monkeypatch):
    limit = 4000
    monkeypatch.setattr("keytok_haystack.live_index.page._LARGEST_REQUEST", limit)
    documents = {key: compact(**{**json.loads(source), "note": "水" * 200}) for key, source in sources.items()}
    documents["large"] = json.dumps({**json.loads(sources["0"]), "note": "w" * 2 * limit})
    _, raw = new_index(kind, documents, properties={"note": PLAIN})
    each = gate(kind)
    sizes: list[int] = []

    def measure(path: str, body: bytes) -> None:
        if "_bulk" in path:
            sizes.append(len(body))

    each.asked = measure
    report = filled(through(each, kind, raw), small_model)
    assert report.written == 61
    *others, largest = sorted(sizes)
    assert largest > limit  # the document that is larger goes alone
    assert others[-1] <= limit
    assert len(others) < 60


@two_engines
def test_an_index_without_documents(kind, new_index, small_model):
    store, raw = new_index(kind)
    report = filled(store, small_model)
    assert (report.documents, report.written) == (0, 0)
    assert "key_tokens" in raw.mappings()["properties"]
    assert dry_run(store, small_model).inspection.documents == 0


@two_engines
def test_documents_that_cannot_be_read_are_named_and_the_others_are_written(
    kind, new_index, sources, small_embeddings, small_model
):
    vector = small_embeddings[0].tolist()
    good = {
        "no content": {"embedding": vector},
        "null content": {"embedding": vector, "content": None},
        "empty content": {"embedding": vector, "content": ""},
        **{f"good {key}": json.loads(source) for key, source in sources.items()},
    }
    without_embedding = {"none": {"content": "shock"}, "null": {"content": "shock", "embedding": None}, "bare": {}}
    bad = {
        "zeros": {"embedding": [0.0] * 8},
        "wrong dimension": {"embedding": vector[:7]},
        "no numbers": {"embedding": []},
        "text": {"embedding": "0.1, 0.2"},
        "list of texts": {"embedding": ["a"] * 8},
        "nested": {"embedding": [vector]},
        "object": {"embedding": {"values": vector}},
        "null among": {"embedding": [None, *vector[1:]]},
        "huge": {"embedding": [1e300] * 8},
        "number": {"embedding": vector, "content": 5},
        "list": {"embedding": vector, "content": ["shock", "wave"]},
        "surrogate": {"embedding": vector, "content": "shock \ud83d"},
    }
    texts = {key: json.dumps(value) for key, value in {**good, **without_embedding, **bad}.items()}
    fields = {"embedding": PLAIN, "content": PLAIN}
    store, raw = new_index(kind, texts, properties=fields)
    before = raw.versions()
    report = filled(store, small_model)
    assert (report.documents, report.written, report.without_embedding) == (len(texts), len(good), 3)
    reasons = {failure.id: failure.reason for failure in report.failures}
    assert reasons.keys() == bad.keys()
    assert "zero" in reasons["zeros"]
    assert "7" in reasons["wrong dimension"]
    for key in ("text", "list of texts", "nested", "object", "null among"):
        assert "'embedding' is not a list of numbers" in reasons[key]
    for key in ("number", "list", "surrogate"):
        assert "'content' is not a text" in reasons[key]
    after = raw.sources()
    for key in good:
        assert_tokens(small_model, after[key])
    untouched = {**without_embedding, **bad}
    assert {key: raw.versions()[key] for key in untouched} == {key: before[key] for key in untouched}


@two_engines
def test_half_a_character_in_another_field_is_kept(kind, new_index, sources, small_model):
    half = '{"note":"cut \\uD83D","embedding":[1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0]}'
    store, raw = new_index(kind, {**sources, "half": half}, properties={"note": PLAIN})
    before = raw.sources()
    assert filled(store, small_model).written == 61
    for key, source in raw.sources().items():
        assert_tokens(small_model, source)
        assert without("key_tokens", source) == before[key]


@two_engines
@pytest.mark.parametrize("name", ["hits", "error"])
def test_an_index_may_be_called_as_a_part_of_an_answer(kind, name, make_store, sources, small_model):
    raw = RawIndex(kind, make_store.url(kind), name)
    raw.ask("PUT", "", json.dumps({"mappings": {"properties": {"embedding": embedding_field("plain")}}}))
    try:
        raw.write(sources)
        assert filled(document_store(engine_of(kind), make_store.url(kind), name), small_model).written == 60
    finally:
        make_store.delete(kind, name)


@two_engines
def test_other_fields_may_hold_the_texts_and_embeddings(kind, new_index, small_texts, small_embeddings, small_model):
    documents = {
        str(i): json.dumps({"body": text, "vector": embedding.tolist(), "content": "flow"})
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    }
    store, raw = new_index(kind, documents, properties={"embedding": None, "vector": embedding_field(kind)})
    assert filled(store, small_model, Fields("vector", "body", "tokens")).written == 60
    for source in raw.sources().values():
        found = json.loads(source)
        assert "key_tokens" not in found
        expected = tokens_of(small_model, json.dumps({"content": found["body"], "embedding": found["vector"]}))
        assert found["tokens"].keys() == expected.keys()


@pytest.mark.slow
@two_engines
def test_thousands_of_documents_are_written_once(
    kind, make_store, cranfield, cranfield_documents, cranfield_model, monkeypatch
):
    """However they are divided into pages: what a document gets does not depend on those beside it."""
    definition = make_store.definition(kind, dimension=384, model=cranfield_model, field="key_tokens")
    store = make_store(kind, definition=definition)
    raw = RawIndex(kind, make_store.url(kind), store._index)
    random, count = np.random.default_rng(5), 3000
    texts = [*cranfield.documents.values()]
    positions = np.arange(count) % len(texts)
    embeddings = cranfield_documents.embeddings[positions] + 0.02 * random.normal(size=(count, 384))
    raw.write(
        {
            str(i): compact(content=f"{texts[position]} {i}", embedding=embedding)
            for i, (position, embedding) in enumerate(zip(positions, embeddings.tolist(), strict=True))
        }
    )
    assert filled(store, cranfield_model).written == count
    for page in (500, 7, 37, 1000):
        monkeypatch.setattr("keytok_haystack.live_index.scan.PAGE", page)
        report = filled(store, cranfield_model)
        assert (report.documents, report.written) == (count, 0)


@two_engines
def test_memory_holds_a_few_pages(kind, new_index, gate, sources, small_model, monkeypatch):
    monkeypatch.setattr("keytok_haystack.live_index.scan.PAGE", 10)
    source = next(iter(sources.values()))
    _, raw = new_index(kind, {str(i): source for i in range(600)})
    each = gate(kind)
    alive: list[int] = []

    def count(path: str, body: bytes) -> None:
        if "_bulk" in path:
            gc.collect()
            alive.append(sum(type(thing) is StoredDocument for thing in gc.get_objects()))

    each.asked = count
    gc.freeze()  # what is there already need not be looked through again and again
    try:
        assert filled(through(each, kind, raw), small_model).written == 600
    finally:
        gc.unfreeze()
    assert len(alive) == 60
    assert 10 <= max(alive) <= 60


def test_an_index_of_vectors_can_be_searched_while_and_after_it_is_read(
    new_index, sources, small_embeddings, small_model
):
    store, raw = new_index("opensearch-knn", sources)
    embedding = small_embeddings[3].tolist()

    def found() -> tuple[str, float]:
        raw.ask("POST", "_refresh")
        hit = store._embedding_retrieval(embedding, top_k=1)[0]
        assert json.loads(raw.source("3"))["embedding"] == pytest.approx(embedding)
        return hit.id, pytest.approx(hit.score)

    expected = found()
    assert expected[0] == "3"
    sample(store, 10, progress_bar=False)
    assert found() == expected
    dry_run(store, small_model)
    assert found() == expected
    backfill(store, small_model, progress_bar=False)
    assert found() == expected
    drop(store, "key_tokens", progress_bar=False)
    assert found() == expected


@two_engines
def test_a_dry_run_changes_nothing_and_says_what_would_be(kind, new_index, sources, small_model, small_model_folder):
    store, raw = new_index(kind, {**sources, "none": '{"content": "shock"}'})
    before = raw.mappings(), raw.versions()
    result = dry_run(store, small_model_folder)
    assert (result.inspection.documents, result.tried, result.already, result.failures) == (61, PAGE, 0, [])
    assert result.without_embedding <= 1
    assert len(result.examples) == 3
    texts = {document["content"]: key for key, document in ((key, json.loads(text)) for key, text in sources.items())}
    for text, tokens in result.examples:
        assert tokens == tokens_of(small_model, sources[texts[text]])
        assert list(tokens.values()) == sorted(tokens.values(), reverse=True)
    assert (raw.mappings(), raw.versions()) == before
    filled(store, small_model_folder)
    raw.ask("POST", "_refresh")
    result = dry_run(store, small_model)
    assert result.already == result.tried - result.without_embedding
    assert result.examples == []


@two_engines
def test_embeddings_that_the_model_seems_not_to_read_are_warned_of_before_anything_is_written(
    kind, new_index, sources, small_model, small_embeddings
):
    store, _ = new_index(kind, sources)
    assert dry_run(store, small_model).inspection.warnings == []
    mean = small_embeddings.mean(axis=0).tolist()
    others = {key: compact(content="shock", embedding=mean) for key in sources}
    store, raw = new_index(kind, others)
    before = raw.mappings(), raw.versions()
    seen: list[str] = []

    def refuse(inspection):
        seen.extend(inspection.warnings)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backfill(store, small_model, confirm=refuse, progress_bar=False)
    assert (raw.mappings(), raw.versions()) == before
    assert ["as weakly as random ones" in warning for warning in seen] == [True]
    assert backfill(store, small_model, progress_bar=False).warnings == seen


@two_engines
def test_shards_that_cannot_be_read_are_not_left_out(kind, new_index, make_store, sources, small_model):
    alias = f"test-{uuid4().hex[:12]}"
    _, whole = new_index(kind, sources)
    missing = RawIndex(kind, make_store.url(kind), f"{alias}-missing")
    # its shard is on no node
    nowhere = {
        "settings": {"index.routing.allocation.enable": "none"},
        "mappings": {"properties": {"embedding": PLAIN}},
    }
    missing.ask("PUT", "", json.dumps(nowhere), wait_for_active_shards=0)
    for raw in (whole, missing):
        raw.ask("PUT", f"_alias/{alias}", "{}")
    store = document_store(engine_of(kind), make_store.url(kind), alias)
    try:
        with pytest.raises(DocumentStoreError):
            dry_run(store, small_model)
    finally:
        make_store.delete(kind, missing.name)


class Asking(threading.Thread):
    """
    Asks all the time.

    :param retrievers: One for each field.
    :param expected: What each finds: `{id: score}`, except documents that are new.
    :param query: What is asked.
    """

    def __init__(self, retrievers: dict[str, SparseRetriever], expected: dict[str, Any], query: dict[str, Any]) -> None:
        super().__init__()
        self.field = "key_tokens"
        self.done = threading.Event()
        self.wrong: list[Any] = []
        self._expected = expected
        self._retrievers = retrievers
        self._query = query
        self._right = 0

    def run(self) -> None:
        while not self.done.is_set() and not self.wrong:
            field = self.field
            try:
                hits = self._retrievers[field].run(query_embedding=self._query["embedding"], query=self._query["text"])
            except Exception as error:  # whatever it is, the test asserts that it was none
                self.wrong.append(error)
                return
            scores = {hit.id: hit.score for hit in hits["documents"] if not hit.id.startswith("new")}
            if scores == self._expected[field]:
                self._right += 1
            else:
                self.wrong.append((field, scores))

    def go_on(self) -> None:
        """Wait for a few further answers."""
        goal = self._right + 3
        while self._right < goal and not self.wrong:
            self.done.wait(0.01)


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-7", "elasticsearch-9"])
def test_a_model_is_phased_in_beside_another_while_queries_run(
    kind,
    new_index,
    sources,
    small_texts,
    small_embeddings,
    small_model,
    small_model_folder,
    other_model,
    other_model_folder,
):
    store, raw = new_index(kind, sources)
    filled(store, small_model)
    raw.ask("POST", "_refresh")
    query = {"embedding": small_embeddings[5].tolist(), "text": small_texts[5]}

    def answers(model: KeyTokenModel) -> dict[str, Any]:
        """The score of every document of the beginning, by numpy."""
        weights = model.encode_queries(np.array([query["embedding"]], np.float32), [query["text"]])
        wanted = model.query_tokens(weights)[0]
        found = {}
        for key, source in sources.items():
            tokens = tokens_of(model, source)
            shared = [word for word in wanted if word in tokens]
            stored = truncate_weights([tokens[word] for word in shared]).astype(float)
            found[key] = float(np.dot(stored, [wanted[word] for word in shared])) if shared else 0.0
        return {key: pytest.approx(score, rel=1e-5) for key, score in found.items() if score}

    models = {
        "key_tokens": (small_model_folder, answers(small_model)),
        "second": (other_model_folder, answers(other_model)),
    }
    retrievers = {
        field: SparseRetriever(store, model=folder, field=field, top_k=100) for field, (folder, _) in models.items()
    }
    pipeline = Pipeline()
    pipeline.add_component("first", KeyTokenSparseEmbedder(small_model_folder, progress_bar=False))
    pipeline.add_component("second", KeyTokenSparseEmbedder(other_model_folder, field="second", progress_bar=False))
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("first", "second")
    pipeline.connect("second", "writer")

    def document(key: str) -> Document:
        return Document(id=key, content=query["text"], embedding=query["embedding"])

    asking = Asking(retrievers, {field: scores for field, (_, scores) in models.items()}, query)
    asking.start()
    try:
        asking.go_on()
        assert create_index(store, other_model, field="second", dense=False).change == "extended"
        pipeline.run({"first": {"documents": [document("new before")]}})
        first = backfill(store, other_model, Fields(key_tokens="second"), progress_bar=False)
        assert (first.written, first.already) == (60, 1)
        pipeline.run({"first": {"documents": [document("new behind")]}})
        raw.ask("POST", "_refresh")
        asking.go_on()
        asking.field = "second"
        asking.go_on()
        assert drop(store, "key_tokens", progress_bar=False).written == 62
        asking.go_on()
    finally:
        asking.done.set()
        asking.join()
        for retriever in retrievers.values():
            retriever.close()
    assert not asking.wrong
