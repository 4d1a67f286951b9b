# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Three OpenSearch nodes with replicas, of which one dies while documents are written and searched."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import pytest
from haystack import Document, Pipeline
from haystack.core.errors import PipelineRuntimeError
from haystack.document_stores.errors import DocumentStoreError
from haystack_integrations.document_stores.opensearch import OpenSearchDocumentStore
from helpers.corpus import WAYS, Corpus, ids_of, indexing_pipeline, opened, until, write
from nodes.launcher import Cluster, missing_requirement

from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack.engines import index_definition
from keytok_haystack.live_index import backfill
from keytok_haystack.live_index import scan as stored_documents

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    if missing := missing_requirement():
        pytest.skip(missing)
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(nodes) -> Cluster:
    """Three nodes, all of them running, whatever a test before has done to them."""
    return nodes.start()


@pytest.fixture
def new_index(cluster, small_model) -> OpenSearchDocumentStore:
    """A document store over a new index of three shards."""
    definition = index_definition("opensearch", None, small_model)
    settings = {"index.number_of_shards": 3, "index.number_of_replicas": 1, "index.refresh_interval": "50ms"}
    store = store_at(cluster, f"test-{uuid4().hex[:12]}", mappings=definition["mappings"], settings=settings)
    assert store.count_documents() == 0  # which creates the index
    cluster.wait_until_green()
    return store


@pytest.fixture(scope="module")
def corpus(small_model_folder, small_texts, small_embeddings) -> Corpus:
    return Corpus(small_model_folder, small_texts, small_embeddings, [10] * 300)


def store_at(cluster: Cluster, index: str, **options: Any) -> OpenSearchDocumentStore:
    return OpenSearchDocumentStore(hosts=cluster.urls, index=index, timeout=60, **options)


def cat(cluster: Cluster, path: str) -> list[dict[str, str]]:
    with urlopen(f"{cluster.urls[0]}/_cat/{path}?format=json") as answer:
        return json.load(answer)


def cluster_manager(cluster: Cluster) -> str:
    (row,) = cat(cluster, "cluster_manager")
    return row["node"]


def holder_of_primaries(cluster: Cluster, index: str) -> str:
    """The node with the most primary shards, of those that are not the cluster manager."""
    primaries = Counter(row["node"] for row in cat(cluster, f"shards/{index}") if row["prirep"] == "p")
    del primaries[cluster_manager(cluster)]
    return max(primaries, key=primaries.__getitem__)


class Traffic:
    """
    Batches that are written and queries that are asked at the same time.

    :param corpus: What is written and searched.
    :param pipeline: What writes.
    :param retriever: What is asked, by several at once.
    """

    def __init__(self, corpus: Corpus, pipeline: Pipeline, retriever: SparseRetriever) -> None:
        self.corpus = corpus
        self.pipeline = pipeline
        self.retriever = retriever
        self.acknowledged: list[str] = []
        self.failed: list[list[Document]] = []
        self.answers = [0] * 2 * len(WAYS)
        """How often each who asks was answered."""
        self.errors: list[str] = []
        self.may_fail = True
        """Whether queries that start now may fail, with an error that is clear."""
        self.is_finished = False

    async def run(self) -> None:
        """Write and ask until it is finished."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._write())
            for asker in range(len(self.answers)):
                tasks.create_task(self._ask(asker))

    async def _write(self) -> None:
        for batch in self.corpus.batches:
            try:
                await asyncio.to_thread(write, self.pipeline, batch)
                self.acknowledged += ids_of([batch])
            except PipelineRuntimeError:
                self.failed.append(batch)
            if self.is_finished:
                return
        raise AssertionError  # too few batches

    async def _ask(self, asker: int) -> None:
        while not self.is_finished:
            expected, may_fail = set(self.acknowledged), self.may_fail
            try:
                assert expected <= await self.corpus.found(self.retriever, WAYS[asker % len(WAYS)])
                self.answers[asker] += 1
            except DocumentStoreError as error:
                if not may_fail:
                    raise
                self.errors.append(str(error))

    async def goes_on(self, batches: int, answers: int) -> None:
        """Wait until so many further batches are acknowledged, and each who asks has so many further answers."""
        written = len(self.acknowledged) + batches * len(self.corpus.batches[0])
        answered = [count + answers for count in self.answers]
        await until(lambda: len(self.acknowledged) >= written)
        await until(lambda: all(now >= then for now, then in zip(self.answers, answered, strict=True)))


@pytest.mark.parametrize("victim", ["holder of primaries", "cluster manager"])
async def test_when_a_node_dies_no_acknowledged_document_is_lost_and_queries_go_on(
    victim, cluster, new_index, corpus, small_model_folder
):
    index, pipeline = new_index._index, indexing_pipeline(new_index, small_model_folder)
    name = cluster_manager(cluster) if victim == "cluster manager" else holder_of_primaries(cluster, index)
    async with opened(store_at(cluster, index), small_model_folder, len(corpus.ids)) as retriever:
        traffic = Traffic(corpus, pipeline, retriever)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic.run())
            await traffic.goes_on(batches=5, answers=3)
            cluster.nodes[name].kill()
            traffic.may_fail = False  # as only a query may that was on its way to the node then
            await traffic.goes_on(batches=5, answers=5)
            traffic.is_finished = True
        for batch in traffic.failed:
            write(pipeline, batch)
        expected = set(traffic.acknowledged) | ids_of(traffic.failed)
        for how in WAYS:
            assert await corpus.found(retriever, how) == expected
    # a node that is down hinders nobody who comes now
    async with opened(store_at(cluster, index), small_model_folder, len(corpus.ids)) as retriever:
        for how in WAYS:
            assert await corpus.found(retriever, how) == expected
    for error in traffic.errors:
        assert all(url in error for url in cluster.urls)


async def test_a_backfill_outlives_a_node(cluster, new_index, corpus, small_model, small_model_folder, monkeypatch):
    monkeypatch.setattr(stored_documents, "PAGE", 50)
    new_index.write_documents([document for batch in corpus.batches for document in batch])
    store = store_at(cluster, new_index._index)
    async with opened(store, small_model_folder, len(corpus.ids)) as retriever:
        filling = asyncio.create_task(asyncio.to_thread(backfill, store, small_model, progress_bar=False))
        await until(lambda: filling.done() or len(retriever.run(corpus.query)["documents"]) > 100)
        assert not filling.done()
        cluster.nodes[holder_of_primaries(cluster, new_index._index)].kill()
        report = await filling
        assert (report.documents, report.failed) == (len(corpus.ids), 0)
        await until(lambda: len(retriever.run(corpus.query)["documents"]) == len(corpus.ids))
        for how in WAYS:
            assert await corpus.found(retriever, how) == corpus.ids
