# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Indices that others have set up: what a rewrite respects, warns of, or refuses before it writes anything."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any
from urllib.error import HTTPError
from uuid import uuid4

import pytest
from helpers.live_index import assert_tokens, embedding_field, filled, through, two_engines, without
from nodes.stores import RawIndex, engine_of

from keytok_haystack.engines import MappingError
from keytok_haystack.engines.connection import document_store
from keytok_haystack.live_index import create_index, drop, dry_run, inspect_index, sample


@pytest.fixture
def alias_of(make_store) -> Callable[..., tuple[Any, str]]:
    """Makes an alias of an index: its document store, and its name."""

    def new(raw: RawIndex, **about: Any) -> tuple[Any, str]:
        alias = f"test-{uuid4().hex[:12]}"
        raw.ask("PUT", f"_alias/{alias}", json.dumps(about))
        return document_store(engine_of(raw.kind), make_store.url(raw.kind), alias), alias

    return new


@pytest.fixture
def of_engine(make_store) -> Iterator[Callable[..., RawIndex]]:
    """Returns what is seen of anything of an engine over HTTP, and removes it in the end."""
    made: list[tuple[RawIndex, str]] = []

    def raw(kind: str, name: str, removal: str | None = None) -> RawIndex:
        each = RawIndex(kind, make_store.url(kind), name)
        if removal is not None:
            made.append((each, removal))
        return each

    yield raw
    for each, path in reversed(made):
        with suppress(HTTPError):  # it was not made after all
            each.ask("DELETE", path)


# --- refused


REFUSED: dict[str, tuple[Mapping[str, Any], str]] = {
    "a block of writes": ({"blocks.write": True}, r"index\.blocks\.write is on"),
    "read only": ({"blocks.read_only": True}, r"index\.blocks\.read_only is on"),
    "a full disk": ({"blocks.read_only_allow_delete": True}, r"index\.blocks\.read_only_allow_delete is on"),
    "a final pipeline": ({"final_pipeline": "stamp"}, r"final pipeline 'stamp'.*set index\.final_pipeline to _none"),
}


@two_engines
@pytest.mark.parametrize("why", REFUSED)
def test_an_index_that_would_be_damaged_is_refused(
    kind, why, new_index, alias_of, sources, small_model, small_model_folder, keytok, make_store
):
    settings, message = REFUSED[why]
    (_, first), (_, raw) = new_index(kind, sources), new_index(kind, sources)
    mappings, versions = raw.mappings(), raw.versions()
    _, alias = alias_of(first)
    raw.ask("PUT", f"_alias/{alias}", "{}")
    raw.settings(**settings)
    for name in (raw.name, alias):
        either = document_store(engine_of(kind), make_store.url(kind), name)
        for attempt in (
            lambda store=either: filled(store, small_model),
            lambda store=either: dry_run(store, small_model),
            lambda store=either: inspect_index(store),
        ):
            with pytest.raises(MappingError, match=message) as caught:
                attempt()
            assert raw.name in str(caught.value)
    server = ("--engine", engine_of(kind), "--url", make_store.url(kind), "--index", raw.name)
    for further in ((), ("--yes",), ("--dry-run",)):
        code, out, err = keytok("backfill", *server, "--model", small_model_folder, *further)
        assert (code, out, err.count("\n")) == (2, "", 1), err
    raw.settings(**dict.fromkeys(settings, None))
    assert (raw.mappings(), raw.versions()) == (mappings, versions)
    assert "key_tokens" not in first.mappings()["properties"]


@two_engines
def test_a_closed_index_is_refused(kind, new_index, sources, small_model):
    store, raw = new_index(kind, sources)
    raw.ask("POST", "_close")
    with pytest.raises(MappingError, match="is closed: open it"):
        filled(store, small_model)


REBUILT = {
    "opensearch": {"index.derived_source.enabled": True},
    "elasticsearch-8": {"index.mapping.source.mode": "synthetic"},
    "elasticsearch-9": {"index.mapping.source.mode": "synthetic"},
}


@pytest.mark.parametrize("kind", REBUILT)
def test_documents_that_the_engine_rebuilds_are_not_written_back(kind, new_index, small_model):
    sources = {"a": json.dumps({"content": "shock", "embedding": [1.0] + [0.0] * 7})}
    content = {"type": "keyword"} if kind == "opensearch" else {"type": "text"}
    store, raw = new_index(kind, sources, settings=REBUILT[kind], properties={"content": content})
    with pytest.raises(MappingError, match="synthetic or derived `_source`"):
        filled(store, small_model)
    assert raw.versions() == {"a": 1}


@two_engines
@pytest.mark.parametrize("pattern", ["{name}*", "*", "_all", "{name},{name}", "{name},-{name}", "", "other:{name}"])
@pytest.mark.parametrize("command", ["backfill", "drop", "mapping"])
def test_a_rewrite_takes_the_name_of_one_index(
    kind, pattern, command, keytok, new_index, make_store, sources, small_model, small_model_folder
):
    store, raw = new_index(kind, sources)
    filled(store, small_model)
    mappings, versions = raw.mappings(), raw.versions()
    name = pattern.format(name=raw.name)
    server = ("--engine", engine_of(kind), "--url", make_store.url(kind), "--index", name)
    options = {
        "backfill": ("--yes", "--model", small_model_folder, "--field", "second"),
        "drop": ("--yes", "--field", "key_tokens"),
        "mapping": (small_model_folder, "--create", "--field", "second"),
    }[command]
    code, out, err = keytok(command, *server, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "name one index" in err or (name == "" and "--index" in err)
    assert (raw.mappings(), raw.versions()) == (mappings, versions)


@pytest.mark.parametrize(
    ("granted", "hidden"),
    [
        ([{}], False),
        ([{"field_security": [{"grant": ["*"]}]}], False),
        ([{"field_security": [{"grant": ["content", "embedding"]}]}], True),
        ([{"field_security": [{"grant": ["*"], "except": ["secret"]}]}], True),
        ([{"field_security": [{"grant": ["content"]}]}, {"names": ["test-*"]}], False),
        ([{"names": ["others-*"], "field_security": [{"grant": ["content"]}]}], False),
        ([], False),
    ],
)
def test_documents_that_credentials_see_in_part_are_not_written_back(
    granted, hidden, new_index, gate, sources, small_model
):
    """As the security features of Elasticsearch, which the node lacks, answer about a user."""
    _, raw = new_index("elasticsearch-9", sources)
    each = gate("elasticsearch-9")
    answer = {"indices": [{"names": ["*"], "privileges": ["all"], **entry} for entry in granted]}

    def asked(path: str, body: bytes) -> Any:
        return (200, "application/json", json.dumps(answer).encode()) if "_privileges" in path else None

    each.asked = asked
    store = through(each, "elasticsearch-9", raw)
    if not hidden:
        assert filled(store, small_model).written == len(sources)
        return
    with pytest.raises(MappingError, match=rf"{raw.name}.*field-level security.*use credentials that see all"):
        filled(store, small_model)
    assert set(raw.versions().values()) == {1}


# --- versions of an outside system


def written_with_versions(raw: RawIndex, sources: Mapping[str, str], version: int) -> None:
    for key, source in sources.items():
        raw.ask("PUT", f"_doc/{key}", source, version=str(version), version_type="external", refresh="false")


@two_engines
@pytest.mark.parametrize("version", [7, 1_790_000_000_000])
def test_versions_of_an_outside_system_are_kept_or_nothing_is_written(kind, version, new_index, sources, small_model):
    store, raw = new_index(kind)
    written_with_versions(raw, sources, version)
    for attempt in (
        lambda: filled(store, small_model),
        lambda: dry_run(store, small_model),
        lambda: filled(store, small_model, resume=True),
    ):
        with pytest.raises(MappingError, match=rf"outside system.*{version} of.*--keep-versions"):
            attempt()
    assert set(raw.versions().values()) == {version}
    assert "key_tokens" not in raw.mappings()["properties"]

    before = raw.sources()
    assert filled(store, small_model, keep_versions=True).written == len(sources)
    assert set(raw.versions().values()) == {version}
    for key, source in raw.sources().items():
        assert_tokens(small_model, source)
        assert without("key_tokens", source) == before[key]
    assert filled(store, small_model, keep_versions=True).written == 0
    written_with_versions(raw, {"7": sources["7"]}, version + 1)  # the next change of that system
    assert raw.versions()["7"] == version + 1
    assert drop(store, "key_tokens", keep_versions=True, progress_bar=False).written == len(sources) - 1
    assert raw.versions() == {key: version + (key == "7") for key in sources}


@two_engines
def test_a_change_under_a_newer_version_is_not_overwritten(kind, new_index, gate, sources, small_model):
    _, raw = new_index(kind)
    written_with_versions(raw, sources, 7)
    expected = raw.source("8")
    each = gate(kind)
    changed: list[str] = []

    def change(path: str, body: bytes) -> None:
        if "_bulk" in path and not changed:
            changed.append(path)
            written_with_versions(raw, {"7": sources["8"]}, 8)

    each.asked = change
    assert filled(through(each, kind, raw), small_model, keep_versions=True).written == len(sources)
    assert raw.versions() == {key: 8 if key == "7" else 7 for key in sources}
    assert without("key_tokens", raw.source("7")) == expected
    assert_tokens(small_model, raw.source("7"))


@two_engines
def test_a_few_documents_with_versions_of_their_own_are_named_and_left_alone(kind, new_index, sources, small_model):
    store, raw = new_index(kind, settings={"index.number_of_shards": 1})
    written_with_versions(raw, {"odd": sources["8"]}, 400)
    for _ in range(8):  # all that is there then has been written less often than the shard has been written to
        raw.write(sources)
    for key in list(sources)[5:]:
        raw.ask("DELETE", f"_doc/{key}")
    raw.ask("POST", "_refresh")
    report = filled(store, small_model)
    assert [(failure.id, failure.reason) for failure in report.failures] == [
        ("odd", "an outside system has set its version, 400")
    ]
    assert raw.versions() == {"odd": 400, **dict.fromkeys(list(sources)[:5], 9)}


@two_engines
def test_documents_that_are_often_changed_are_not_taken_for_it(kind, new_index, sources, small_model):
    store, raw = new_index(kind, settings={"index.number_of_shards": 2}, sources=sources)
    for _ in range(30):
        raw.write({"1": sources["1"], "2": sources["2"]})
    raw.ask("DELETE", "_doc/3", refresh="true")
    assert filled(store, small_model).written == len(sources) - 1


# --- what the engine does to documents on their way


@pytest.mark.slow
def test_a_search_pipeline_does_not_change_what_is_written_back(new_index, of_engine, sources, small_model, tmp_path):
    pipeline = f"test-{uuid4().hex[:8]}"
    of_engine("opensearch", "_search/pipeline", pipeline).ask(
        "PUT",
        pipeline,
        json.dumps({"response_processors": [{"rename_field": {"field": "title", "target_field": "owner"}}]}),
    )
    store, raw = new_index("opensearch", sources)
    before = raw.sources()
    raw.settings(**{"search.default_pipeline": pipeline})
    shown = json.loads(raw.ask("POST", "_search", '{"size": 1}'))["hits"]["hits"][0]["_source"]
    assert "owner" in shown
    assert f"read past its search pipeline '{pipeline}'" in " ".join(inspect_index(store).notes)
    assert dry_run(store, small_model).failures == []
    assert filled(store, small_model).written == len(sources)
    texts, _ = sample(store, 100, progress_bar=False)
    assert sorted(texts) == sorted(json.loads(source)["content"] for source in sources.values())
    assert drop(store, "key_tokens", progress_bar=False).written == len(sources)
    raw.settings(**{"search.default_pipeline": None})
    assert raw.sources() == before


@two_engines
def test_what_is_respected_is_told(kind, new_index, sources, small_model, small_model_folder, keytok, make_store):
    nested = {"type": "nested", "properties": {"text": {"type": "text"}}}
    store, raw = new_index(
        kind,
        settings={"index.sort.field": "rank", "index.default_pipeline": "mine"},
        properties={"rank": {"type": "integer"}, "parts": nested},
        _routing={"required": True},
    )
    documents = {
        key: json.dumps({**json.loads(source), "parts": [{"text": "shock"}, {"text": key}]}, separators=(",", ":"))
        for key, source in sources.items()
    }
    raw.write(documents, routing="one", pipeline="_none")
    before = {key: raw.source(key, routing="one") for key in sources}
    notes = " ".join(inspect_index(store).notes)
    for part in ("pipeline 'mine'", "keep their routing", "sorted by rank", "Nested documents"):
        assert part in notes
    server = ("--engine", engine_of(kind), "--url", make_store.url(kind), "--index", raw.name)
    code, out, err = keytok("backfill", *server, "--model", small_model_folder, "--dry-run")
    assert (code, err) == (0, "")
    assert "keep their routing" in out
    code, out, err = keytok("backfill", *server, "--model", small_model_folder, "--dry-run", "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert (shown["kind"], shown["indices"], shown["documents"]) == ("index", [raw.name], len(sources))
    assert filled(store, small_model).written == len(sources)
    for key in sources:
        found = raw.source(key, routing="one")
        assert_tokens(small_model, found)
        assert without("key_tokens", found) == before[key]
    query = {"query": {"nested": {"path": "parts", "query": {"match": {"parts.text": "7"}}}}}
    assert [hit["_id"] for hit in json.loads(raw.ask("POST", "_search", json.dumps(query)))["hits"]["hits"]] == ["7"]


# --- aliases, data streams and what comes next


@two_engines
@pytest.mark.parametrize("about", [{"filter": {"range": {"rank": {"lt": 10}}}}, {"search_routing": "one"}])
def test_what_an_alias_hides_keeps_its_tokens_and_their_model(
    kind, about, new_index, alias_of, sources, small_model, other_model
):
    store, raw = new_index(kind, properties={"rank": {"type": "integer"}}, settings={"index.number_of_shards": 5})
    raw.write(dict(list(sources.items())[:10]), routing="one")
    raw.write(dict(list(sources.items())[10:]), routing="two")
    assert filled(store, small_model).written == len(sources)
    partial, _ = alias_of(raw, **about)
    seen = inspect_index(partial)
    assert seen.is_partial
    assert seen.documents < len(sources)
    report = drop(partial, "key_tokens", progress_bar=False)
    assert report.written == seen.documents
    assert any("only part" in warning for warning in report.warnings)
    assert raw.mappings()["_meta"]["keytok"]["key_tokens"]["fingerprint"] == small_model.fingerprint
    with pytest.raises(MappingError, match=small_model.fingerprint):
        filled(store, other_model)
    assert filled(partial, small_model).written == seen.documents


def rolled_over(of_engine, kind: str, sources: Mapping[str, str], mappings: Mapping[str, Any]) -> tuple[str, RawIndex]:
    """An alias with a write index, and the template that makes the next one: its name, and what is seen of it."""
    name = f"test-{uuid4().hex[:8]}"
    template = {"index_patterns": [f"{name}-*"], "priority": 7, "template": {"mappings": mappings}}
    of_engine(kind, "_index_template", name).ask("PUT", name, json.dumps(template))
    of_engine(kind, f"{name}-000002", "")
    raw = of_engine(kind, f"{name}-000001", "")
    raw.ask("PUT", "", json.dumps({"aliases": {name: {"is_write_index": True}}}))
    of_engine(kind, name).write(sources)
    return name, of_engine(kind, name)


@two_engines
def test_the_next_index_behind_an_alias_gets_the_field_by_its_template(
    kind, of_engine, make_store, sources, small_model, small_model_folder, keytok
):
    mappings = {"properties": {"content": {"type": "text"}, "embedding": embedding_field(kind)}}
    if kind == "opensearch-knn":
        mappings["properties"]["embedding"] = {"type": "float"}
    name, raw = rolled_over(of_engine, kind, sources, mappings)
    store = document_store(engine_of(kind), make_store.url(kind), name)
    (warning,) = inspect_index(store).warnings
    assert f"'{name}-000002'" in warning
    assert f"--template` puts it into the index template '{name}'" in warning
    report = filled(store, small_model)
    assert (report.written, report.warnings) == (len(sources), [warning])

    server = ("--engine", engine_of(kind), "--url", make_store.url(kind), "--index", name)
    code, out, err = keytok("mapping", small_model_folder, *server, "--create", "--template")
    assert (code, err) == (0, ""), err
    assert f"index template '{name}' has it, too" in out
    described = json.loads(of_engine(kind, "_index_template").ask("GET", name))["index_templates"][0]["index_template"]
    kept = described["template"]["mappings"]["properties"]
    assert {key: kept[key] for key in mappings["properties"]} == mappings["properties"]
    assert kept.keys() == {*mappings["properties"], "key_tokens"}
    assert inspect_index(store).warnings == []
    raw.ask("POST", "_rollover")
    described = json.loads(raw.ask("GET", "_mapping"))
    assert described.keys() == {f"{name}-000001", f"{name}-000002"}
    for index in described.values():
        assert index["mappings"]["_meta"]["keytok"]["key_tokens"]["fingerprint"] == small_model.fingerprint
    raw.write({"new": sources["7"]})
    assert filled(store, small_model).written == 1
    assert create_index(store, small_model, template=True).change == "kept"


@two_engines
def test_an_index_that_nothing_follows_has_no_template_to_extend(kind, new_index, small_model, sources):
    store, raw = new_index(kind, sources)
    before = raw.mappings()
    with pytest.raises(MappingError, match="--template is for a data stream"):
        create_index(store, small_model, template=True)
    assert raw.mappings() == before


@pytest.mark.parametrize("kind", ["opensearch", "elasticsearch-9"])
def test_a_data_stream_is_filled_with_all_its_indices(kind, of_engine, make_store, sources, small_model):
    name = f"test-{uuid4().hex[:8]}"
    template = {
        "index_patterns": [f"{name}*"],
        "data_stream": {},
        "template": {"mappings": {"properties": {"content": {"type": "text"}, "embedding": {"type": "float"}}}},
    }
    of_engine(kind, "_index_template", name).ask("PUT", name, json.dumps(template))
    raw = of_engine(kind, name)
    for half in (dict(list(sources.items())[:30]), dict(list(sources.items())[30:])):
        lines = [
            line
            for key, source in half.items()
            for line in (json.dumps({"create": {"_id": key}}), source[:-1] + ',"@timestamp":"2026-11-30T12:00:00Z"}')
        ]
        assert not json.loads(raw.ask("POST", "_bulk", "\n".join([*lines, ""]), refresh="true"))["errors"]
        raw.ask("POST", "_rollover")
    store = document_store(engine_of(kind), make_store.url(kind), name)
    inspection = inspect_index(store)
    assert (inspection.kind, len(inspection.mappings), inspection.documents) == ("data stream", 3, len(sources))
    assert f"puts it into the index template '{name}'" in inspection.warnings[0]
    assert create_index(store, small_model, template=True).template == name
    report = filled(store, small_model)
    assert (report.written, report.warnings) == (len(sources), [])
    raw.ask("POST", "_rollover")
    for index in json.loads(raw.ask("GET", "_mapping")).values():
        assert "key_tokens" in index["mappings"]["properties"]
    whole = {"_source": {"exclude_vectors": False}} if kind == "elasticsearch-9" else {}
    hits = json.loads(raw.ask("POST", "_search", json.dumps({"size": 100, **whole})))["hits"]["hits"]
    assert len(hits) == len(sources)
    for hit in hits:
        assert_tokens(small_model, json.dumps(hit["_source"]))
    assert filled(store, small_model).written == 0


# --- asking before


class Terminal:
    """A person who gives one answer."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self, *_: object) -> str:
        return f"{self.answer}\n"


@two_engines
@pytest.mark.parametrize("answer", ["n", "y", None])
def test_commands_ask_before_they_rewrite(
    kind, answer, keytok, new_index, make_store, sources, small_model, small_model_folder, monkeypatch
):
    _, raw = new_index(kind, sources)
    server = ("--engine", engine_of(kind), "--url", make_store.url(kind), "--index", raw.name)
    versions = raw.versions()
    if answer is not None:
        monkeypatch.setattr("sys.stdin", Terminal(answer))
    code, out, err = keytok("backfill", *server, "--model", small_model_folder)
    assert f"In 60 documents of the index '{raw.name}', 'key_tokens' will be written anew" in err + out
    if answer == "y":
        assert code == 0
        assert set(raw.versions().values()) == {2}
        code, out, err = keytok("drop", *server, "--field", "key_tokens")
        assert code == 0
        assert "'key_tokens' will be removed" in err + out
        assert set(raw.versions().values()) == {3}
    else:
        assert code == (1 if answer == "n" else 2)
        assert ("Nothing was changed" if answer == "n" else "Confirm it with --yes") in err
        assert raw.versions() == versions
        assert "key_tokens" not in raw.mappings()["properties"]
