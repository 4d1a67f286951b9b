# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
An index that others write, rewrites that are killed, and a node that is killed, in a random order; and an oracle.

The oracle knows of each document what it may hold: what the last acknowledged write has left there, or, after a write
whose answer was lost, the one or the other. Whatever happens, documents hold nothing else, and a backfill in peace
gives each the key tokens of what it holds.
"""

import json
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from multiprocessing import forkserver
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

import numpy as np
from haystack.document_stores.errors import DocumentStoreError
from helpers.live_index import compact, embedding_field
from nodes.launcher import Node
from nodes.stores import RawIndex, engine_of

from keytok_haystack import KeyTokenModel
from keytok_haystack.engines import MappingError
from keytok_haystack.engines.connection import document_store
from keytok_haystack.live_index import RewriteReport, backfill, drop, scan
from keytok_haystack.live_index import rewrite as rewrite_module
from keytok_haystack.sparse_vectors.rank_features import truncate_weights

DOCUMENTS, HOT, WRITERS, PAGE = 120, 12, 6, 8
_LONGEST_PAUSE = 0.1  # seconds, between reading documents and writing them back, in which others write them
_UNEXPECTED = 3  # exit code of a rewrite with a bug

Content = tuple[int, int, int]
"""The numbers of a document's text and embedding, and a count that partial updates change."""
ABSENT = None


@dataclass(frozen=True)
class Step:
    """
    What happens next.

    :param action: "write", "update", "delete", "wait", "rewrite", "kill client", "kill node" or "check".
    :param key: The id of the document.
    :param content: What is written to it; of an update, the count alone counts.
    :param rewrite: "backfill", "resume" or "drop".
    :param seconds: How long to wait.
    """

    action: str
    key: str = ""
    content: Content = (0, 0, 0)
    rewrite: str = ""
    seconds: float = 0.0


def steps(seed: int, texts: int) -> Iterator[Step]:
    """Yield steps without end: the same for the same seed."""
    chance = random.Random(seed)
    actions = {
        "write": 60.0,
        "update": 20.0,
        "delete": 10.0,
        "wait": 2.0,
        "rewrite": 4.0,
        "kill client": 0.2,
        "kill node": 0.02,
        "check": 0.08,
    }
    while True:
        (action,) = chance.choices(list(actions), list(actions.values()))
        yield Step(
            action,
            str(chance.randrange(chance.choice((DOCUMENTS, HOT)))),  # some are written all the time
            (chance.randrange(texts), chance.randrange(texts), chance.randrange(1_000_000)),
            chance.choice(("backfill", "backfill", "resume", "drop")),
            chance.uniform(0, 0.3),
        )


@dataclass
class World:
    """
    An index, those who write it, a rewrite that runs now and then, and the oracle.

    :param kind: The engine.
    :param node: The node, which is killed.
    :param model: The folder of a key-token model.
    :param texts: Texts of documents.
    :param embeddings: Their embeddings, shape `(n, 8)`.
    :param external: Whether the writers set the versions of documents, instead of the engine.
    """

    kind: str
    node: Node
    model: Path
    texts: list[str]
    embeddings: np.ndarray
    external: bool
    done: list[Step] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = f"crash-{uuid4().hex[:8]}"
        self.raw = RawIndex(self.kind, self.node.url, self.name)
        properties = {"content": {"type": "text"}, "embedding": embedding_field(self.kind)}
        # deletions are remembered, so that nothing comes back under the version that it had
        settings = {"index.number_of_replicas": 0, "index.refresh_interval": "100ms", "index.gc_deletes": "1h"}
        if self.kind == "opensearch-knn":
            settings["index.knn"] = True
        else:
            settings["index.mapping.exclude_source_vectors"] = False
        self.raw.ask("PUT", "", json.dumps({"settings": settings, "mappings": {"properties": properties}}))
        self.possible: dict[str, set[Content | None]] = {str(i): {ABSENT} for i in range(DOCUMENTS)}
        self.versions: dict[str, int] = dict.fromkeys(self.possible, 1000)
        self.context = _forking_context()
        self.rewriting: Any = None
        self.failures: list[str] = []
        self.queues: list[Queue[Step | None]] = [Queue(maxsize=20) for _ in range(WRITERS)]
        self.threads = [Thread(target=self._write_all, args=(queue,), daemon=True) for queue in self.queues]
        for thread in self.threads:
            thread.start()

    @property
    def store(self) -> Any:
        return document_store(engine_of(self.kind), self.node.url, self.name)

    def run(self, todo: Iterator[Step], seconds: float) -> None:
        """
        Take steps for some time, and check at the end.

        :raises AssertionError: Something was lost, or came back, or a rewrite has failed as it should not.
        """
        end = time.monotonic() + seconds
        try:
            for step in todo:
                if time.monotonic() > end:
                    break
                self._take(step)
                assert not self.failures, self.failures
            self._take(Step("check"))
        finally:
            for queue in self.queues:
                queue.put(None)
            if self.rewriting is not None:
                self.rewriting.kill()

    def record(self, file: Path, seed: int) -> None:
        """Write what has been done to a file that `replayed` reads."""
        about = {"kind": self.kind, "external": self.external, "seed": seed}
        file.write_text(json.dumps({**about, "steps": [asdict(step) for step in self.done]}))

    def _take(self, step: Step) -> None:
        self.done.append(step)
        self.counts[step.action] = self.counts.get(step.action, 0) + 1
        match step.action:
            case "write" | "update" | "delete":
                self.queues[int(step.key) % WRITERS].put(step)
            case "wait":
                time.sleep(step.seconds)
            case "rewrite" if self.rewriting is None or not self.rewriting.is_alive():
                self._reap()
                self.rewriting = self.context.Process(target=_rewrite, args=(self._arguments(step.rewrite),))
                self.rewriting.start()
            case "kill client" if self.rewriting is not None:
                self.rewriting.kill()
            case "kill node":
                self.node.kill()
                self.node.start()
            case "check":
                self._check()

    def _arguments(self, rewrite: str) -> tuple[str, str, str, str, str, bool]:
        return engine_of(self.kind), self.node.url, self.name, str(self.model), rewrite, self.external

    def _reap(self) -> None:
        """Wait for the rewrite that runs, if there is one."""
        if self.rewriting is not None:
            self.rewriting.join(180)
            assert self.rewriting.exitcode is not None, "a rewrite hangs"
            assert self.rewriting.exitcode != _UNEXPECTED, "a rewrite has failed with an error of its own, see stderr"
            self.rewriting = None

    def _write_all(self, queue: "Queue[Step | None]") -> None:
        while (step := queue.get()) is not None:
            try:
                self._write(step)
            except Exception:
                self.failures.append(traceback.format_exc())
            queue.task_done()

    def _write(self, step: Step) -> None:
        """Write a document as others do, and note what it may hold then."""
        before = self.possible[step.key]
        options: dict[str, str] = {}
        if self.external:
            self.versions[step.key] += 1
            options = {"version": str(self.versions[step.key]), "version_type": "external"}
        if step.action == "write" or (step.action == "update" and self.external):
            status = self._ask("PUT", f"_doc/{step.key}", self._source(step.content), **options)
            after: set[Content | None] = {step.content}
        elif step.action == "delete":
            status = self._ask("DELETE", f"_doc/{step.key}", None, **options)
            after = {ABSENT}
            assert status != HTTPStatus.NOT_FOUND or ABSENT in before, f"{step.key} is gone"
        else:
            count = step.content[2]
            status = self._ask("POST", f"_update/{step.key}", compact(doc={"count": count}), retry_on_conflict="3")
            after = {(*content[:2], count) for content in before if content is not None}
            if status == HTTPStatus.NOT_FOUND:
                assert ABSENT in before, f"{step.key} is gone"
                after = {ABSENT}
            elif status == HTTPStatus.CONFLICT:  # a rewrite was faster, three times
                after = before
        self.possible[step.key] = after if status is not None else before | after

    def _source(self, content: Content) -> str:
        text, embedding, count = content
        return compact(content=self.texts[text], embedding=self.embeddings[embedding].tolist(), count=count)

    def _ask(self, method: str, path: str, body: str | None, **options: str) -> int | None:
        """Return the status of an answer, or None if it is not known whether the request was carried out."""
        query = "&".join(f"{name}={value}" for name, value in options.items())
        request = Request(
            f"{self.node.url}/{self.name}/{path}?{query}" if self.node.url else "http://127.0.0.1:9/",
            None if body is None else body.encode(),
            {"Content-Type": "application/json"},
            method=method,
        )
        try:
            with urlopen(request, timeout=120) as answer:
                return int(answer.status)
        except HTTPError as error:
            allowed = (HTTPStatus.NOT_FOUND, *((HTTPStatus.CONFLICT,) if path.startswith("_update") else ()))
            if error.code in allowed:
                return error.code
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                msg = f"{method} {path}: {error.code} {error.read()!r}"
                raise AssertionError(msg) from error
            return None
        except OSError:
            return None

    def _check(self) -> None:
        """Stop all, backfill, and compare what is there with what must be."""
        for queue in self.queues:
            queue.join()
        self._reap()
        assert not self.failures, self.failures
        report = self._backfill()
        assert report.failed == 0, report.failures
        again = self._backfill()
        assert (again.written, again.failed) == (0, 0), again
        self.raw = RawIndex(self.kind, self.node.url, self.name)
        self.raw.ask("POST", "_refresh")
        hits = json.loads(self.raw.ask("POST", "_search", '{"size": 1000}'))["hits"]["hits"]
        found = {hit["_id"]: hit["_source"] for hit in hits}
        contents: dict[str, Content | None] = {}
        for key, possible in self.possible.items():
            document = found.get(key)
            if document is None:
                contents[key] = ABSENT
            else:
                matching = [each for each in possible if each is not None and self._is(document, each)]
                assert matching, f"{key} holds {document}, and not one of {possible}"
                contents[key] = matching[0]
            assert contents[key] in possible, f"{key} is lost, or came back: {document}, and not one of {possible}"
            self.possible[key] = {contents[key]}
        assert found.keys() <= self.possible.keys()
        self._check_tokens({key: document for key, document in found.items() if document})

    def _backfill(self) -> RewriteReport:
        return backfill(self.store, self.model, keep_versions=self.external, progress_bar=False)

    def _is(self, document: dict[str, Any], content: Content) -> bool:
        others = {name: value for name, value in document.items() if name != "key_tokens"}
        return others.keys() == {"content", "embedding", "count"} and (
            others["content"] == self.texts[content[0]]
            and np.allclose(others["embedding"], self.embeddings[content[1]], rtol=1e-6)
            and others["count"] == content[2]
        )

    def _check_tokens(self, found: dict[str, dict[str, Any]]) -> None:
        if not found:
            return
        model = KeyTokenModel.load(self.model)
        vectors = np.array([document["embedding"] for document in found.values()], np.float32)
        texts = [document["content"] for document in found.values()]
        expected = model.document_tokens(model.encode_documents(vectors, texts))
        for (key, document), tokens in zip(found.items(), expected, strict=True):
            stored = document["key_tokens"]
            assert stored.keys() == tokens.keys(), key
            weights = [truncate_weights([each[name] for name in tokens]).tolist() for each in (stored, tokens)]
            assert weights[0] == weights[1], key


def _forking_context() -> Any:
    """Return what starts processes from one that has imported all that they need: in milliseconds, not in seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # Python 3.11 gives it no other path
    forkserver.ensure_running()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    return context


def replayed(file: Path) -> tuple[dict[str, Any], list[Step]]:
    """Return what a file of `World.record` says of the world, and its steps."""
    recorded = json.loads(file.read_text())
    taken = [Step(**{**step, "content": tuple(step["content"])}) for step in recorded.pop("steps")]
    return recorded, taken


def _rewrite(arguments: tuple[str, str, str, str, str, bool]) -> None:
    """Rewrite the index in a process of its own, which may be killed at any time."""
    engine, url, index, model, rewrite, external = arguments
    scan.PAGE = PAGE
    rewrite_page = rewrite_module.rewrite_page

    def slowly(*arguments: Any, **options: Any) -> Any:
        time.sleep(random.uniform(0, _LONGEST_PAUSE))
        return rewrite_page(*arguments, **options)

    rewrite_module.rewrite_page = slowly
    sys.stderr.flush()
    store = document_store(engine, url, index)  # type: ignore[arg-type]
    try:
        if rewrite == "drop":
            drop(store, "key_tokens", keep_versions=external, patience=60, progress_bar=False)
        else:
            resume = rewrite == "resume"
            backfill(store, model, resume=resume, keep_versions=external, patience=60, progress_bar=False)
    except DocumentStoreError:  # the node has gone away
        os._exit(1)
    except MappingError as error:
        if rewrite == "drop" and "has no field" in str(error):  # there is nothing to drop yet
            os._exit(1)
        traceback.print_exc()
        os._exit(_UNEXPECTED)
    except BaseException:
        traceback.print_exc()
        os._exit(_UNEXPECTED)
    os._exit(0)
