# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Indices and names that do not fit are refused before anything is written."""

from typing import Any
from uuid import uuid4

import pytest
from haystack.document_stores.in_memory import InMemoryDocumentStore
from helpers.live_index import PLAIN, embedding_field, filled, two_engines
from nodes.stores import RawIndex, engine_of

from keytok_haystack.engines import MappingError
from keytok_haystack.engines.connection import document_store
from keytok_haystack.live_index import Fields, backfill, drop, dry_run, sample

PASSWORD = "hunter2"


REFUSED: dict[str, tuple[dict[str, Any], dict[str, str], list[str]]] = {
    "no such field": ({}, {"embedding": "vector"}, ["no field 'vector'", "'embedding'", "--embedding-field"]),
    "wrong dimension": ({"embedding": {"dims": 4, "dimension": 4}}, {}, ["'embedding'", " 4 dimensions", " 8"]),
    "another type": ({"properties": {"key_tokens": {"type": "keyword"}}}, {}, ["'key_tokens'", "'keyword'"]),
    "an object": ({"properties": {"key_tokens": PLAIN}}, {}, ["'key_tokens'", "'object'"]),
    "another model": (
        {"_meta": {"keytok": {"key_tokens": {"fingerprint": "f00d"}}}, "properties": {"key_tokens": {}}},
        {},
        ["f00d", "{fingerprint}", "--field key_tokens_v2"],
    ),
    "no source": ({"_source": {"enabled": False}}, {}, ["_source"]),
    "a part of the source": ({"_source": {"excludes": ["secret"]}}, {}, ["_source"]),
    "some of the source": ({"_source": {"includes": ["content", "embedding"]}}, {}, ["_source"]),
}


@two_engines
@pytest.mark.parametrize("why", REFUSED)
def test_an_index_that_does_not_fit_is_refused_before_anything_is_written(
    kind, why, keytok, new_index, make_store, small_model, small_model_folder
):
    mapping, fields, parts = REFUSED[why]
    mapping = dict(mapping)
    properties = {
        name: about or {"type": "sparse_vector" if kind == "elasticsearch-9" else "rank_features"}
        for name, about in mapping.pop("properties", {}).items()
    }
    if dimension := mapping.pop("embedding", None):
        name = "dimension" if kind == "opensearch-knn" else "dims"
        properties["embedding"] = embedding_field(kind, **{name: dimension[name]})
    _, raw = new_index(kind, {"a": '{"content": "shock"}'}, properties=properties, **mapping)
    mappings, numbers = raw.mappings(), raw.versions()
    server = ("--engine", engine_of(kind), "--url", make_store.url(kind), "--index", raw.name)
    options = [part for name, value in fields.items() for part in (f"--{name}-field", value)]
    for further in ((), ("--dry-run",), ("--resume",)):
        code, out, err = keytok("backfill", *server, "--model", small_model_folder, *options, *further)
        assert (code, out, err.count("\n")) == (2, "", 1), (further, code, out, err)
        for part in (raw.name, *parts):
            assert part.format(fingerprint=small_model.fingerprint) in err
    assert (raw.mappings(), raw.versions()) == (mappings, numbers)


@two_engines
def test_no_index_of_an_alias_is_changed_if_one_does_not_fit(kind, new_index, make_store, small_model):
    alias = f"test-{uuid4().hex[:12]}"
    other = embedding_field(kind, **{"dimension" if kind == "opensearch-knn" else "dims": 4})
    indices = [new_index(kind)[1], new_index(kind, properties={"embedding": other})[1], new_index(kind)[1]]
    for raw in indices:
        raw.ask("PUT", f"_alias/{alias}", "{}")
    before = [raw.mappings() for raw in indices]
    with pytest.raises(MappingError, match=r"different dimensions: \[4, 8\]"):
        filled(document_store(engine_of(kind), make_store.url(kind), alias), small_model)
    assert [raw.mappings() for raw in indices] == before


@two_engines
@pytest.mark.parametrize("command", ["backfill", "drop", "fit"])
def test_an_index_that_is_not_there_is_not_made(kind, command, keytok, make_store, small_model_folder, tmp_path):
    index = f"test-{uuid4().hex}"
    url = make_store.url(kind).replace("://", f"://admin:{PASSWORD}@")
    server = ("--engine", engine_of(kind), "--url", url, "--index", index)
    options = {
        "backfill": ("--model", small_model_folder),
        "drop": ("--field", "key_tokens"),
        "fit": ("--output", tmp_path / "model"),
    }[command]
    code, out, err = keytok(command, *server, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"no index '{index}'" in err
    assert make_store.url(kind) in err
    assert PASSWORD not in err
    assert index.encode() not in RawIndex(kind, make_store.url(kind), "_cat").ask("GET", "indices")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("kind", ["opensearch-knn", "elasticsearch-9", "elasticsearch-7"])
def test_the_other_engine_is_told_so(kind, keytok, new_index, make_store, sources, small_model_folder):
    _, raw = new_index(kind, sources)
    wrong = {"opensearch": "elasticsearch", "elasticsearch": "opensearch"}[engine_of(kind)]
    mappings, numbers = raw.mappings(), raw.versions()
    server = ("--engine", wrong, "--url", make_store.url(kind), "--index", raw.name)
    code, out, err = keytok("backfill", *server, "--model", small_model_folder)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"is not {'OpenSearch' if wrong == 'opensearch' else 'Elasticsearch'}" in err
    assert (raw.mappings(), raw.versions()) == (mappings, numbers)


def test_other_stores_are_refused(small_model):
    for call in (
        lambda store: backfill(store, small_model),
        lambda store: dry_run(store, small_model),
        lambda store: drop(store, "key_tokens"),
        lambda store: sample(store, 10),
    ):
        with pytest.raises(TypeError, match="InMemoryDocumentStore"):
            call(InMemoryDocumentStore())


@pytest.mark.parametrize(
    "names",
    [
        {"key_tokens": "vectors.keys"},
        {"embedding": "vectors.dense"},
        {"content": "text.body"},
        {"key_tokens": "text", "content": "text"},
        {"embedding": "text", "content": "text"},
        {"key_tokens": "content", "content": "text"},
        {"key_tokens": ""},
        {"embedding": ""},
    ],
)
def test_names_that_cannot_be_fields_of_their_own_are_refused(names):
    with pytest.raises(ValueError, match=r"not a field at the root|must be three different fields|cannot be '"):
        Fields(**names)
