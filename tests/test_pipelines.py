# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from haystack import Document, Pipeline
from haystack.document_stores.in_memory import InMemoryDocumentStore
from helpers.rankings import assert_same_hits, stored

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder, PC1Adjuster
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer, SparseRetriever
from keytok_haystack import pipeline_yaml
from keytok_haystack.utils.resources import resource

PIPELINES = sorted(resource("pipelines").glob("*.yml"))
INDEX = "keytok"
QUERIES = ("1", "2", "4", "8")


def contributions(query: dict[str, float], tokens: dict[str, float]) -> dict[str, float]:
    return {token: weight * stored(tokens[token]) for token, weight in query.items() if token in tokens}


@pytest.fixture(autouse=True)
def allowlist(request, monkeypatch, tmp_path):
    """None is needed, but for Milvus, whose package is outside of Haystack's namespace; loading it makes its file."""
    for name in ("HAYSTACK_DESERIALIZATION_ALLOWLIST", "HAYSTACK_UNSAFE_DESERIALIZATION"):
        monkeypatch.delenv(name, raising=False)
    path = request.node.callspec.params.get("path") if hasattr(request.node, "callspec") else None
    if isinstance(path, Path) and ".milvus" in path.name:
        monkeypatch.setenv("HAYSTACK_DESERIALIZATION_ALLOWLIST", "milvus_haystack.*")
        monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def overrides(embedder, cranfield_model_folder) -> dict[str, dict]:
    return {"text_embedder": {"model": embedder}, "retriever": {"model": str(cranfield_model_folder)}}


@pytest.fixture(scope="module")
def indexed(cranfield, embedder, overrides):
    """The store that all pipelines share, with sixty documents written through the indexing pipeline."""
    relevant = [key for query in QUERIES for key in cranfield.qrels[query]]
    chosen = list(dict.fromkeys([*relevant, *cranfield.documents]))[:60]
    store = InMemoryDocumentStore(index=INDEX)
    store.delete_all_documents()
    own = {"model": embedder, "progress_bar": False}
    definition = pipeline_yaml(
        "indexing.in_memory",
        {"document_embedder": own, "key_token_embedder": overrides["retriever"]},
    )
    documents = [Document(id=key, content=cranfield.documents[key]) for key in chosen]
    result = Pipeline.loads(definition).run({"document_embedder": {"documents": documents}})
    assert result["writer"]["documents_written"] == 60
    yield store
    store.delete_all_documents()


def test_all_stores_pipelines_are_there():
    kinds = ("indexing", "query", "hybrid", "rag")
    stores = ("in_memory", "opensearch", "elasticsearch", "qdrant", "milvus")
    assert {path.name for path in PIPELINES} == {f"{kind}.{store}.yml" for kind in kinds for store in stores} | {
        "rrf.opensearch.yml"
    }


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_a_pipeline_loads_as_it_lies_there(path):
    with path.open(encoding="utf-8") as file:
        pipeline = Pipeline.load(file)
    assert pipeline.to_dict()["components"].keys() == yaml.safe_load(path.read_text())["components"].keys()


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_all_pipelines_use_one_store(path):
    components = yaml.safe_load(path.read_text())["components"].values()
    stores = [c["init_parameters"]["document_store"] for c in components if "document_store" in c["init_parameters"]]
    assert stores
    settings = [store["init_parameters"] for store in stores]
    assert {each.get("index") or each["collection_name"] for each in settings} == {INDEX}


def test_the_indexing_pipeline_writes_embeddings_and_key_tokens(
    indexed, cranfield, cranfield_documents, cranfield_model_folder
):
    rows = dict(zip(cranfield.documents, cranfield_documents.embeddings, strict=True))
    expected = KeyTokenSparseEmbedder(cranfield_model_folder).run(
        documents=[
            Document(id=key, content=cranfield.documents[key], embedding=rows[key].tolist()) for key in indexed.storage
        ]
    )["documents"]
    for document in expected:
        written = indexed.storage[document.id]
        np.testing.assert_allclose(written.embedding, rows[document.id], atol=1e-5)
        shared = written.meta["key_tokens"].keys() & document.meta["key_tokens"].keys()
        assert len(shared) >= 0.97 * len(written.meta["key_tokens"])


@pytest.mark.parametrize("key", QUERIES)
def test_the_query_pipeline_finds_and_explains(key, indexed, cranfield, overrides):
    exact = {**overrides, "retriever": {**overrides["retriever"], "first_phase": 1.0}}
    pipeline = Pipeline.loads(pipeline_yaml("query.in_memory", exact))
    text = cranfield.queries[key]
    result = pipeline.run(
        {"text_embedder": {"text": text}, "retriever": {"query": text}}, include_outputs_from={"retriever"}
    )
    query = result["retriever"]["key_tokens"]
    scores = {d.id: sum(contributions(query, d.meta["key_tokens"]).values()) for d in indexed.storage.values()}
    hits = result["explainer"]["documents"]
    assert [hit.id for hit in hits] == sorted(scores, key=lambda identifier: -scores[identifier])[:10]
    assert [hit.score for hit in hits] == pytest.approx([scores[hit.id] for hit in hits], rel=1e-12)
    assert {hit.id for hit in hits} & cranfield.qrels[key].keys()
    assert_explained(hits, query, indexed)


def assert_explained(hits: list[Document], query: dict[str, float], store: InMemoryDocumentStore):
    for hit in hits:
        expected = contributions(query, store.storage[hit.id].meta["key_tokens"])
        matched = {match["token"]: match["contribution"] for match in hit.meta["matched_tokens"]}
        assert len(matched) == min(10, len(expected))
        assert sorted(matched.values()) == pytest.approx(sorted(expected.values())[-len(matched) :])
        assert "key_tokens" not in hit.meta


async def test_the_hybrid_pipeline_explains_every_hit(indexed, cranfield, overrides):
    pipeline = Pipeline.loads(pipeline_yaml("hybrid.in_memory", overrides))
    text = cranfield.queries["1"]
    data = {"text_embedder": {"text": text}, "retriever": {"query": text}}
    result = pipeline.run(data, include_outputs_from={"retriever"})
    hits = result["explainer"]["documents"]
    assert len(hits) == 10
    for hit in hits:
        parts = {name: part["score"] for name, part in hit.meta["score_parts"].items()}
        assert parts.keys() == {"key_tokens", "bm25", "dense"}
        assert sum(parts.values()) == pytest.approx(hit.score)
        shared = contributions(result["retriever"]["key_tokens"], indexed.storage[hit.id].meta["key_tokens"])
        assert parts["key_tokens"] == pytest.approx(sum(shared.values()))
    assert_explained(hits, result["retriever"]["key_tokens"], indexed)
    concurrently = await pipeline.run_async(data)
    assert_same_hits(concurrently["explainer"]["documents"], hits)


@pytest.mark.parametrize("path", [path for path in PIPELINES if not path.name.startswith("indexing")])
def test_hayhooks_can_serve_every_query_pipeline(path):
    """It deploys what says which inputs of components a request fills, and which outputs are the answer."""
    definition = yaml.safe_load(path.read_text())
    pipeline = Pipeline.loads(path.read_text())
    inputs, outputs = pipeline.inputs(include_components_with_connected_inputs=True), pipeline.outputs()
    assert definition["inputs"].keys() == {"query"}
    for sockets, known in ((definition["inputs"]["query"], inputs), (definition["outputs"].values(), outputs)):
        for socket in sockets:
            component, name = socket.split(".")
            assert name in known[component]
    required = {
        f"{component}.{name}"
        for component, names in pipeline.inputs().items()
        for name in names
        if pipeline.inputs()[component][name]["is_mandatory"]
    }
    assert required <= {*definition["inputs"]["query"]}


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_without_overrides_a_pipeline_is_itself(path):
    assert yaml.safe_load(pipeline_yaml(path.stem)) == yaml.safe_load(path.read_text())
    assert yaml.safe_load(pipeline_yaml(path)) == yaml.safe_load(path.read_text())


def test_overrides_replace_what_they_name_and_nothing_else():
    expected = yaml.safe_load((resource("pipelines") / "query.in_memory.yml").read_text())
    expected["components"]["retriever"]["init_parameters"]["top_k"] = 3
    expected["components"]["retriever"]["init_parameters"]["document_store"]["init_parameters"]["index"] = "mine"
    changed = pipeline_yaml("query.in_memory", {"retriever": {"top_k": 3, "document_store.index": "mine"}})
    assert yaml.safe_load(changed) == expected
    assert Pipeline.loads(changed).get_component("retriever").document_store.index == "mine"


def test_an_unknown_pipeline_is_named():
    with pytest.raises(FileNotFoundError, match="nothing"):
        pipeline_yaml("nothing")
    with pytest.raises(FileNotFoundError, match=r"nothing\.yml"):
        pipeline_yaml("nothing.yml")


def test_an_unknown_component_is_named_with_those_there_are():
    with pytest.raises(KeyError, match=r"no component 'retreiver'.*retriever"):
        pipeline_yaml("query.in_memory", {"retreiver": {"top_k": 3}})


@pytest.mark.parametrize("path", ["store.index", "document_store.nothing.index", "top_k.index"])
def test_an_unknown_nested_parameter_is_an_error(path):
    with pytest.raises(KeyError):
        pipeline_yaml("hybrid.in_memory", {"retriever": {path: "mine"}})


IN_A_FRESH_PROCESS = """
import json, sys
from haystack import Document, Pipeline
data = json.load(sys.stdin)
pipeline = Pipeline.loads(data["pipeline"])
assert pipeline.dumps() == data["pipeline"]
store = pipeline.get_component("retriever").document_store
store.write_documents([Document.from_dict(document) for document in data["documents"]])
result = pipeline.run(data["inputs"])
print(json.dumps([document.to_dict() for document in result["explainer"]["documents"]]))
"""


def test_a_pipeline_of_all_components_runs_in_a_fresh_process(small_model_folder, small_embeddings, small_texts):
    documents = KeyTokenSparseEmbedder(small_model_folder).run(
        documents=[
            Document(content=text, embedding=embedding.tolist())
            for text, embedding in zip(small_texts, small_embeddings, strict=True)
        ]
    )["documents"]
    store = InMemoryDocumentStore(index="fresh", return_embedding=False)
    pipeline = Pipeline()
    pipeline.add_component("adjuster", PC1Adjuster(small_model_folder, strength=0.1))
    pipeline.add_component("embedder", KeyTokenSparseEmbedder(small_model_folder, query_top_k=3))
    retriever = SparseRetriever(store, top_k=4, model=small_model_folder, bm25_weight=0.1, filter_policy="merge")
    pipeline.add_component("retriever", retriever)
    pipeline.add_component("explainer", KeyTokenExplainer(top_k=None, strip=False))
    pipeline.connect("adjuster.embedding", "embedder.embedding")
    pipeline.connect("embedder.key_tokens", "retriever.key_tokens")
    pipeline.connect("embedder.key_tokens", "explainer.key_tokens")
    pipeline.connect("retriever.documents", "explainer.documents")
    inputs = {
        "adjuster": {"embedding": small_embeddings[0].tolist()},
        "embedder": {"text": "shock wave"},
        "retriever": {"query": "shock wave"},
    }
    data = {"pipeline": pipeline.dumps(), "documents": [d.to_dict() for d in documents], "inputs": inputs}
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HAYSTACK_")}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS],
        input=json.dumps(data),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(sys.prefix),
    )
    assert done.returncode == 0, done.stderr
    store.write_documents(documents)
    expected = pipeline.run(inputs)["explainer"]["documents"]
    store.delete_all_documents()
    assert [Document.from_dict(document) for document in json.loads(done.stdout)] == expected
    assert len(expected) == 4
