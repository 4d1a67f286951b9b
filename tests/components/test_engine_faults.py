# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Nodes, indices and proxies that fail while documents are written and searched: what is lost, and what is said."""

import asyncio
import json
import traceback
from collections.abc import Callable
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest
from haystack.core.errors import PipelineRuntimeError
from haystack.document_stores.errors import DocumentStoreError
from helpers.corpus import WAYS, Corpus, ids_of, indexing_pipeline, opened, until, write
from nodes.stores import StoreFactory

from haystack_integrations.components.retrievers.keytok import SparseRetriever

KINDS = ("opensearch-knn", "elasticsearch-9")
PASSWORD = "hunter2"
ONE_REQUEST = 500
"""How many documents the clients of both engines send in one request."""

every_engine = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def corpus(small_model_folder, small_texts, small_embeddings) -> Corpus:
    return Corpus(small_model_folder, small_texts, small_embeddings, [20, 20, ONE_REQUEST + 100, 20, 20])


@pytest.fixture
def store(kind, node, small_model) -> Any:
    """A document store over a new index of that node, of three shards."""
    factory = StoreFactory(lambda kind: node.url.replace("//", f"//admin:{PASSWORD}@"))
    definition = factory.definition(kind, dimension=None, model=small_model, field="key_tokens")
    definition["settings"]["index.number_of_shards"] = 3
    return factory(kind, definition=definition)


def told(error: DocumentStoreError) -> str:
    """The message of an error in which nothing shows the password."""
    assert PASSWORD not in "".join(traceback.format_exception(error))
    return str(error)


async def ask_until_it_fails(
    corpus: Corpus, retriever: SparseRetriever, expected: set[str], fault: Callable[[], Any]
) -> list[str]:
    """
    Ask again and again, many at once, and cause a fault meanwhile.

    :param expected: The ids that every answer has.
    :param fault: What makes every query fail in the end.
    :returns: The errors of all who ask, in which there is no password.
    """
    answers = 0

    async def ask(how: str) -> DocumentStoreError:
        nonlocal answers
        while True:
            try:
                assert await corpus.found(retriever, how) == expected
            except DocumentStoreError as error:
                return error
            answers += 1
            if answers == 20:
                await asyncio.to_thread(fault)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(how)) for how in WAYS * 3]
    return [told(task.result()) for task in tasks]


async def first_answer(corpus: Corpus, retriever: SparseRetriever, how: str) -> set[str]:
    """Ask until an engine answers that is on its way back; what it says before is an error."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await corpus.found(retriever, how)
            except DocumentStoreError:
                await asyncio.sleep(0.05)


@every_engine
async def test_a_node_killed_while_a_batch_is_written(kind, node, store, corpus, small_model_folder):
    first, second, long, *others = corpus.batches
    pipeline = indexing_pipeline(store, small_model_folder)
    async with opened(store, small_model_folder, len(corpus.ids)) as retriever:
        write(pipeline, first)
        write(pipeline, second)
        acknowledged = ids_of([first, second])
        assert await corpus.found(retriever, "run") == acknowledged

        # a write waits until its documents can be found, which they cannot now: it is under way for as long as it takes
        store._client.indices.put_settings(index=store._index, body={"index.refresh_interval": -1})

        def received() -> int:
            with urlopen(f"{node.url}/{store._index}/_stats/indexing") as answer:
                return json.load(answer)["_all"]["total"]["indexing"]["index_total"]

        writing = asyncio.create_task(asyncio.to_thread(write, pipeline, long))
        await until(lambda: received() == len(acknowledged) + ONE_REQUEST)
        node.kill()
        for attempt in (writing, asyncio.to_thread(write, pipeline, long)):
            with pytest.raises(PipelineRuntimeError):
                await attempt
        for how in WAYS:
            with pytest.raises(DocumentStoreError, match=f"at {node.url} cannot be reached") as caught:
                await corpus.found(retriever, how)
            told(caught.value)

        node.start()
        assert acknowledged <= await first_answer(corpus, retriever, "run") <= acknowledged | ids_of([long])
        store._client.indices.put_settings(index=store._index, body={"index.refresh_interval": "50ms"})
        for batch in (long, *others):
            write(pipeline, batch)
        for how in WAYS:
            assert await corpus.found(retriever, how) == corpus.ids


@every_engine
async def test_a_node_killed_while_many_ask(kind, node, store, corpus, small_model_folder):
    pipeline = indexing_pipeline(store, small_model_folder)
    for batch in corpus.batches[:2]:
        write(pipeline, batch)
    expected = ids_of(corpus.batches[:2])
    async with opened(store, small_model_folder, len(corpus.ids)) as retriever:
        for error in await ask_until_it_fails(corpus, retriever, expected, node.kill):
            assert f"at {node.url} cannot be reached" in error
        node.start()
        for how in WAYS:  # at once: that some shards are there again is no reason to return their hits alone
            assert await first_answer(corpus, retriever, how) == expected


@every_engine
async def test_an_index_deleted_while_many_ask(kind, node, store, corpus, small_model_folder):
    index, pipeline = store._index, indexing_pipeline(store, small_model_folder)
    write(pipeline, corpus.batches[0])
    expected = ids_of(corpus.batches[:1])
    async with opened(store, small_model_folder, len(corpus.ids)) as retriever:

        def delete() -> None:
            store._client.indices.delete(index=index)

        for error in await ask_until_it_fails(corpus, retriever, expected, delete):
            assert f"at {node.url} " in error
            assert f"'{index}'" in error
        for how in WAYS:
            with pytest.raises(DocumentStoreError, match=f"at {node.url} has no index '{index}'"):
                await corpus.found(retriever, how)


@every_engine
async def test_a_part_that_cannot_be_searched_is_not_left_out(
    kind, make_store, corpus, small_model, small_model_folder
):
    alias, (first, second, *_) = f"test-{uuid4().hex[:12]}", corpus.batches
    definition = make_store.definition(kind, dimension=None, model=small_model, field="key_tokens")
    definition["aliases"] = {alias: {}}
    store = make_store(kind, definition=definition)
    write(indexing_pipeline(store, small_model_folder), first)
    both, other = (type(store)(hosts=make_store.url(kind), index=index) for index in (alias, f"{alias}-other"))
    node_name = "index.routing.allocation.require._name"
    definition["settings"][node_name] = "no node has this name"
    indices = store._client.indices
    indices.create(index=other._index, body=definition, wait_for_active_shards=0)
    try:
        async with opened(both, small_model_folder, len(corpus.ids)) as retriever:
            for how in WAYS:
                with pytest.raises(DocumentStoreError, match=f"at {make_store.url(kind)} .*'{alias}'"):
                    await corpus.found(retriever, how)
            indices.put_settings(index=other._index, body={node_name: None})
            write(indexing_pipeline(other, small_model_folder), second)
            for how in WAYS:
                assert await corpus.found(retriever, how) == ids_of([first, second])
    finally:
        make_store.delete(kind, other._index)


@every_engine
@pytest.mark.parametrize("block", ["write", "read_only_allow_delete"])
async def test_a_read_only_index_is_searched(kind, block, make_store, corpus, small_model, small_model_folder):
    first, second, *_ = corpus.batches
    store = make_store(kind, model=small_model)
    pipeline = indexing_pipeline(store, small_model_folder)
    write(pipeline, first)

    def set_block(*, on: bool) -> None:
        store._client.indices.put_settings(index=store._index, body={f"index.blocks.{block}": on})

    newcomer = type(store)(hosts=make_store.url(kind), index=store._index)
    async with (
        opened(store, small_model_folder, len(corpus.ids)) as retriever,
        opened(newcomer, small_model_folder, len(corpus.ids)) as new_retriever,
    ):
        for how in WAYS:
            assert await corpus.found(retriever, how) == ids_of([first])
        set_block(on=True)
        with pytest.raises(PipelineRuntimeError):
            write(pipeline, second)
        for each in (retriever, new_retriever):
            for how in WAYS:
                assert await corpus.found(each, how) == ids_of([first])
        set_block(on=False)
        write(pipeline, second)
        assert await corpus.found(retriever, "run") == ids_of([first, second])


@every_engine
async def test_a_proxy_that_fails_in_the_middle_of_a_batch(
    kind, make_store, gate, corpus, small_model, small_model_folder
):
    first, second, long, *others = corpus.batches
    store = make_store(kind, model=small_model)
    proxy = gate(kind)
    pipeline = indexing_pipeline(type(store)(hosts=proxy.url, index=store._index), small_model_folder)

    def fail_from_now_on(path: str, body: bytes) -> bytes:
        proxy.answer = (502, "text/html", b"<html>\n<body>\n<h1>Bad Gateway</h1>\n</body>\n</html>")
        return body

    async with opened(store, small_model_folder, len(corpus.ids)) as retriever:
        write(pipeline, first)
        write(pipeline, second)
        proxy.rewritten = fail_from_now_on
        with pytest.raises(PipelineRuntimeError, match="502"):
            write(pipeline, long)
        for how in WAYS:
            assert await corpus.found(retriever, how) == ids_of([first, second, long[:ONE_REQUEST]])
        proxy.answer, proxy.rewritten = None, lambda path, body: body
        for batch in (long, *others):
            write(pipeline, batch)
        for how in WAYS:
            assert await corpus.found(retriever, how) == corpus.ids
