# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What users are told when an engine, an index or credentials are not as they should be."""

import base64
import json
import logging
import re
import socket
import traceback
from uuid import uuid4

import pytest
from haystack import Document, Pipeline
from haystack.core.errors import PipelineRuntimeError
from haystack.document_stores.errors import DocumentStoreError
from haystack.utils import Secret
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from nodes.launcher import QUICK_START, Node
from nodes.stores import connection_to, engine_of

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack.engines import MappingError, index_definition
from keytok_haystack.engines.server import server_of
from keytok_haystack.live_index import create_index

KINDS = ("opensearch-knn", "elasticsearch-9")
NAMES = {"opensearch-knn": "OpenSearch", "elasticsearch-9": "Elasticsearch"}
STORES = {"opensearch-knn": OpenSearchDocumentStore, "elasticsearch-9": ElasticsearchDocumentStore}
TOKENS = {"shock": 1.0, "wave": 0.5}
DOCUMENT = Document(id="a", content="shock waves", meta={"key_tokens": TOKENS})
UNKNOWN_MODEL = "does not record the model"
PASSWORD = "hunter2"

every_engine = pytest.mark.parametrize("kind", KINDS)
both_ways = pytest.mark.parametrize("how", ["run", "run_async"])


def encoded(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


@pytest.fixture
async def retriever_of():
    """Makes retrievers, and closes them in the loop that has used them."""
    retrievers = []

    def make(store, **options) -> SparseRetriever:
        retrievers.append(SparseRetriever(store, **options))
        return retrievers[-1]

    yield make
    for retriever in retrievers:
        retriever.close()
        await retriever.close_async()


@pytest.fixture(scope="module")
def shared(make_store):
    """The name of an index with one document, which tests only read."""
    stores = {}

    def of(kind: str) -> str:
        if kind not in stores:
            stores[kind] = make_store(kind)
            stores[kind].write_documents([DOCUMENT])
        return stores[kind]._index

    return of


@pytest.fixture
def indices(make_store):
    """The calls of an engine's client for its indices, with an index's name filled in."""

    def call(store, kind: str, method: str, **arguments):
        with connection_to(engine_of(kind), make_store.url(kind), store._index) as connection:
            return getattr(connection.client.indices, method)(index=store._index, **arguments)

    return call


async def ask(retriever: SparseRetriever, how: str, **query) -> list[Document]:
    query = query or {"key_tokens": {"shock": 1.0}}
    if how == "run":
        return retriever.run(**query)["documents"]
    return (await retriever.run_async(**query))["documents"]


def told(error: Exception) -> str:
    """The message of an error, which is one line of prose without secrets."""
    message = str(error)
    assert "\n" not in message
    assert '{"' not in message, "this is JSON"
    assert "<html" not in message
    shown = message + repr(error) + "".join(traceback.format_exception(error))
    assert PASSWORD not in shown
    assert encoded("admin", PASSWORD) not in shown
    return message


async def failed(retriever: SparseRetriever, how: str, expected: type[Exception] = DocumentStoreError, **query) -> str:
    with pytest.raises(expected) as caught:
        await ask(retriever, how, **query)
    return told(caught.value)


@every_engine
@both_ways
async def test_no_node_at_the_address(kind, how, free_port, retriever_of):
    url = f"http://admin:{PASSWORD}@127.0.0.1:{free_port}"
    retriever = retriever_of(STORES[kind](hosts=url, index="any"))
    for _ in range(2):
        message = await failed(retriever, how)
        assert f"{NAMES[kind]} at http://127.0.0.1:{free_port} cannot be reached" in message
        assert "Is it running" in message


@both_ways
async def test_an_address_without_a_scheme_shows_no_password(how, free_port, retriever_of):
    store = OpenSearchDocumentStore(hosts=f"admin:{PASSWORD}@127.0.0.1:{free_port}", index="any")
    assert f"127.0.0.1:{free_port}" in await failed(retriever_of(store), how)


def test_a_cloud_deployment_is_named_by_its_name():
    encoded = base64.b64encode(b"example.invalid$aaa$bbb").decode()
    store = ElasticsearchDocumentStore(cloud_id=f"articles:{encoded}", index="a", timeout=1)
    location = str(server_of(store).location)
    assert location == "Elasticsearch at the deployment 'articles' of Elastic Cloud"
    assert encoded not in location


@every_engine
async def test_all_addresses_are_named(kind, free_port, retriever_of):
    hosts = [f"http://admin:{PASSWORD}@127.0.0.1:{free_port}", f"http://other:{PASSWORD}@localhost:{free_port}"]
    message = await failed(retriever_of(STORES[kind](hosts=hosts, index="any")), "run")
    assert f"http://127.0.0.1:{free_port}, http://localhost:{free_port}" in message


@pytest.mark.slow
@every_engine
async def test_a_node_that_comes_back_is_used_again(kind, retriever_of, small_model, small_model_folder):
    with Node(kind, jvm_options=QUICK_START) as node:
        with connection_to(engine_of(kind), node.url, "a") as connection:
            definition = index_definition(engine_of(kind), None, small_model, version=connection.version)
            connection.client.indices.create(index="a", body=definition)
        store = STORES[kind](hosts=node.url, index="a")
        store.write_documents([DOCUMENT])
        retrievers = {how: retriever_of(store, model=small_model_folder) for how in ("run", "run_async")}
        for how, retriever in retrievers.items():
            assert [hit.id for hit in await ask(retriever, how)] == ["a"]
        node.kill()
        for how, retriever in retrievers.items():
            for _ in range(2):
                message = await failed(retriever, how)
                assert f"{NAMES[kind]} at {node.url} cannot be reached" in message
        url = node.url
        assert node.start().url == url
        with connection_to(engine_of(kind), url, "a") as connection:
            connection.client.cluster.health(index="a", wait_for_status="yellow")
        for how, retriever in retrievers.items():
            assert [hit.id for hit in await ask(retriever, how)] == ["a"]


@every_engine
@both_ways
async def test_an_index_that_is_deleted_and_made_again(kind, how, make_store, indices, retriever_of):
    store = make_store(kind)
    store.write_documents([DOCUMENT])
    retriever = retriever_of(store)
    assert await ask(retriever, how)
    definition = make_store.definition(kind, dimension=None, model=None, field="key_tokens")
    indices(store, kind, "delete")
    message = await failed(retriever, how)
    for part in (make_store.url(kind), f"no index '{store._index}'", "keytok mapping --create"):
        assert part in message
    with pytest.raises(DocumentStoreError, match=f"no index '{store._index}'"):
        retriever.run_batch(key_tokens=[TOKENS, TOKENS])
    indices(store, kind, "create", body=definition)
    store.write_documents([DOCUMENT])
    assert await ask(retriever, how)


@every_engine
@both_ways
async def test_an_index_without_the_field_as_haystack_makes_it(kind, how, make_store, retriever_of):
    # without the k-NN plugin, Haystack's default needs these
    options = {"mappings": {"properties": {"content": {"type": "text"}}}, "settings": {}}
    store = STORES[kind](
        hosts=make_store.url(kind), index=f"test-{uuid4().hex}", **(options if engine_of(kind) == "opensearch" else {})
    )
    try:
        assert store._index in await failed(retriever_of(store), how)  # searching makes no index
        assert store.count_documents() == 0  # but this does
        message = await failed(retriever_of(store), how, MappingError)
        for part in (f"'{store._index}'", "no field 'key_tokens'", "keytok mapping --create"):
            assert part in message
        store.write_documents([DOCUMENT])  # dynamic mapping makes one field a token
        message = await failed(retriever_of(store), how, MappingError)
        for part in (f"'{store._index}'", "'key_tokens'", "'object'", "before the field is mapped"):
            assert part in message
    finally:
        make_store.delete(kind, store._index)


@every_engine
@both_ways
async def test_a_field_of_another_type(kind, how, make_store, retriever_of):
    definition = make_store.definition(kind, dimension=None, model=None, field="key_tokens")
    definition["mappings"]["properties"]["key_tokens"] = {"type": "keyword"}
    store = make_store(kind, definition=definition)
    message = await failed(retriever_of(store), how, MappingError)
    for part in (f"'{store._index}'", "'key_tokens'", "'keyword'", "rank_features"):
        assert part in message


@every_engine
@both_ways
async def test_a_field_that_comes_later_is_found_without_a_new_retriever(kind, how, make_store, indices, retriever_of):
    definition = make_store.definition(kind, dimension=None, model=None, field="key_tokens")
    field = definition["mappings"]["properties"].pop("key_tokens")
    store = make_store(kind, definition=definition)
    retriever = retriever_of(store)
    await failed(retriever, how, MappingError)
    indices(store, kind, "put_mapping", body={"properties": {"key_tokens": field}})
    assert await ask(retriever, how) == []


@every_engine
@both_ways
@pytest.mark.parametrize("with_model", [True, False])
async def test_the_model_of_the_index_is_no_cause_for_a_warning(
    kind, how, with_model, make_store, retriever_of, small_model, small_model_folder, caplog
):
    store = make_store(kind, model=small_model if with_model else None)
    retriever = retriever_of(store, model=small_model_folder if with_model else None)
    with caplog.at_level(logging.WARNING):
        await ask(retriever, how)
    assert "key_tokens" not in caplog.text


@every_engine
@both_ways
async def test_another_model_than_that_of_the_index_is_refused(
    kind, how, make_store, retriever_of, small_model, other_model, other_model_folder
):
    store = make_store(kind, model=small_model)
    retriever = retriever_of(store, model=other_model_folder)
    for _ in range(2):
        message = await failed(retriever, how, MappingError)
        for part in (f"'{store._index}'", "'key_tokens'", small_model.fingerprint, other_model.fingerprint):
            assert part in message
    with pytest.raises(MappingError, match=other_model.fingerprint):
        retriever.run_batch(key_tokens=[TOKENS])
    assert await ask(retriever_of(store), how) == []  # without a model nothing is checked


@every_engine
async def test_an_index_that_names_no_model_is_warned_of_once(
    kind, make_store, retriever_of, small_model, small_model_folder, caplog
):
    store = make_store(kind)
    store.write_documents([DOCUMENT])
    retriever = retriever_of(store, model=small_model_folder)
    with caplog.at_level(logging.WARNING):
        for how in ("run", "run", "run_async", "run_async"):
            assert await ask(retriever, how)
        assert retriever.run_batch(key_tokens=[TOKENS])["documents"][0]
    (warning,) = [record.getMessage() for record in caplog.records if UNKNOWN_MODEL in record.getMessage()]
    for part in (f"'{store._index}'", "'key_tokens'", small_model.fingerprint, "keytok mapping --create"):
        assert part in warning


@every_engine
async def test_a_second_field_for_another_model_beside_the_first(
    kind, make_store, retriever_of, small_model, small_model_folder, other_model, other_model_folder
):
    store = make_store(kind, model=small_model)
    created = create_index(store, other_model, field="key_tokens_v2", dense=False)
    assert created.change == "extended"
    store.write_documents([Document(id="a", meta={"key_tokens": {"shock": 1.0}, "key_tokens_v2": {"wave": 0.5}})])
    first = retriever_of(store, model=small_model_folder)
    second = retriever_of(store, model=other_model_folder, field="key_tokens_v2")
    query = {"key_tokens": {"shock": 1.0, "wave": 1.0}}
    assert [hit.score for hit in await ask(first, "run", **query)] == [1.0]
    assert [hit.score for hit in await ask(second, "run", **query)] == [0.5]
    crossed = retriever_of(store, model=small_model_folder, field="key_tokens_v2")
    message = await failed(crossed, "run", MappingError)
    for part in ("'key_tokens_v2'", small_model.fingerprint, other_model.fingerprint):
        assert part in message


@every_engine
async def test_an_alias_over_indices_of_one_model(
    kind, make_store, indices, retriever_of, small_model, small_model_folder, caplog
):
    alias = f"test-{uuid4().hex}"
    stores = [make_store(kind, model=small_model), make_store(kind, model=small_model)]
    for i, store in enumerate(stores):
        store.write_documents([Document(id=str(i), meta={"key_tokens": {"shock": 0.5 + 0.25 * i}})])
        indices(store, kind, "put_alias", name=alias)
    retriever = retriever_of(STORES[kind](hosts=make_store.url(kind), index=alias), model=small_model_folder)
    for how in ("run", "run_async"):
        assert [(hit.id, hit.score) for hit in await ask(retriever, how)] == [("1", 0.75), ("0", 0.5)]
    assert UNKNOWN_MODEL not in caplog.text


@every_engine
@both_ways
async def test_an_alias_over_indices_of_two_models(
    kind, how, make_store, indices, retriever_of, small_model, small_model_folder, other_model
):
    alias = f"test-{uuid4().hex}"
    stores = [make_store(kind, model=model) for model in (small_model, other_model)]
    for store in stores:
        indices(store, kind, "put_alias", name=alias)
    retriever = retriever_of(STORES[kind](hosts=make_store.url(kind), index=alias), model=small_model_folder)
    message = await failed(retriever, how, MappingError)
    for part in (f"'{stores[1]._index}'", small_model.fingerprint, other_model.fingerprint):
        assert part in message


@every_engine
async def test_an_alias_over_an_index_without_the_field(kind, make_store, indices, retriever_of):
    alias = f"test-{uuid4().hex}"
    stores = [make_store(kind), make_store(kind, definition={"settings": {"index.number_of_replicas": 0}})]
    for store in stores:
        indices(store, kind, "put_alias", name=alias)
    message = await failed(retriever_of(STORES[kind](hosts=make_store.url(kind), index=alias)), "run", MappingError)
    assert f"'{stores[1]._index}' has no field 'key_tokens'" in message


@pytest.mark.parametrize("kind", ["elasticsearch-9"])
async def test_an_alias_over_indices_with_different_types(kind, make_store, gate, indices, retriever_of):
    """No test node has both types, so the gate says that one index has the other."""
    alias = f"test-{uuid4().hex}"
    stores = [make_store(kind), make_store(kind)]
    for store in stores:
        indices(store, kind, "put_alias", name=alias)
    types = ["rank_features", "sparse_vector"]

    def rewritten(path: str, body: bytes) -> bytes:
        if not path.endswith("_mapping"):
            return body
        mappings = json.loads(body)
        for store, field_type in zip(stores, types, strict=True):
            mappings[store._index]["mappings"]["properties"]["key_tokens"] = {"type": field_type}
        return json.dumps(mappings).encode()

    before = gate(kind)
    before.rewritten = rewritten
    message = await failed(retriever_of(STORES[kind](hosts=before.url, index=alias)), "run", MappingError)
    for part in (f"'{alias}'", "'key_tokens'", *(store._index for store in stores)):
        assert part in message


@every_engine
@both_ways
async def test_a_pattern_that_no_index_matches(kind, how, make_store, retriever_of):
    pattern = f"test-{uuid4().hex}-*"
    store = STORES[kind](hosts=make_store.url(kind), index=pattern)
    assert pattern in await failed(retriever_of(store), how)


def guarded_store(kind: str, way: str, url: str, host: str, password: str, index: str, monkeypatch):
    """A document store that gives credentials in one of the ways that users have."""
    monkeypatch.setenv("ENGINE_USER", "admin")
    monkeypatch.setenv("ENGINE_PASSWORD", password)
    user, secret = Secret.from_env_var("ENGINE_USER"), Secret.from_env_var("ENGINE_PASSWORD")
    if way == "URL":
        return STORES[kind](hosts=f"http://admin:{password}@{host}", index=index)
    options = {
        "http_auth": {"http_auth": (user, secret)},
        "api_key": {"api_key": secret},
        "api_key_id": {"api_key_id": user, "api_key": secret},
        "basic_auth": {"basic_auth": ("admin", password)},
    }
    return STORES[kind](hosts=url, index=index, **options[way])


WAYS = [
    ("opensearch-knn", "http_auth"),
    ("opensearch-knn", "URL"),
    ("elasticsearch-9", "api_key"),
    ("elasticsearch-9", "api_key_id"),
    ("elasticsearch-9", "basic_auth"),
    ("elasticsearch-9", "URL"),
]


@pytest.mark.parametrize(("kind", "way"), WAYS)
@both_ways
async def test_right_credentials_work_and_wrong_ones_are_told_without_the_password(
    kind, way, how, gate, shared, retriever_of, monkeypatch, caplog
):
    before = gate(kind)
    before.allowed = {f"Basic {encoded('admin', 'right')}", "ApiKey right", f"ApiKey {encoded('admin', 'right')}"}
    store = guarded_store(kind, way, before.url, before.host, "right", shared(kind), monkeypatch)
    assert [hit.id for hit in await ask(retriever_of(store), how)] == ["a"]

    store = guarded_store(kind, way, before.url, before.host, PASSWORD, shared(kind), monkeypatch)
    retriever = retriever_of(store)
    for _ in range(2):
        message = await failed(retriever, how)
        assert f"{NAMES[kind]} at {before.url} refused the credentials" in message
        assert "401" in message
    assert PASSWORD not in caplog.text
    assert encoded("admin", PASSWORD) not in caplog.text


@every_engine
@both_ways
async def test_a_user_without_the_right_to_search(kind, how, gate, shared, retriever_of):
    before = gate(kind)
    retriever = retriever_of(STORES[kind](hosts=before.url, index=shared(kind)))
    assert await ask(retriever, how)
    refused = {"type": "security_exception", "reason": "action [indices:data/read/search] is unauthorized for [admin]"}
    body = json.dumps({"error": {"root_cause": [refused], **refused}, "status": 403}).encode()
    before.answer = (403, "application/json", body)
    message = await failed(retriever, how)
    assert f"{NAMES[kind]} at {before.url} refused" in message
    assert "permissions" in message
    assert "403" in message
    before.answer = None
    assert await ask(retriever, how)


@every_engine
def test_the_command_takes_credentials_of_the_environment(kind, gate, monkeypatch):
    before = gate(kind)
    before.allowed = {f"Basic {encoded('admin', 'right')}", "ApiKey right"}
    monkeypatch.setenv("OPENSEARCH_USERNAME", "admin")
    for password in ("right", PASSWORD):
        monkeypatch.setenv("OPENSEARCH_PASSWORD", password)
        monkeypatch.setenv("ELASTIC_API_KEY", password)
        if password == "right":
            with connection_to(engine_of(kind), before.url, "any") as connection:
                assert connection.version >= (3, 5)
        else:
            with (
                pytest.raises(DocumentStoreError, match="refused the credentials") as caught,
                connection_to(engine_of(kind), before.url, "any"),
            ):
                pass
            told(caught.value)


@every_engine
@both_ways
async def test_a_page_of_a_proxy_is_no_answer_of_the_engine(kind, how, gate, shared, retriever_of):
    before = gate(kind)
    retriever = retriever_of(STORES[kind](hosts=before.url, index=shared(kind)))
    assert await ask(retriever, how)
    before.answer = (502, "text/html", b"<html>\n<body>\n<h1>Bad Gateway</h1>\n</body>\n</html>")
    message = await failed(retriever, how)
    assert before.url in message
    assert "502" in message


@every_engine
@both_ways
async def test_a_page_that_is_no_engine_at_all(kind, how, gate, retriever_of):
    before = gate(kind)
    before.answer = (200, "text/html", b"<html>\n<body>Welcome</body>\n</html>")
    assert before.url in await failed(retriever_of(STORES[kind](hosts=before.url, index="any")), how)


@every_engine
@both_ways
@pytest.mark.parametrize("top_k", [10_001, 2**31])
async def test_more_documents_than_the_engine_returns(kind, how, top_k, make_store, shared, retriever_of):
    retriever = retriever_of(STORES[kind](hosts=make_store.url(kind), index=shared(kind)), top_k=10_000)
    assert await ask(retriever, how)
    message = await failed(retriever, how, key_tokens=TOKENS, top_k=top_k)
    assert make_store.url(kind) in message
    assert str(top_k) in message
    if top_k == 10_001:
        assert "10000" in message
        assert "index.max_result_window" in message


@every_engine
@both_ways
async def test_a_closed_index(kind, how, make_store, indices, retriever_of):
    store = make_store(kind)
    retriever = retriever_of(store)
    assert await ask(retriever, how) == []
    indices(store, kind, "close")
    for each in (retriever, retriever_of(store)):
        message = await failed(each, how)
        assert make_store.url(kind) in message
        assert f"'{store._index}'" in message
        assert "closed" in message
    indices(store, kind, "open")


@every_engine
@both_ways
async def test_a_blocked_index_is_not_a_matter_of_credentials(kind, how, make_store, indices, retriever_of):
    store = make_store(kind)
    retriever = retriever_of(store)
    assert await ask(retriever, how) == []
    indices(store, kind, "put_settings", body={"index.blocks.read": True})
    message = await failed(retriever, how)
    assert store._index in message
    assert "blocked" in message
    assert "credentials" not in message
    with pytest.raises(DocumentStoreError, match="blocked"):
        retriever.run_batch(key_tokens=[TOKENS])
    indices(store, kind, "put_settings", body={"index.blocks.read": False})
    assert await ask(retriever, how) == []


@every_engine
async def test_one_failure_among_many_queries(kind, make_store, retriever_of):
    definition = make_store.definition(kind, dimension=None, model=None, field="key_tokens")
    definition["mappings"]["properties"]["content"] = {"type": "long"}
    store = make_store(kind, definition=definition)
    retriever = retriever_of(store, bm25_weight=0.1)
    queries = ["7", "8"]
    assert retriever.run_batch(key_tokens=[TOKENS, TOKENS], queries=queries)["documents"] == [[], []]
    with pytest.raises(DocumentStoreError) as caught:
        retriever.run_batch(key_tokens=[TOKENS, TOKENS, TOKENS], queries=["7", "seven", "8"])
    message = told(caught.value)
    assert f"{NAMES[kind]} at {make_store.url(kind)}" in message
    assert "seven" in message


@every_engine
async def test_a_pipeline_passes_on_what_is_wrong(kind, free_port, make_store, retriever_of):
    pipeline = Pipeline()
    url = f"http://admin:{PASSWORD}@127.0.0.1:{free_port}"
    pipeline.add_component("retriever", retriever_of(STORES[kind](hosts=url, index="any")))
    with pytest.raises((DocumentStoreError, PipelineRuntimeError)) as caught:
        pipeline.run({"retriever": {"key_tokens": TOKENS}})
    assert f"{NAMES[kind]} at http://127.0.0.1:{free_port} cannot be reached" in str(caught.value)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))

    pipeline = Pipeline()
    store = make_store(kind)
    pipeline.add_component("retriever", retriever_of(store))
    found = pipeline.run({"retriever": {"key_tokens": TOKENS}})["retriever"]
    assert found == {"documents": [], "key_tokens": TOKENS, "meta": {"empty": "No document has a token of the query."}}
    make_store.delete(kind, store._index)
    with pytest.raises(PipelineRuntimeError, match=re.escape(f"no index '{store._index}'")):
        pipeline.run({"retriever": {"key_tokens": TOKENS}})
