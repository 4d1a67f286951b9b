# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Branches of a pipeline that a router does not take."""

import pytest
from haystack import Pipeline
from haystack.components.routers import ConditionalRouter
from haystack.document_stores.in_memory import InMemoryDocumentStore

from haystack_integrations.components.embedders.keytok import (
    KeyTokenSparseEmbedder,
    LanguageModelEmbedder,
    PC1Adjuster,
)
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever


def router(output: str, output_type: type) -> ConditionalRouter:
    """Sends `value` to `taken` if `search` is true, and `other` otherwise."""
    return ConditionalRouter(
        [
            {"condition": "{{search}}", "output": "{{value}}", "output_name": output, "output_type": output_type},
            {"condition": "{{not search}}", "output": "{{value}}", "output_name": "other", "output_type": output_type},
        ]
    )


def routed(**components) -> Pipeline:
    pipeline = Pipeline()
    pipeline.add_component("router", router("taken", list[float]))
    for name, component in components.items():
        pipeline.add_component(name, component)
    return pipeline


async def results(pipeline: Pipeline, value: object, inputs: dict) -> list[dict]:
    """What comes of `pipeline` if the branch is not taken, run in both ways."""
    data = {"router": {"search": False, "value": value}, **inputs}
    return [pipeline.run(data), await pipeline.run_async(data)]


@pytest.mark.parametrize("form", ["key_tokens", "query_embedding"])
async def test_a_retriever_whose_branch_is_not_taken_finds_nothing(
    form, small_store, small_model_folder, small_embeddings
):
    pipeline = routed(
        embedder=KeyTokenSparseEmbedder(small_model_folder),
        retriever=SparseRetriever(small_store, model=small_model_folder),
        explainer=KeyTokenExplainer(),
    )
    if form == "key_tokens":
        pipeline.connect("router.taken", "embedder.embedding")
        pipeline.connect("embedder.key_tokens", "retriever.key_tokens")
    else:
        pipeline.remove_component("embedder")
        pipeline.connect("router.taken", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "explainer.documents")
    pipeline.connect("retriever.key_tokens", "explainer.key_tokens")
    pipeline = Pipeline.loads(pipeline.dumps())  # it works from YAML, too
    inputs = {"retriever": {"query": "wing", "top_k": 3}}
    if form == "key_tokens":
        inputs["embedder"] = {"text": "wing"}
    embedding = small_embeddings[0].tolist()
    for result in await results(pipeline, embedding, inputs):
        assert result == {"router": {"other": embedding}}
    found = pipeline.run({"router": {"search": True, "value": embedding}, **inputs})
    assert "documents" in found["explainer"]


async def test_embedders_and_adjusters_whose_branch_is_not_taken_return_nothing(
    small_model_folder, small_embeddings, tiny
):
    embedding = small_embeddings[0].tolist()
    adjusting = routed(adjuster=PC1Adjuster(small_model_folder))
    adjusting.connect("router.taken", "adjuster.embedding")
    for result in await results(adjusting, embedding, {}):
        assert result == {"router": {"other": embedding}}
    embedding_texts = Pipeline()
    embedding_texts.add_component("router", router("taken", str))
    embedding_texts.add_component("embedder", LanguageModelEmbedder(f"gritlm-7b:{tiny('mistral')}"))
    embedding_texts.connect("router.taken", "embedder.text")
    for result in await results(embedding_texts, "wing", {}):
        assert result == {"router": {"other": "wing"}}


async def test_outside_of_a_pipeline_a_missing_input_is_an_error(small_model_folder):
    retriever = SparseRetriever(InMemoryDocumentStore(), model=small_model_folder)
    with pytest.raises(ValueError, match="exactly one of"):
        retriever.run(query="wing")
    with pytest.raises(ValueError, match="exactly one of"):
        await retriever.run_async(query="wing")
    with pytest.raises(ValueError, match="exactly one of"):
        KeyTokenSparseEmbedder(small_model_folder).run(text="wing")
    pipeline = Pipeline()
    pipeline.add_component("embedder", KeyTokenSparseEmbedder(small_model_folder))
    with pytest.raises(Exception, match="exactly one of"):  # nothing is connected that could bring it
        pipeline.run({"embedder": {"text": "wing"}})
