# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""`keytok backfill` while processes, nodes, connections and indices fail: what is lost, and what is said."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from haystack.document_stores.errors import DocumentStoreError
from nodes.gate import Gate
from nodes.stores import RawIndex, StoreFactory, engine_of

from keytok_haystack import KeyTokenModel
from keytok_haystack.engines.connection import document_store
from keytok_haystack.live_index import RewriteReport, backfill
from keytok_haystack.sparse_vectors.rank_features import truncate_weights

KINDS = ("opensearch-knn", "elasticsearch-9")
DOCUMENTS, PAGE = 200, 10
PASSWORD = "hunter2"
SCANS = {"opensearch-knn": ("point_in_time", "pit_id"), "elasticsearch-9": ("scroll", "_scroll_id")}

every_engine = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Few documents are many pages."""
    monkeypatch.setattr("keytok_haystack.live_index.scan.PAGE", PAGE)


class Scene:
    """
    An index with documents that have no key tokens, and a gate before its engine.

    :param kind: The engine.
    :param factory: What makes the index.
    :param texts: The texts, which repeat.
    :param embeddings: Their embeddings, which repeat with noise.
    """

    def __init__(self, kind: str, factory: StoreFactory, texts: list[str], embeddings: np.ndarray) -> None:
        self.kind = kind
        definition = factory.definition(kind, dimension=8, model=None, field="key_tokens")
        del definition["mappings"]["properties"]["key_tokens"]
        definition["mappings"]["properties"]["odd"] = {"dynamic": False, "properties": {}}
        store = factory(kind, definition=definition)
        self.raw = RawIndex(kind, factory.url(kind), store._index)
        random = np.random.default_rng(3)
        self.embeddings = embeddings[np.arange(DOCUMENTS) % len(texts)] + 0.1 * random.normal(size=(DOCUMENTS, 8))
        sources = {
            str(i): {
                "content": texts[i % len(texts)],
                "embedding": embedding,
                "odd": {"number": "none" if i == 7 else i},
            }
            for i, embedding in enumerate(self.embeddings.tolist())
        }
        self.raw.write({key: json.dumps(source) for key, source in sources.items()})
        self.gate = Gate(factory.url(kind))

    @property
    def server(self) -> tuple[str, ...]:
        """The options of the command that lead through the gate."""
        return ("--engine", engine_of(self.kind), "--url", self.gate.url, "--index", self.raw.name)

    def backfill(self, model: KeyTokenModel, patience: float = 60) -> RewriteReport:
        store = document_store(engine_of(self.kind), self.gate.url, self.raw.name)
        report = backfill(store, model, patience=patience, progress_bar=False)
        parts = (report.written, report.already, report.without_embedding, report.failed)
        assert (report.documents, sum(parts)) == (DOCUMENTS, DOCUMENTS), report
        return report

    def at_bulk(self, number: int, act: Callable[[], Any]) -> None:
        """Act when a bulk request of this number has arrived at the gate, before it goes on."""
        seen: list[str] = []
        lock = threading.Lock()

        def asked(path: str, body: bytes) -> Any:
            if "_bulk" not in path:
                return None
            with lock:
                seen.append(path)
                return act() if len(seen) == number else None

        self.gate.asked = asked

    def assert_whole(self, model: KeyTokenModel, *, but: set[str] = frozenset()) -> None:
        """Assert that all documents have their fields and the right key tokens, and were written for them once."""
        versions = self.raw.versions()
        assert versions == {str(i): 1 if str(i) in but else 2 for i in range(DOCUMENTS)}
        documents = {key: json.loads(source) for key, source in self.raw.sources().items()}
        stored = np.array([documents[str(i)]["embedding"] for i in range(DOCUMENTS)], np.float32)
        np.testing.assert_allclose(stored, self.embeddings, rtol=1e-6)
        texts = [documents[str(i)]["content"] for i in range(DOCUMENTS)]
        expected = model.document_tokens(model.encode_documents(stored, texts))
        for i, tokens in enumerate(expected):
            found = documents[str(i)].get("key_tokens")
            if str(i) in but:
                assert found is None
            else:
                assert found.keys() == tokens.keys()
                weights = truncate_weights([found[key] for key in tokens])
                assert weights.tolist() == truncate_weights(list(tokens.values())).tolist()


@pytest.fixture
def scene(kind, make_store, small_texts, small_embeddings) -> Iterator[Scene]:
    scene = Scene(kind, make_store, small_texts, small_embeddings)
    yield scene
    scene.gate.close()


@pytest.fixture
def own_scene(kind, node, small_texts, small_embeddings) -> Iterator[Scene]:
    """On a node that the test may kill."""
    scene = Scene(kind, StoreFactory(lambda kind: node.url), small_texts, small_embeddings)
    yield scene
    scene.gate.close()


def busy(status: int) -> tuple[int, str, bytes]:
    error = {"type": "rejected_execution_exception", "reason": "there is too much to do"}
    return (
        status,
        "application/json",
        json.dumps({"error": {"root_cause": [error], **error}, "status": status}).encode(),
    )


@pytest.mark.slow
@every_engine
@pytest.mark.parametrize("resume", [True, False])
def test_a_killed_command_is_run_again(kind, resume, scene, keytok, small_model, small_model_folder):
    reached, killed = threading.Event(), threading.Event()

    def hold() -> tuple[int, str, bytes]:
        reached.set()
        killed.wait(60)
        return busy(503)

    done = PAGE * 5
    held = threading.Lock()
    seen: list[str] = []

    def asked(path: str, body: bytes) -> Any:
        if "_bulk" not in path:
            return None
        with held:
            seen.append(path)
            number = len(seen)
        return hold() if number > 5 else None

    scene.gate.asked = asked
    arguments = ["backfill", "--yes", *scene.server, "--model", str(small_model_folder)]
    code = f"import sys, keytok_haystack.live_index.scan as scan; scan.PAGE = {PAGE}; sys.argv[0] = 'keytok'"
    command = [sys.executable, "-c", f"{code}; from keytok_haystack.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert reached.wait(120)
        time.sleep(0.3)  # so that the bulk requests before it are answered, too
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed.set()
    scene.gate.asked = lambda path, body: None
    assert sorted(scene.raw.versions().values()) == [1] * (DOCUMENTS - done) + [2] * done

    code, out, err = keytok(*arguments, "--json", *(["--resume"] if resume else []))
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["documents"], report["written"], report["already"]) == (DOCUMENTS, DOCUMENTS - done, done)
    scene.assert_whole(small_model)


@every_engine
def test_a_node_that_is_killed_and_comes_back(kind, node, own_scene, small_model):
    restarts: list[threading.Thread] = []

    def crash() -> None:
        node.kill()
        restarts.append(threading.Thread(target=node.start))
        restarts[0].start()

    own_scene.at_bulk(6, crash)
    try:
        own_scene.backfill(small_model)
    finally:
        for restart in restarts:
            restart.join()
    assert restarts
    own_scene.assert_whole(small_model)


@every_engine
def test_a_node_that_is_killed_and_stays_away(kind, node, own_scene, small_model):
    own_scene.at_bulk(6, node.kill)
    started = time.monotonic()
    with pytest.raises(DocumentStoreError, match="cannot be reached"):
        own_scene.backfill(small_model, patience=2)
    assert time.monotonic() - started < 15
    own_scene.gate.asked = lambda path, body: None
    node.start()
    assert own_scene.backfill(small_model).already > 0
    own_scene.assert_whole(small_model)


@every_engine
def test_no_node_at_the_address_is_told_at_once(kind, keytok, small_model_folder):
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    url = f"http://admin:{PASSWORD}@{address}"
    server = ("--engine", engine_of(kind), "--url", url, "--index", "a")
    for further in ((), ("--dry-run",), ("--resume",)):
        started = time.monotonic()
        code, out, err = keytok("backfill", *server, "--model", small_model_folder, *further)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert f"http://{address} cannot be reached" in err
        assert PASSWORD not in err
        assert time.monotonic() - started < 5


@every_engine
@pytest.mark.parametrize("status", [429, 503])
def test_an_engine_that_is_busy_is_asked_again(kind, status, scene, small_model):
    requests: list[str] = []

    def asked(path: str, body: bytes) -> Any:
        if not any("_bulk" in each for each in [*requests, path]):
            return None  # what fails before anything is written is told at once
        if "scroll" in path:
            return None  # a page of a scroll cannot be asked for again
        requests.append(path)
        return busy(status) if len(requests) % 5 == 2 else None

    scene.gate.asked = asked
    report = scene.backfill(small_model)
    assert (report.written, report.already) == (DOCUMENTS, 0)
    assert len(requests) > DOCUMENTS / PAGE
    scene.assert_whole(small_model)


@every_engine
def test_documents_that_are_turned_away_are_written_later(kind, scene, small_model):
    turned_away: set[str] = set()

    def asked(path: str, body: bytes) -> Any:
        """Do of a bulk request what is left, and turn away every third document, once."""
        if "_bulk" not in path:
            return None
        lines = body.decode().splitlines()
        items = [
            (json.loads(action)["index"]["_id"], action, source)
            for action, source in zip(lines[::2], lines[1::2], strict=True)
        ]
        away = {key for key, _, _ in items if int(key) % 3 == 0} - turned_away
        taken = [line for key, *pair in items if key not in away for line in pair]
        done = json.loads(scene.raw.ask("POST", "_bulk", "\n".join([*taken, ""]), pipeline="_none"))
        results = {item["index"]["_id"]: item for item in done["items"]}
        error = {"type": "es_rejected_execution_exception", "reason": "there is too much to do"}
        for key in away:
            results[key] = {"index": {"_index": scene.raw.name, "_id": key, "status": 429, "error": error}}
        turned_away.update(away)
        answer = {"took": 1, "errors": True, "items": [results[key] for key, _, _ in items]}
        return 200, "application/json", json.dumps(answer).encode()

    scene.gate.asked = asked
    report = scene.backfill(small_model)
    assert len(turned_away) == len(range(0, DOCUMENTS, 3))
    assert (report.written, report.already) == (DOCUMENTS, 0)
    scene.assert_whole(small_model)


@every_engine
def test_documents_that_are_always_turned_away_end_it(kind, scene, small_model):
    error = {"type": "es_rejected_execution_exception", "reason": "there is too much to do"}

    def asked(path: str, body: bytes) -> Any:
        if "_bulk" not in path:
            return None
        result = {"index": {"_index": scene.raw.name, "_id": "?", "status": 429, "error": error}}
        answer = {"took": 1, "errors": True, "items": [result] * (len(body.splitlines()) // 2)}
        return 200, "application/json", json.dumps(answer).encode()

    scene.gate.asked = asked
    started = time.monotonic()
    with pytest.raises(DocumentStoreError, match="turned documents away for 2 s: there is too much to do"):
        scene.backfill(small_model, patience=2)
    assert time.monotonic() - started < 15
    scene.gate.asked = lambda path, body: None
    scene.backfill(small_model)
    scene.assert_whole(small_model)


@every_engine
@pytest.mark.parametrize("what", ["_bulk", "_search", "_refresh", "_settings"])
def test_a_connection_that_is_cut_in_the_middle_of_an_answer(kind, what, scene, small_model):
    cut: list[str] = []
    begun = threading.Event()

    def asked(path: str, body: bytes) -> None:
        if "_bulk" in path:
            begun.set()

    def rewritten(path: str, body: bytes) -> bytes:
        if what in path and (begun.is_set() or what == "_refresh") and len(cut) < 2:
            cut.append(path)
            raise ConnectionError
        return body

    scene.gate.asked, scene.gate.rewritten = asked, rewritten
    scene.backfill(small_model)
    assert cut
    scene.assert_whole(small_model)


@every_engine
def test_others_are_not_overwritten_after_an_answer_that_was_lost(kind, scene, small_model):
    lost: list[str] = []

    def rewritten(path: str, body: bytes) -> bytes:
        if "_bulk" in path and not lost:
            lost.extend(item["index"]["_id"] for item in json.loads(body)["items"])
            scene.raw.ask("POST", f"_update/{lost[0]}", '{"doc": {"by": "others"}}')
            raise ConnectionError
        return body

    scene.gate.rewritten = rewritten
    scene.backfill(small_model)
    assert json.loads(scene.raw.source(lost[0]))["by"] == "others"
    assert scene.raw.versions()[lost[0]] == 3
    assert all(json.loads(source)["key_tokens"] for source in scene.raw.sources().values())


@every_engine
def test_a_scan_that_the_engine_has_lost_begins_again(kind, scene, make_store, small_model, caplog):
    others, (path, key) = RawIndex(kind, make_store.url(kind), "_search"), SCANS[kind]
    scans: list[str] = []

    def rewritten(path: str, body: bytes) -> bytes:
        if "_search" in path:
            scans.extend(filter(None, [json.loads(body).get(key)]))
        return body

    scene.gate.rewritten = rewritten
    scene.at_bulk(6, lambda: others.ask("DELETE", path, json.dumps({key.lstrip("_"): [scans[-1]]})) and None)
    report = scene.backfill(small_model)
    assert (report.written, report.already) == (DOCUMENTS, 0)
    assert "beginning again" in caplog.text
    scene.assert_whole(small_model)


@every_engine
def test_pages_that_are_turned_away_for_a_while(kind, scene, small_model):
    first: list[float] = []

    def asked(path: str, body: bytes) -> Any:
        if "_search" not in path or not (b"search_after" in body or b"scroll_id" in body):
            return None
        first.append(time.monotonic())
        return busy(429) if first[-1] - first[0] < 3 else None

    scene.gate.asked = asked
    assert scene.backfill(small_model).written == DOCUMENTS
    scene.assert_whole(small_model)


@every_engine
def test_an_index_that_is_deleted_meanwhile(kind, scene, make_store, small_model):
    scene.at_bulk(6, lambda: make_store.delete(kind, scene.raw.name))
    started = time.monotonic()
    with pytest.raises(DocumentStoreError, match=f"'{scene.raw.name}' was deleted"):
        scene.backfill(small_model)
    assert time.monotonic() - started < 10


@every_engine
def test_an_index_that_becomes_read_only_meanwhile(kind, scene, keytok, small_model, small_model_folder):
    scene.at_bulk(6, lambda: scene.raw.settings(**{"blocks.write": True}))
    arguments = ("backfill", "--yes", *scene.server, "--model", small_model_folder)
    started = time.monotonic()
    code, out, err = keytok(*arguments)
    assert (code, out) == (2, "")
    error = err.splitlines()[-1]
    assert error.startswith("error: ")
    assert f"'{scene.raw.name}' cannot be written" in error
    assert "index write" in error
    assert time.monotonic() - started < 10
    written = sum(version == 2 for version in scene.raw.versions().values())
    assert 0 < written < DOCUMENTS
    scene.raw.settings(**{"blocks.write": None})
    code, out, _ = keytok(*arguments, "--json")
    assert code == 0
    assert json.loads(out)["written"] == DOCUMENTS - written
    scene.assert_whole(small_model)


@every_engine
def test_a_cluster_that_elects_its_leader_is_waited_for(kind, scene, small_model):
    blocked: list[str] = []
    error = {"type": "cluster_block_exception", "reason": "blocked by: [SERVICE_UNAVAILABLE/2/no cluster-manager];"}

    def asked(path: str, body: bytes) -> Any:
        if "_bulk" not in path or blocked:
            return None
        blocked.append(path)
        result = {"index": {"_index": scene.raw.name, "_id": "?", "status": 503, "error": error}}
        answer = {"took": 1, "errors": True, "items": [result] * (len(body.splitlines()) // 2)}
        return 200, "application/json", json.dumps(answer).encode()

    scene.gate.asked = asked
    assert scene.backfill(small_model).written == DOCUMENTS
    scene.assert_whole(small_model)


@every_engine
def test_a_document_that_the_engine_refuses_is_named_and_the_others_are_written(
    kind, scene, keytok, small_model, small_model_folder
):
    # what the document has there is found to be no number only when it is indexed again
    scene.raw.ask("PUT", "_mapping", '{"properties": {"odd": {"properties": {"number": {"type": "integer"}}}}}')
    arguments = ("backfill", "--yes", *scene.server, "--model", small_model_folder)
    code, out, err = keytok(*arguments)
    assert (code, err) == (1, "")
    assert f"{DOCUMENTS - 1} of {DOCUMENTS} documents" in out
    assert "1 document" in out
    (row,) = [line for line in out.splitlines() if line.split()[:1] == ["7"]]
    assert "odd.number" in row
    scene.assert_whole(small_model, but={"7"})
    code, out, err = keytok(*arguments, "--json")
    assert (code, err) == (1, "")
    report = json.loads(out)
    assert (report["written"], report["already"], report["failed"]) == (0, DOCUMENTS - 1, 1)
    (failure,) = report["failures"]
    assert failure["id"] == "7"
    assert "odd.number" in failure["reason"]
    assert "none" in failure["reason"]  # the value that is refused


@every_engine
def test_a_document_that_is_too_large_for_a_proxy_is_named_and_the_others_are_written(kind, scene, small_model):
    limit = 20_000
    source = json.loads(scene.raw.source("7"))
    scene.raw.write({"7": json.dumps({**source, "odd": {"long": "w" * limit}})})
    scene.gate.asked = lambda path, body: (413, "text/html", b"<html>no</html>") if len(body) > limit else None
    report = scene.backfill(small_model)
    assert report.written == DOCUMENTS - 1
    assert [failure.id for failure in report.failures] == ["7"]
