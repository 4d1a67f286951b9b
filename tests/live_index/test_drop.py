# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Key tokens are dropped from an index."""

import json
from uuid import uuid4

import pytest
from helpers.live_index import assert_tokens, every_engine, filled, through, two_engines, without

from keytok_haystack.engines import MappingError
from keytok_haystack.live_index import Fields, drop

PAGE = 25


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Few documents are many pages."""
    monkeypatch.setattr("keytok_haystack.live_index.scan.PAGE", PAGE)


@every_engine
def test_a_dropped_field_is_gone_from_all_documents_and_free(kind, new_index, sources, small_model, other_model):
    store, raw = new_index(kind, sources)
    before = raw.sources()
    filled(store, small_model)
    filled(store, small_model, Fields(key_tokens="second"))
    report = drop(store, "key_tokens", progress_bar=False)
    assert (report.documents, report.written, report.failed) == (60, 60, 0)
    for key, source in raw.sources().items():
        assert without("second", source) == before[key]
        assert_tokens(small_model, source, "second")
    assert raw.mappings()["_meta"]["keytok"].keys() == {"second"}
    numbers = raw.versions()
    report = drop(store, "key_tokens", progress_bar=False)
    assert (report.written, report.already) == (0, 60)
    assert raw.versions() == numbers
    filled(store, other_model)
    for source in raw.sources().values():
        assert_tokens(other_model, source)
        assert_tokens(small_model, source, "second")


@two_engines
@pytest.mark.parametrize("field", ["content", "title", "embedding", "none", "_id", ""])
def test_only_fields_of_key_tokens_are_dropped(kind, field, new_index, sources):
    store, raw = new_index(kind, sources)
    before = raw.mappings(), raw.versions()
    with pytest.raises(ValueError, match=f"'{field}'"):
        drop(store, field, progress_bar=False)
    assert (raw.mappings(), raw.versions()) == before


@two_engines
def test_a_field_inside_of_another_is_dropped_or_refused(kind, new_index, small_model):
    tokens = {"type": "sparse_vector" if kind == "elasticsearch-9" else "rank_features"}
    noted = {"keytok": {"vectors.keys": {"fingerprint": small_model.fingerprint}}}
    properties = {"vectors": {"properties": {"keys": tokens}}}
    store, raw = new_index(kind, {"a": '{"vectors":{"keys":{"shock":1.0}}}'}, properties=properties, _meta=noted)
    try:
        report = drop(store, "vectors.keys", progress_bar=False)
    except (MappingError, ValueError):
        assert raw.mappings()["_meta"] == noted
    else:
        assert report.written == 1
        assert "shock" not in raw.source("a")


@two_engines
def test_a_field_that_some_documents_still_have_is_not_free(kind, new_index, gate, sources, small_model):
    store, raw = new_index(kind, sources)
    filled(store, small_model)
    each = gate(kind)

    def change(path: str, body: bytes) -> None:
        if "_bulk" in path and b'"_id":"7"' in body:
            raw.ask("POST", "_update/7", json.dumps({"doc": {"count": uuid4().hex}}))

    each.asked = change
    report = drop(through(each, kind, raw), "key_tokens", progress_bar=False)
    assert [failure.id for failure in report.failures] == ["7"]
    assert raw.mappings()["_meta"]["keytok"]["key_tokens"]["fingerprint"] == small_model.fingerprint
    assert drop(store, "key_tokens", progress_bar=False).written == 1
    assert not raw.mappings()["_meta"]["keytok"]
