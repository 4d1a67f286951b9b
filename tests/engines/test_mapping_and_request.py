# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Index definitions, live mappings and search requests: as data, and as the engines take them."""

import json
from copy import deepcopy
from uuid import uuid4

import pytest
from haystack import Document
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from helpers.retrieval import own_meta
from hypothesis import given
from hypothesis import strategies as st
from nodes.stores import DENSE_STORES, ENGINE_STORES, connection_to, engine_of

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack.engines import (
    DenseShare,
    KeyTokenField,
    MappingError,
    index_definition,
    key_token_field,
    search_request,
)
from keytok_haystack.engines.mapping import merged_meta
from keytok_haystack.sparse_vectors.rank_features import escape_feature

STRINGS = [{"strings": {"match_mapping_type": "string", "mapping": {"type": "keyword"}}}]
KNN_VECTOR = {
    "type": "knn_vector",
    "dimension": 8,
    "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
}
DENSE_VECTOR = {"type": "dense_vector", "dims": 8, "index": True, "similarity": "cosine"}
KEEP_VECTORS = {"index.mapping.exclude_source_vectors": False}
DEFINITIONS = {
    ("opensearch", None, 8): ({"index.knn": True}, KNN_VECTOR, "rank_features"),
    ("opensearch", None, None): ({}, None, "rank_features"),
    ("opensearch", (2, 19), 8): ({"index.knn": True}, KNN_VECTOR, "rank_features"),
    ("opensearch", (3, 8, 0), None): ({}, None, "rank_features"),
    ("elasticsearch", (7, 17, 29), None): ({}, None, "rank_features"),
    ("elasticsearch", (8, 11), 8): ({}, DENSE_VECTOR, "rank_features"),
    ("elasticsearch", (8, 11), None): ({}, None, "rank_features"),
    ("elasticsearch", (8, 14, 9), 8): ({}, DENSE_VECTOR, "rank_features"),
    ("elasticsearch", (8, 15), 8): ({}, DENSE_VECTOR, "sparse_vector"),
    ("elasticsearch", (8, 15, 0), None): ({}, None, "sparse_vector"),
    ("elasticsearch", (8, 19, 21), 8): ({}, DENSE_VECTOR, "sparse_vector"),
    ("elasticsearch", (9, 0), 8): ({}, DENSE_VECTOR, "sparse_vector"),
    ("elasticsearch", (9, 1, 10), 8): ({}, DENSE_VECTOR, "sparse_vector"),
    ("elasticsearch", (9, 2), 8): (KEEP_VECTORS, DENSE_VECTOR, "sparse_vector"),
    ("elasticsearch", (9, 2, 0), None): (KEEP_VECTORS, None, "sparse_vector"),
    ("elasticsearch", (9, 5, 3), 8): (KEEP_VECTORS, DENSE_VECTOR, "sparse_vector"),
    ("elasticsearch", (10, 0), 8): (KEEP_VECTORS, DENSE_VECTOR, "sparse_vector"),
    ("elasticsearch", None, 8): (KEEP_VECTORS, DENSE_VECTOR, "sparse_vector"),
    ("elasticsearch", None, None): (KEEP_VECTORS, None, "sparse_vector"),
}
SETTINGS = {"refresh_interval": "50ms"}
TOKENS = {"shock": 1.0, "wave": 0.5, "100%25": 0.25}


def field_names() -> st.SearchStrategy[str]:
    names = st.text(st.characters(categories=["L", "N"], include_characters="_-"), min_size=1, max_size=12)
    return names.filter(lambda name: name not in {"content", "embedding"})


def dense_options(kind: str) -> dict:
    return {"dimension": 8} if kind in DENSE_STORES else {}


def mapping_of(make_store, kind: str, index: str) -> dict:
    with connection_to(engine_of(kind), make_store.url(kind), index) as connection:
        return connection.client.indices.get_mapping(index=index)[index]["mappings"]


@pytest.mark.parametrize(("engine", "version", "dimension"), DEFINITIONS)
def test_the_definition_for_each_engine_and_version(engine, version, dimension, small_model):
    settings, dense, field_type = DEFINITIONS[engine, version, dimension]
    properties = {"content": {"type": "text"}, "embedding": dense, "key_tokens": {"type": field_type}}
    if dense is None:
        del properties["embedding"]
    expected = {
        "settings": settings,
        "mappings": {
            "properties": properties,
            "dynamic_templates": STRINGS,
            "_meta": {
                "keytok": {"key_tokens": {"fingerprint": small_model.fingerprint, "embedder": "random-projection"}}
            },
        },
    }
    definition = index_definition(engine, dimension, small_model, version=version)
    assert definition == expected
    assert json.loads(json.dumps(definition)) == expected


@pytest.mark.parametrize(("engine", "version", "dimension"), DEFINITIONS)
def test_a_lean_definition_differs_in_what_documents_are_kept_with(engine, version, dimension, small_model):
    expected = index_definition(engine, dimension, small_model, version=version)
    if "index.mapping.exclude_source_vectors" in expected["settings"]:
        expected["settings"]["index.mapping.exclude_source_vectors"] = True
    else:
        expected["mappings"]["_source"] = {"excludes": ["key_tokens"]}
    assert index_definition(engine, dimension, small_model, version=version, lean=True) == expected


def test_a_definition_for_another_sparse_embedder_names_no_model():
    assert index_definition("opensearch", None, None, field="splade") == {
        "settings": {},
        "mappings": {
            "properties": {"content": {"type": "text"}, "splade": {"type": "rank_features"}},
            "dynamic_templates": STRINGS,
        },
    }


def test_meta_is_kept_under_the_name_of_the_field(small_model):
    mappings = index_definition("elasticsearch", 8, small_model, field="key_tokens_v2")["mappings"]
    assert mappings["properties"].keys() == {"content", "embedding", "key_tokens_v2"}
    assert mappings["_meta"] == {
        "keytok": {"key_tokens_v2": {"fingerprint": small_model.fingerprint, "embedder": "random-projection"}}
    }


def test_changing_a_definition_changes_no_other(small_model):
    first = index_definition("opensearch", 8, small_model)
    expected = deepcopy(first)
    first["settings"]["index.knn"] = False
    first["mappings"]["dynamic_templates"].clear()
    first["mappings"]["properties"]["embedding"]["method"]["engine"] = "faiss"
    assert index_definition("opensearch", 8, small_model) == expected


@pytest.mark.parametrize("engine", ["solr", "OpenSearch", "", "elastic"])
def test_an_unknown_engine_is_refused(engine):
    with pytest.raises(ValueError, match=rf"'{engine}'.*opensearch or elasticsearch"):
        index_definition(engine, 8, None)


@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize("dimension", [0, -1])
def test_a_dimension_that_is_not_positive_is_refused(engine, dimension):
    with pytest.raises(ValueError, match=f"positive.* {dimension}"):
        index_definition(engine, dimension, None)


@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
def test_a_dimension_that_is_not_the_models_is_refused(engine, small_model):
    with pytest.raises(ValueError, match=r"8 dimensions.*384"):
        index_definition(engine, 384, small_model)


@pytest.mark.parametrize("version", [(7, 17), (7, 17, 29), (6, 8)])
def test_dense_vectors_on_elasticsearch_7_are_refused(version):
    with pytest.raises(ValueError, match="Elasticsearch 7 cannot search dense vectors"):
        index_definition("elasticsearch", 8, None, version=version)


@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize("field", ["content", "embedding", ""])
def test_a_field_that_would_take_the_place_of_another_is_refused(engine, field):
    with pytest.raises(ValueError, match=f"field.*'{field}'"):
        index_definition(engine, 8, None, field=field)


@given(
    st.sampled_from(["opensearch", "elasticsearch"]), st.sampled_from([(8, 11), (8, 15), (9, 0), None]), field_names()
)
def test_a_definition_holds_the_field_that_retrieval_looks_for(small_model, engine, version, field):
    mappings = index_definition(engine, 8, small_model, field=field, version=version)["mappings"]
    found = key_token_field(mappings, field, "any")
    assert found.fingerprint == small_model.fingerprint
    assert found.type == mappings["properties"][field]["type"]


@pytest.mark.parametrize("field_type", ["rank_features", "sparse_vector"])
def test_a_field_is_found_with_its_type(field_type):
    mappings = {"properties": {"key_tokens": {"type": field_type, "store": True}}}
    assert key_token_field(mappings, "key_tokens", "any") == KeyTokenField(field_type, None)


def test_a_field_within_another_is_found():
    mappings = {
        "properties": {"vectors": {"properties": {"keys": {"type": "rank_features"}, "embedding": {"type": "float"}}}},
        "_meta": {"keytok": {"vectors.keys": {"fingerprint": "f00d"}}},
    }
    assert key_token_field(mappings, "vectors.keys", "any") == KeyTokenField("rank_features", "f00d")


@pytest.mark.parametrize(
    "meta",
    [{}, {"owner": "us"}, {"keytok": {}}, {"keytok": {"other": {"fingerprint": "f00d"}}}, {"keytok": {"f": {}}}],
)
def test_a_mapping_need_not_say_which_model_a_field_is_written_with(meta):
    mappings = {"properties": {"f": {"type": "sparse_vector"}}, "_meta": meta}
    assert key_token_field(mappings, "f", "any").fingerprint is None


@pytest.mark.parametrize(
    ("mappings", "field"),
    [
        ({}, "key_tokens"),
        ({"properties": {}}, "key_tokens"),
        ({"properties": {"key_tokens_v2": {"type": "rank_features"}}}, "key_tokens"),
        ({"properties": {"keys": {"type": "keyword", "fields": {"raw": {"type": "rank_features"}}}}}, "keys.raw"),
        ({"properties": {"vectors": {"properties": {"other": {"type": "rank_features"}}}}}, "vectors.keys"),
    ],
)
def test_a_missing_field_is_named_with_the_remedy(mappings, field):
    with pytest.raises(MappingError) as caught:
        key_token_field(mappings, field, "articles")
    message = str(caught.value)
    for part in ("'articles'", f"'{field}'", "keytok mapping --create"):
        assert part in message


@pytest.mark.parametrize(
    ("described", "field_type"),
    [
        ({"properties": {"shock": {"type": "float"}, "wave": {"type": "float"}}}, "object"),  # of dynamic mapping
        ({"type": "nested", "properties": {"shock": {"type": "float"}}}, "nested"),
        ({"type": "rank_feature"}, "rank_feature"),
        ({"type": "flattened"}, "flattened"),
        ({"type": "text", "fields": {"raw": {"type": "keyword"}}}, "text"),
    ],
)
def test_a_field_of_another_type_is_named_with_the_types_that_would_do(described, field_type):
    with pytest.raises(MappingError) as caught:
        key_token_field({"properties": {"key_tokens": described}}, "key_tokens", "articles")
    message = str(caught.value)
    for part in ("'articles'", "'key_tokens'", f"'{field_type}'", "rank_features", "sparse_vector", "keytok mapping"):
        assert part in message


def test_a_field_whose_weights_are_reversed_is_refused():
    described = {"type": "rank_features", "positive_score_impact": False}
    with pytest.raises(MappingError, match="positive_score_impact"):
        key_token_field({"properties": {"key_tokens": described}}, "key_tokens", "articles")


def test_what_is_known_of_a_field_joins_what_a_mapping_says():
    existing = {"owner": "us", "keytok": {"key_tokens": {"fingerprint": "1"}, "splade": {"fingerprint": "2"}}}
    added = {"keytok": {"key_tokens": {"fingerprint": "3"}, "v2": {"fingerprint": "4"}}}
    before = deepcopy((existing, added))
    assert merged_meta(existing, added) == {
        "owner": "us",
        "keytok": {"key_tokens": {"fingerprint": "3"}, "splade": {"fingerprint": "2"}, "v2": {"fingerprint": "4"}},
    }
    assert (existing, added) == before


FIELDS = st.dictionaries(st.sampled_from("abcd"), st.fixed_dictionaries({"fingerprint": st.sampled_from("123")}))
METAS = st.fixed_dictionaries({}, optional={"owner": st.text(max_size=3), "keytok": FIELDS})


@given(METAS, METAS)
def test_merging_forgets_nothing_and_happens_once(existing, added):
    merged = merged_meta(existing, added)
    assert merged.get("owner") == existing.get("owner")
    assert merged["keytok"] == existing.get("keytok", {}) | added.get("keytok", {})
    assert merged_meta(merged, added) == merged


def test_a_request_for_rank_features():
    assert search_request({"shock": 1.0, "100%25": 0.5}, "keys", "rank_features", 7) == {
        "query": {
            "bool": {
                "should": [
                    {"rank_feature": {"field": "keys.shock", "linear": {}, "boost": 1.0}},
                    {"rank_feature": {"field": "keys.100%25", "linear": {}, "boost": 0.5}},
                ],
                "minimum_should_match": 1,
            }
        },
        "size": 7,
        "track_total_hits": False,
    }


def test_a_request_for_a_sparse_vector_with_a_text_and_a_filter():
    filters = {"bool": {"must": {"term": {"year": 1960}}}}
    request = search_request(TOKENS, "keys", "sparse_vector", 3, text="shock waves", bm25_weight=0.1, filters=filters)
    assert request == {
        "query": {
            "bool": {
                "should": [
                    {"sparse_vector": {"field": "keys", "query_vector": TOKENS, "prune": False}},
                    {"match": {"content": {"query": "shock waves", "boost": 0.1}}},
                ],
                "minimum_should_match": 1,
                "filter": filters,
            }
        },
        "size": 3,
        "track_total_hits": False,
    }


def test_a_request_for_all_three_parts_is_one():
    """Key tokens find the documents; BM25 and cosines are added to the best of them; 0 leaves a part out."""
    dense, lexical = DenseShare([0.6, 0.8], weight=1.5), {"text": "shock", "bm25_weight": 0.1}
    request = search_request(TOKENS, "keys", "rank_features", 7, window=50, dense=dense, **lexical)
    plain = search_request(TOKENS, "keys", "rank_features", 7)
    assert {key: request[key] for key in plain} == plain
    rescore = request["rescore"]
    assert rescore["window_size"] == 50
    match, cosine, without = rescore["query"].pop("rescore_query")["bool"]["should"]
    assert rescore["query"] == {"score_mode": "total"}
    assert match == {"match": {"content": {"query": "shock", "boost": 0.1, "_name": "bm25"}}}
    assert cosine["script_score"]["boost"] == 2 * without["constant_score"]["boost"] == 3.0
    for top_k, window in ((25, 50), (60, 120), (5000, 10_000), (9000, 10_000)):  # engines allow no larger one
        request = search_request(TOKENS, "keys", "rank_features", top_k, window=50, dense=dense)
        assert request["rescore"]["window_size"] == window


@pytest.mark.parametrize("field_type", ["rank_features", "sparse_vector"])
@pytest.mark.parametrize("nearest", [0, 5])
def test_every_token_has_one_name_in_the_phase_that_scores_it(field_type, nearest):
    tokens = {f"t{i}": 1 / (i + 1) for i in range(20)}
    dense = DenseShare([0.6, 0.8], weight=1.5, nearest=nearest) if nearest else None
    request = search_request(tokens, "keys", field_type, 3, first_phase=0.5, window=7, dense=dense, named=True)

    def named(clauses: list[dict]) -> dict[str, float]:
        found = {}
        for clause in clauses:
            about = clause.get("rank_feature") or clause.get("sparse_vector") or {}
            if name := about.get("_name"):
                vector = about.get("query_vector") or {about["field"].removeprefix("keys."): about["boost"]}
                (found[name],) = vector.items()
        return found

    first = named(request["query"]["bool"]["should"])
    second = named(request["rescore"]["query"]["rescore_query"]["bool"]["should"])
    assert first == {str(i): (f"t{i}", 1 / (i + 1)) for i in range(8)}
    assert first | second == {str(i): (f"t{i}", 1 / (i + 1)) for i in range(20)}
    assert len(second) == (20 if nearest else 12)  # with the nearest, all parts are taken anew
    assert request["rescore"]["window_size"] == 7 + nearest


def test_the_nearest_are_candidates_whose_first_score_does_not_count():
    dense = DenseShare([0.6, 0.8], weight=1.5, nearest=10)
    filters = {"bool": {"must": {"term": {"year": 1960}}}}
    for engine in ("opensearch", "elasticsearch"):
        options = {"window": 50, "dense": dense, "engine": engine, "filters": filters}
        request = search_request(TOKENS, "keys", "rank_features", 7, **options)
        *tokens, nearest = request["query"]["bool"]["should"]
        assert str(filters) in str(nearest["knn"])
        rescore = request["rescore"]
        assert (rescore["window_size"], rescore["query"]["query_weight"]) == (60, 0)
        assert rescore["query"]["rescore_query"]["bool"]["should"][: len(tokens)] == tokens


@pytest.mark.parametrize("top_k", [1, 20, 21, 1000])
def test_documents_are_searched_by_all_tokens_at_once_however_weak(top_k):
    tokens = {"shock": 1.0, "wave": 0.4, "layer": 0.39, "wing": 0.001}
    request = search_request(tokens, "keys", "rank_features", top_k)
    assert request.keys() == {"query", "size", "track_total_hits"}
    clauses = [clause["rank_feature"] for clause in request["query"]["bool"]["should"]]
    assert {clause["field"]: clause["boost"] for clause in clauses} == {f"keys.{key}": w for key, w in tokens.items()}


@pytest.mark.parametrize("field_type", ["rank_features", "sparse_vector"])
@pytest.mark.parametrize(("text", "bm25_weight", "clauses"), [("a", 0.0, 0), ("", 0.1, 0), ("a", 0.1, 1)])
def test_a_request_without_tokens_has_no_clause_for_them(field_type, text, bm25_weight, clauses):
    request = search_request({}, "keys", field_type, 3, text=text, bm25_weight=bm25_weight)
    assert len(request["query"]["bool"]["should"]) == clauses


@pytest.mark.parametrize("filters", [None, {}])
def test_a_request_without_filters_has_no_clause_for_them(filters):
    assert "filter" not in search_request(TOKENS, "keys", "sparse_vector", 3, filters=filters)["query"]["bool"]


@given(st.dictionaries(st.text(min_size=1), st.floats(min_value=1e-30, max_value=1e30), min_size=1))
def test_a_request_names_every_token_as_it_is(tokens):
    escaped = {escape_feature(token): weight for token, weight in tokens.items()}
    as_clauses = search_request(escaped, "keys", "rank_features", 3)["query"]["bool"]["should"]
    clauses = [clause["rank_feature"] for clause in as_clauses]
    assert {clause["field"].removeprefix("keys."): clause["boost"] for clause in clauses} == escaped
    assert all(clause["linear"] == {} for clause in clauses)
    (clause,) = search_request(tokens, "keys", "sparse_vector", 3)["query"]["bool"]["should"]
    vector = clause["sparse_vector"]
    assert vector["query_vector"] == tokens


def test_a_key_with_a_dot_which_no_engine_finds_is_refused():
    with pytest.raises(ValueError, match=r"'3\.5'.*escape_feature"):
        search_request({"wing": 1.0, "3.5": 1.0}, "keys", "rank_features", 3)


@pytest.mark.parametrize("kind", ENGINE_STORES)
def test_engines_take_the_definition_and_show_it_again(kind, make_store, small_model):
    engine, url, index = engine_of(kind), make_store.url(kind), f"test-{uuid4().hex}"
    with connection_to(engine, url, index) as connection:
        version = connection.version
        definition = index_definition(engine, 8 if kind in DENSE_STORES else None, small_model, version=version)
        connection.client.indices.create(index=index, body=definition)
        try:
            live = connection.client.indices.get(index=index)[index]
        finally:
            connection.client.indices.delete(index=index)
    mappings = live["mappings"]
    assert mappings["_meta"] == definition["mappings"]["_meta"]
    assert mappings["dynamic_templates"] == STRINGS
    assert mappings["properties"].keys() == definition["mappings"]["properties"].keys()
    expected_type = "sparse_vector" if kind in ("elasticsearch-8", "elasticsearch-9") else "rank_features"
    assert key_token_field(mappings, "key_tokens", index) == KeyTokenField(expected_type, small_model.fingerprint)
    if kind in DENSE_STORES:
        wanted = definition["mappings"]["properties"]["embedding"]
        assert mappings["properties"]["embedding"].items() >= {k: v for k, v in wanted.items() if k != "method"}.items()
    settings = live["settings"]["index"]
    assert "codec" not in settings
    assert (settings.get("knn") == "true") is (kind == "opensearch-knn")
    kept = settings.get("mapping", {}).get("exclude_source_vectors")
    assert kept == ("false" if kind == "elasticsearch-9" else None)


@pytest.mark.parametrize("kind", ENGINE_STORES)
def test_haystacks_stores_make_an_index_of_the_mappings(kind, make_store, small_model, small_model_folder, caplog):
    engine, url, index = engine_of(kind), make_store.url(kind), f"test-{uuid4().hex}"
    definition = make_store.definition(
        kind, model=small_model, field="key_tokens", **{"dimension": None, **dense_options(kind)}
    )
    if engine == "opensearch":
        options = {"mappings": definition["mappings"], "settings": definition["settings"]}
        store = OpenSearchDocumentStore(hosts=url, index=index, **options)
    else:
        store = ElasticsearchDocumentStore(hosts=url, index=index, custom_mapping=definition["mappings"])
    try:
        assert store.count_documents() == 0
        with connection_to(engine, url, index) as connection:
            connection.client.indices.put_settings(index=index, body={"index": SETTINGS})
        embedding = [1.0] * 8 if kind in DENSE_STORES else None
        meta = {"key_tokens": TOKENS, "year": 1960, "author": "Love joy"}
        store.write_documents([Document(id="a", content="shock waves", embedding=embedding, meta=meta)])
        retriever = SparseRetriever(store, model=small_model_folder)
        (hit,) = retriever.run(key_tokens={"wave": 1.0, "100%25": 2.0})["documents"]
        assert (hit.id, hit.score) == ("a", pytest.approx(1.0))
        assert own_meta(hit) == {"year": 1960, "author": "Love joy"}
        filters = {"field": "meta.author", "operator": "==", "value": "Love joy"}
        assert store.filter_documents(filters)[0].id == "a"
        assert key_token_field(mapping_of(make_store, kind, index), "key_tokens", index).fingerprint
        assert "does not record the model" not in caplog.text
        assert ("leaves vectors out" in caplog.text) == (kind == "elasticsearch-9")  # the store takes no settings
        retriever.close()
    finally:
        make_store.delete(kind, index)


@pytest.mark.parametrize("kind", ENGINE_STORES)
def test_any_number_of_distinct_tokens_leaves_the_mapping_as_it_is(kind, make_store):
    store = make_store(kind)
    before = mapping_of(make_store, kind, store._index)
    documents = [
        Document(id=str(i), content="a", meta={"key_tokens": {f"token{i * 200 + j}": 0.5 for j in range(200)}})
        for i in range(100)
    ]
    assert store.write_documents(documents, DuplicatePolicy.OVERWRITE) == 100
    after = mapping_of(make_store, kind, store._index)
    assert after["properties"].pop("id") == {"type": "keyword"}  # which every document of Haystack's has
    assert after == before
    found = SparseRetriever(store).run(key_tokens={"token19999": 1.0, "token0": 0.5})["documents"]
    assert [(hit.id, hit.score) for hit in found] == [("99", 0.5), ("0", 0.25)]
