# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""`keytok mapping`: prints an index's definition, creates the index, or adds the field to one that exists."""

import json
import socket
from contextlib import ExitStack
from uuid import uuid4

import pytest
from haystack import Document
from haystack_integrations.document_stores.elasticsearch import ElasticsearchDocumentStore
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from nodes.stores import DENSE_STORES, ENGINE_STORES, connection_to, engine_of

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import index_definition

KINDS = ("opensearch-knn", "elasticsearch-9")
"""Enough where all engines do the same."""
FIELD_TYPE = {"opensearch-knn": "rank_features", "elasticsearch-9": "sparse_vector"}
PASSWORD = "hunter2"


class Index:
    """An index of its own on an engine, which need not exist yet."""

    def __init__(self, kind: str, url: str, name: str) -> None:
        self.kind, self.url, self.name = kind, url, name
        self.server = ("--engine", engine_of(kind), "--create", "--url", url, "--index", name)
        if kind not in DENSE_STORES:
            self.server += ("--no-dense",)

    def call(self, method: str, **arguments):
        with connection_to(engine_of(self.kind), self.url, self.name) as connection:
            return getattr(connection.client.indices, method)(**{"index": self.name, **arguments})

    def create(self, **body) -> None:
        body.setdefault("settings", {})["index.number_of_replicas"] = 0
        self.call("create", body=body)

    @property
    def live(self) -> dict:
        """All that the engine says of the index, but for a count of its changes."""
        (described,) = self.call("get").values()
        described["settings"]["index"].pop("version")
        return described

    @property
    def mappings(self) -> dict:
        return self.live["mappings"]


@pytest.fixture
def new_index(make_store):
    with ExitStack() as cleanup:

        def new(kind: str, name: str | None = None) -> Index:
            index = Index(kind, make_store.url(kind), name or f"test-{uuid4().hex}")
            cleanup.callback(make_store.delete, kind, index.name)
            return index

        yield new


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def described(model: KeyTokenModel) -> dict:
    return {"fingerprint": model.fingerprint, "embedder": model.embedder}


def failed(result: tuple[int, str, str]) -> str:
    """The one line that a command wrote which could not do what it was asked."""
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize(
    ("arguments", "dimension", "options"),
    [
        ((), 8, {}),
        (("--no-dense",), None, {}),
        (("--no-graph",), 8, {"graph": False}),
        (("--lean",), 8, {"lean": True}),
        (("--field", "keys_v2"), 8, {"field": "keys_v2"}),
    ],
)
def test_the_definition_is_printed_as_json(
    keytok, engine, arguments, dimension, options, small_model, small_model_folder
):
    code, out, err = keytok("mapping", small_model_folder, "--engine", engine, *arguments)
    assert (code, err) == (0, "")
    assert json.loads(out) == index_definition(engine, dimension, small_model, **options)


def test_an_index_without_create_is_refused(keytok, small_model_folder):
    assert "--create" in failed(keytok("mapping", small_model_folder, "--engine", "opensearch", "--index", "a"))


@pytest.mark.parametrize(("kind", "excluded"), [("elasticsearch-8", False), ("elasticsearch-9", True)])
def test_what_is_printed_fits_the_version_of_the_server(keytok, make_store, small_model_folder, kind, excluded):
    code, out, _ = keytok("mapping", small_model_folder, "--engine", "elasticsearch", "--url", make_store.url(kind))
    assert code == 0
    assert ("index.mapping.exclude_source_vectors" in json.loads(out)["settings"]) == excluded


@pytest.mark.parametrize("kind", ["elasticsearch-8", "elasticsearch-9"])
def test_an_index_that_leaves_vectors_out_is_told_so(keytok, new_index, kind, small_model_folder):
    index = new_index(kind)
    index.create(mappings={})
    code, out, _ = keytok("mapping", small_model_folder, *index.server)
    assert code == 0
    assert ("leaves vectors out" in out) == (kind == "elasticsearch-9")


@pytest.mark.parametrize("kind", ENGINE_STORES)
def test_a_new_index_is_ready_for_documents(keytok, new_index, kind, small_model, small_model_folder, caplog):
    index = new_index(kind)
    code, out, err = keytok("mapping", small_model_folder, *index.server)
    assert (code, err, out.count("\n")) == (0, "", 1)
    for part in ("Created", f"'{index.name}'", "'key_tokens'", small_model.fingerprint):
        assert part in out
    assert index.mappings["_meta"] == {"keytok": {"key_tokens": described(small_model)}}
    assert ("embedding" in index.mappings["properties"]) is (kind in DENSE_STORES)
    settings = index.live["settings"]["index"]
    assert "codec" not in settings
    kept = settings.get("mapping", {}).get("exclude_source_vectors")
    assert kept == ("false" if kind == "elasticsearch-9" else None)

    index.call("put_settings", body={"index.refresh_interval": "50ms"})
    store_class = OpenSearchDocumentStore if engine_of(kind) == "opensearch" else ElasticsearchDocumentStore
    store = store_class(hosts=index.url, index=index.name)
    embedding = [0.5] * 8 if kind in DENSE_STORES else None
    store.write_documents([Document(id="a", embedding=embedding, meta={"key_tokens": {"shock": 0.5}})])
    retriever = SparseRetriever(store, model=small_model_folder)
    (hit,) = retriever.run(key_tokens={"shock": 1.0})["documents"]
    assert (hit.id, hit.score, hit.meta["matched_tokens"][0]["token"]) == ("a", 0.5, "shock")
    assert "model" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["key_tokens", "vectors.keys"])
def test_an_index_that_has_the_field_is_kept(keytok, new_index, kind, field, small_model, small_model_folder):
    index = new_index(kind)
    arguments = ("mapping", small_model_folder, *index.server, "--field", field)
    assert keytok(*arguments)[0] == 0
    before = index.live
    code, out, err = keytok(*arguments)
    assert (code, err, out.count("\n")) == (0, "", 1)
    for part in ("already", f"'{index.name}'", f"'{field}'", small_model.fingerprint):
        assert part in out
    assert index.live == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_is_added_to_an_index_that_exists(keytok, new_index, kind, small_model, small_model_folder):
    index = new_index(kind)
    index.create(
        settings={"index.refresh_interval": "7s", "index.number_of_shards": 2},
        mappings={
            "dynamic": "strict",
            "_source": {"excludes": ["secret"]},
            "_meta": {"owner": "us", "keytok": {"splade": {"fingerprint": "f00d"}}},
            "properties": {"title": {"type": "text"}, "splade": {"type": FIELD_TYPE[kind]}},
        },
        aliases={f"{index.name}-alias": {"filter": {"term": {"title": "a"}}}},
    )
    expected = index.live
    code, out, err = keytok("mapping", small_model_folder, *index.server)
    assert (code, err, out.count("\n")) == (0, "", 1)
    for part in ("Added", f"'{index.name}'", "'key_tokens'", small_model.fingerprint):
        assert part in out
    expected["mappings"]["properties"]["key_tokens"] = {"type": FIELD_TYPE[kind]}
    expected["mappings"]["_meta"]["keytok"]["key_tokens"] = described(small_model)
    assert index.live == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_is_added_to_an_index_without_any_mapping(keytok, new_index, kind, small_model, small_model_folder):
    index = new_index(kind)
    index.create()
    assert keytok("mapping", small_model_folder, *index.server)[0] == 0
    assert index.mappings == {
        "_meta": {"keytok": {"key_tokens": described(small_model)}},
        "properties": {"key_tokens": {"type": FIELD_TYPE[kind]}},
    }


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("opensearch-knn", {}),
        ("elasticsearch-9", {}),
        ("elasticsearch-9", {"index_options": {"prune": False}}),
        ("elasticsearch-9", {"store": True}),
    ],
)
@pytest.mark.parametrize("meta", [{}, {"owner": "us"}])
def test_a_field_whose_model_is_not_said_stays_and_gets_it_said(
    keytok, new_index, kind, options, meta, small_model, small_model_folder
):
    index = new_index(kind)
    field = {"type": FIELD_TYPE[kind], **options}
    index.create(mappings={"_meta": meta, "properties": {"key_tokens": field, "content": {"type": "keyword"}}})
    expected = index.live
    code, out, err = keytok("mapping", small_model_folder, *index.server)
    assert (code, err) == (0, "")
    assert small_model.fingerprint in out
    assert "Added the field" not in out  # which was there
    expected["mappings"]["_meta"] = {**meta, "keytok": {"key_tokens": described(small_model)}}
    assert index.live == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["key_tokens", "vectors.keys"])
def test_a_field_of_another_model_is_refused_and_its_remedy_works(
    keytok, new_index, kind, field, small_model, small_model_folder, other_model, other_model_folder
):
    index = new_index(kind)
    assert keytok("mapping", small_model_folder, *index.server, "--field", field)[0] == 0
    before = index.live
    message = failed(keytok("mapping", other_model_folder, *index.server, "--field", field))
    remedy = f"--field {field}_v2"
    for part in (f"'{index.name}'", f"'{field}'", small_model.fingerprint, other_model.fingerprint, remedy):
        assert part in message
    assert index.live == before

    assert keytok("mapping", other_model_folder, *index.server, *remedy.split())[0] == 0
    assert index.mappings["_meta"]["keytok"] == {field: described(small_model), f"{field}_v2": described(other_model)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_of_another_type_is_refused(keytok, new_index, kind, small_model_folder):
    index = new_index(kind)
    index.create(mappings={"properties": {"key_tokens": {"properties": {"shock": {"type": "float"}}}}})
    before = index.live
    message = failed(keytok("mapping", small_model_folder, *index.server))
    for part in (f"'{index.name}'", "'key_tokens'", "'object'"):
        assert part in message
    assert index.live == before


@pytest.mark.parametrize("kind", KINDS)
def test_the_field_is_added_to_all_indices_of_an_alias(keytok, new_index, kind, small_model, small_model_folder):
    alias = f"test-{uuid4().hex}"
    first, second = (new_index(kind, f"{alias}-{i}") for i in range(2))
    first.create(mappings={"properties": {"title": {"type": "text"}}}, aliases={alias: {}})
    second.create(mappings={"_meta": {"owner": "us"}}, aliases={alias: {}})
    arguments = ("mapping", small_model_folder, *Index(kind, first.url, alias).server)
    code, out, _ = keytok(*arguments)
    assert code == 0
    assert "Added" in out
    assert first.mappings["properties"] == {"title": {"type": "text"}, "key_tokens": {"type": FIELD_TYPE[kind]}}
    assert first.mappings["_meta"] == {"keytok": {"key_tokens": described(small_model)}}
    assert second.mappings["properties"] == {"key_tokens": {"type": FIELD_TYPE[kind]}}
    assert second.mappings["_meta"] == {"owner": "us", "keytok": {"key_tokens": described(small_model)}}
    assert "already" in keytok(*arguments)[1]


@pytest.mark.parametrize("kind", KINDS)
def test_no_index_of_an_alias_is_changed_if_one_is_refused(
    keytok, new_index, kind, small_model_folder, other_model, other_model_folder
):
    alias = f"test-{uuid4().hex}"
    indices = [new_index(kind, f"{alias}-{i}") for i in range(3)]
    for index in indices:
        index.create(aliases={alias: {}})
    refused = indices[1]
    assert keytok("mapping", other_model_folder, *refused.server)[0] == 0
    before = [index.live for index in indices]
    message = failed(keytok("mapping", small_model_folder, *Index(kind, refused.url, alias).server))
    assert f"'{refused.name}'" in message
    assert other_model.fingerprint in message
    assert [index.live for index in indices] == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_pattern_that_no_index_matches_is_not_said_to_have_the_field(keytok, make_store, kind, small_model_folder):
    index = Index(kind, make_store.url(kind), f"test-{uuid4().hex}-*")
    message = failed(keytok("mapping", small_model_folder, *index.server))
    assert index.name in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--index", "Upper Case"), "Upper Case"),
        (("--index", ""), "index"),
        (("--field", "_id"), "_id"),
        (("--field", ""), "field"),
        (("--field", "content"), "content"),
    ],
)
def test_a_name_that_cannot_be_is_refused(keytok, new_index, kind, arguments, part, small_model_folder):
    index = new_index(kind)
    assert part in failed(keytok("mapping", small_model_folder, *index.server, *arguments)).replace(index.name, "")
    assert not index.call("exists")


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("{model} --engine opensearch --create", "--url"),
        ("{model} --engine opensearch --create --url {down}", "--index"),
        ("{model} --engine elasticsearch --create --index a", "--url"),
        ("{model} --engine opensearch --create --url {down} --index a", "OpenSearch at {down} cannot be reached"),
        ("{model} --engine elasticsearch --create --url {down} --index a", "Elasticsearch at {down} cannot be reached"),
        ("{model} --engine opensearch --create --url http://no.invalid:9200 --index a", "no.invalid"),
        ("{model} --engine elasticsearch --create --url http://no.invalid:9200 --index a", "no.invalid"),
        ("{model} --engine elasticsearch --create --url localhost --index a", "such as http://localhost:9200"),
        ("{model} --engine opensearch --create --url ftp://127.0.0.1:9 --index a", "127.0.0.1"),
        ("{model} --engine solr", "'solr'"),
        ("{model}", "--engine"),
        ("no/such --engine opensearch", "no/such"),
        ("--engine opensearch", "model"),
    ],
)
def test_bad_input_is_one_line(keytok, line, part, free_port, small_model_folder):
    names = {"model": small_model_folder, "down": f"http://127.0.0.1:{free_port}"}
    message = failed(keytok("mapping", *line.format(**names).split()))
    assert part.format(**names).lower() in message.lower()


def test_elasticsearch_on_the_address_of_opensearch_is_told_so(keytok, new_index, small_model_folder):
    index = new_index("opensearch-knn")
    arguments = [{"opensearch": "elasticsearch"}.get(argument, argument) for argument in index.server]
    message = failed(keytok("mapping", small_model_folder, *arguments))
    assert index.url in message
    assert "not Elasticsearch" in message
    assert "HTTP status 200" not in message  # which is no failure
    assert not index.call("exists")


@pytest.mark.parametrize("kind", ["elasticsearch-9", "elasticsearch-7"])
def test_opensearch_on_the_address_of_elasticsearch_is_told_so(keytok, new_index, kind, small_model_folder):
    index = new_index(kind)
    arguments = [{"elasticsearch": "opensearch"}.get(argument, argument) for argument in index.server]
    message = failed(keytok("mapping", small_model_folder, *arguments))
    assert index.url in message
    assert "not OpenSearch" in message
    assert not index.call("exists")


@pytest.mark.parametrize("kind", ["opensearch", "elasticsearch-7"])  # without the k-NN plugin, and too old
def test_where_dense_vectors_cannot_be_the_option_that_leaves_them_out_is_named(
    keytok, new_index, kind, small_model_folder
):
    index = new_index(kind)
    arguments = [argument for argument in index.server if argument != "--no-dense"]
    assert "--no-dense" in failed(keytok("mapping", small_model_folder, *arguments))
    assert not index.call("exists")


@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize(
    "url",
    [
        f"http://admin:{PASSWORD}@127.0.0.1:{{port}}",
        f"http://admin:{PASSWORD}@127.0.0.1:{{port}}/path?query",
        f"http://admin:with@{PASSWORD}@127.0.0.1:{{port}}",
        f"http://admin:with/{PASSWORD}@127.0.0.1:{{port}}",
        f"http://admin:{PASSWORD}/with@127.0.0.1:{{port}}",
        f"http://admin:{PASSWORD}#with@127.0.0.1:{{port}}",
        f"http://admin:{PASSWORD}@127.0.0.1:port",
        f"http://admin:{PASSWORD}@127.0.0.1",
        f"http://admin:{PASSWORD}@[::1",
        f"admin:{PASSWORD}@127.0.0.1:{{port}}",
    ],
)
def test_the_password_of_the_url_is_never_shown(keytok, engine, url, free_port, small_model_folder, caplog):
    server = ("--engine", engine, "--create", "--url", url.format(port=free_port), "--index", "test-none")
    assert PASSWORD not in failed(keytok("mapping", small_model_folder, *server))
    assert PASSWORD not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_password_of_the_url_is_not_shown_where_the_server_answers(keytok, new_index, kind, small_model_folder):
    index = new_index(kind)
    url = index.url.replace("://", f"://admin:{PASSWORD}@")
    server = [url if argument == index.url else argument for argument in index.server]
    assert PASSWORD not in "".join(map(str, keytok("mapping", small_model_folder, *server)))
    assert PASSWORD not in failed(keytok("mapping", small_model_folder, *server, "--index", "Upper Case"))


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9"])
def test_lean_is_for_a_new_index(keytok, new_index, kind, small_model_folder):
    index = new_index(kind)
    code, out, _ = keytok("mapping", small_model_folder, *index.server, "--lean")
    assert (code, "--lean" in out) == (0, False)
    other = new_index(kind)
    other.create(mappings={})
    code, out, _ = keytok("mapping", small_model_folder, *other.server, "--lean")
    assert code == 0
    assert "--lean changes nothing" in out
