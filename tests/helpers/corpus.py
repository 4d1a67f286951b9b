# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Documents that are written through a pipeline, and what searches for all of them must return."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.document_stores.types import DocumentStore, DuplicatePolicy
from helpers.rankings import stored
from helpers.retrieval import assert_matched

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import SparseRetriever

WAYS = ("run", "run_async", "run_batch")


class Corpus:
    """
    Documents in batches, and a query that finds every one of them.

    :param model_folder: The model that their key tokens are made with.
    :param texts: Texts, which repeat.
    :param embeddings: Their embeddings, which repeat with noise, so that all documents differ.
    :param sizes: How many documents each batch has.
    """

    def __init__(self, model_folder: Path, texts: Sequence[str], embeddings: np.ndarray, sizes: Sequence[int]) -> None:
        random = np.random.default_rng(9)
        numbers = np.arange(sum(sizes))
        vectors = embeddings[numbers % len(texts)] + 0.1 * random.normal(size=(len(numbers), embeddings.shape[1]))
        documents = [Document(id=str(i), content=texts[i % len(texts)], embedding=vectors[i].tolist()) for i in numbers]
        ends = np.cumsum(sizes)
        self.batches = [documents[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        self.ids = {document.id for document in documents}
        embedder = KeyTokenSparseEmbedder(model_folder, progress_bar=False)
        embedded = embedder.run(documents=deepcopy(documents))["documents"]
        self._tokens = {document.id: document.meta["key_tokens"] for document in embedded}
        keys = sorted({key for tokens in self._tokens.values() for key in tokens})
        self.query = {key: 1 / i for i, key in enumerate(keys, start=1)}
        self._scores = {key: self._score(tokens) for key, tokens in self._tokens.items()}

    def _score(self, tokens: dict[str, float]) -> float:
        return float(np.dot(stored(list(tokens.values())), [self.query[key] for key in tokens]))

    def check(self, hits: list[Document]) -> set[str]:
        """Assert that hits of the query have their scores and their matched tokens, best first; return their ids."""
        ids = [hit.id for hit in hits]
        scores = [hit.score for hit in hits]
        assert len(set(ids)) == len(ids)
        assert scores == pytest.approx([self._scores[key] for key in ids], rel=1e-6)
        assert scores == sorted(scores, reverse=True)
        for hit in hits:
            assert_matched(hit, self.query, self._tokens[hit.id])
        return set(ids)

    async def found(self, retriever: SparseRetriever, how: str) -> set[str]:
        """Ask for all documents in one of `WAYS`, and return the ids of what is found, checked."""
        if how == "run_async":
            return self.check((await retriever.run_async(self.query))["documents"])
        if how == "run":
            return self.check((await asyncio.to_thread(retriever.run, self.query))["documents"])
        answers = (await asyncio.to_thread(retriever.run_batch, [self.query] * 2))["documents"]
        return set.intersection(*map(self.check, answers))


def ids_of(batches: Sequence[Sequence[Document]]) -> set[str]:
    return {document.id for batch in batches for document in batch}


def indexing_pipeline(store: DocumentStore, model_folder: Path) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("embedder", KeyTokenSparseEmbedder(model_folder, progress_bar=False))
    pipeline.add_component("writer", DocumentWriter(store, policy=DuplicatePolicy.OVERWRITE))
    pipeline.connect("embedder", "writer")
    return pipeline


def write(pipeline: Pipeline, batch: list[Document]) -> None:
    """Write a batch; where this returns, it is acknowledged."""
    written = pipeline.run({"embedder": {"documents": batch}})["writer"]["documents_written"]
    assert written == len(batch)


@asynccontextmanager
async def opened(store: DocumentStore, model_folder: Path, top_k: int) -> AsyncIterator[SparseRetriever]:
    """Give a retriever, and close it in the loop that has used it."""
    retriever = SparseRetriever(store, model=model_folder, top_k=top_k)
    try:
        yield retriever
    finally:
        retriever.close()
        await retriever.close_async()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)
