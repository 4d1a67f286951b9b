# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Answers with sources: the pipelines, over HTTP and by a real language model; long documents; the example."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from haystack import Document, Pipeline
from haystack.components.preprocessors import DocumentSplitter, HierarchicalDocumentSplitter
from haystack.components.retrievers import AutoMergingRetriever, SentenceWindowRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersDocumentEmbedder
from helpers.servers import chat_server, hayhooks
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import KeyTokenExplainer
from keytok_haystack import pipeline_yaml

QUESTION = "papers on shock-sound wave interaction"
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "markdown-rag"


@pytest.fixture
def indexed(cranfield, cranfield_documents, cranfield_model_folder):
    """The store that pipelines name, with two hundred documents, one of which is the answer."""
    rows = list(zip(cranfield.documents.items(), cranfield_documents.embeddings, strict=True))[:200]
    documents = [Document(id=key, content=text, embedding=row.tolist()) for (key, text), row in rows]
    store = InMemoryDocumentStore(index="keytok")
    store.delete_all_documents()
    store.write_documents(KeyTokenSparseEmbedder(cranfield_model_folder).run(documents)["documents"])
    yield store
    store.delete_all_documents()


@pytest.fixture
def ask(indexed, embedder, cranfield_model_folder, monkeypatch):
    """`ask(reply, question)`: the request to a chat server that replies so, the hits, and the answer."""

    def ask(reply, question, **options):
        overrides = {"text_embedder": {"model": embedder}, "retriever": options}
        with chat_server(reply) as (url, requests):
            monkeypatch.setenv("OPENAI_BASE_URL", url)
            monkeypatch.setenv("OPENAI_API_KEY", "a key")
            pipeline = Pipeline.loads(pipeline_yaml("rag.in_memory", overrides, model=cranfield_model_folder))
            queries = {name: {"query": question} for name in ("retriever", "prompt_builder", "answer_builder")}
            data = {"text_embedder": {"text": question}, **queries}
            result = pipeline.run(data, include_outputs_from={"explainer"})
        (request,), (answer,) = requests, result["answer_builder"]["answers"]
        return request, result["explainer"]["documents"], answer

    return ask


def test_an_answer_cites_its_sources_and_each_says_what_it_was_found_for(ask):
    request, hits, answer = ask(lambda _: "A sound wave refracts [1], or becomes vorticity [3].", QUESTION)
    assert (request["model"], request["authorization"]) == ("gpt-5-mini", "Bearer a key")
    system, user = request["messages"]
    assert "cite each source" in system["content"]
    sources = "\n\n".join(f"[{i}] {hit.content}" for i, hit in enumerate(hits, start=1))
    assert user["content"].split("\n\n\n")[0].strip() == sources
    assert user["content"].endswith(f"Question: {QUESTION}")
    assert "not confident" not in user["content"]
    assert hits[0].id == "64"
    assert [source.id for source in answer.documents] == [hits[0].id, hits[2].id]
    for source in answer.documents:
        assert source.meta["why"].startswith("found for")
        assert source.meta["matched_tokens"]
        assert source.meta["score_parts"].keys() == {"key_tokens", "bm25", "dense"}
    assert "sound" in {match["token"] for match in answer.documents[0].meta["matched_tokens"]}


def test_the_prompt_says_if_the_search_was_not_confident(ask):
    request, hits, answer = ask(lambda _: "The sources do not say.", "Who sings opera in Milan?")
    assert hits[0].meta["query_confidence"] < 0.5
    assert "The search was not confident" in request["messages"][1]["content"]
    assert not answer.documents


@pytest.mark.parametrize(
    ("question", "filters"), [(QUESTION, {"field": "meta.year", "operator": "==", "value": 1}), ("of the", None)]
)
def test_the_prompt_says_if_nothing_was_found(question, filters, ask):
    request, hits, _ = ask(lambda _: "The sources do not say.", question, filters=filters)
    assert not hits
    assert request["messages"][1]["content"].split("\n")[0] == "There are no sources."


@pytest.mark.slow
def test_a_real_language_model_answers_over_http(ask, smollm2):
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415  # seconds to import

    model, tokenizer = AutoModelForCausalLM.from_pretrained(smollm2), AutoTokenizer.from_pretrained(smollm2)

    def reply(messages):
        chat = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        generated = model.generate(**chat, max_new_tokens=24, do_sample=False)
        return tokenizer.decode(generated[0, chat["input_ids"].shape[1] :], skip_special_tokens=True)

    _, hits, answer = ask(reply, QUESTION)
    words = set(answer.data.lower().split())
    assert len(words) >= 5
    assert words & {word for hit in hits for word in hit.content.split()}


def embedded(documents: list[Document], embedder: str, model: Path) -> list[Document]:
    dense = SentenceTransformersDocumentEmbedder(model=embedder, progress_bar=False).run(documents)["documents"]
    return KeyTokenSparseEmbedder(model).run(dense)["documents"]


def found(store: str, embedder: str, model: Path) -> Pipeline:
    """The hybrid pipeline over a store of that name."""
    overrides = {"text_embedder": {"model": embedder}, "retriever": {"document_store.index": store, "top_k": 6}}
    return Pipeline.loads(pipeline_yaml("hybrid.in_memory", overrides, model=model))


@pytest.fixture
def long_documents(cranfield) -> list[Document]:
    return [Document(content=cranfield.documents[key], meta={"title": key}) for key in ("64", "65", "1", "2", "3", "4")]


def test_explanations_survive_merging_to_parents(long_documents, embedder, cranfield_model_folder):
    split = HierarchicalDocumentSplitter(block_sizes={30}, split_overlap=0, split_by="word").run(long_documents)
    everything = embedded(split["documents"], embedder, cranfield_model_folder)
    children = [document for document in everything if not document.meta["__children_ids"]]
    parents = InMemoryDocumentStore()
    parents.write_documents([document for document in everything if document.meta["__children_ids"]])
    InMemoryDocumentStore(index="children").write_documents(children, DuplicatePolicy.OVERWRITE)
    pipeline = found("children", embedder, cranfield_model_folder)
    pipeline.remove_component("explainer")
    pipeline.add_component("merging", AutoMergingRetriever(parents, threshold=0.3))
    pipeline.add_component("explainer", KeyTokenExplainer())
    pipeline.connect("retriever.documents", "merging.documents")
    pipeline.connect("merging.documents", "explainer.documents")
    pipeline.connect("retriever.key_tokens", "explainer.key_tokens")
    pipeline.connect("retriever.meta", "explainer.meta")
    result = pipeline.run({"text_embedder": {"text": QUESTION}, "retriever": {"query": QUESTION}})
    hits = result["explainer"]["documents"]
    merged = [hit for hit in hits if hit.meta["__children_ids"]]
    assert merged
    assert len(merged) < len(hits)
    stored = {document.id: document.meta["key_tokens"] for document in everything}
    for hit in hits:
        assert "key_tokens" not in hit.meta
        assert hit.meta["why"].startswith("found for")
        for match in hit.meta["matched_tokens"]:  # its own tokens, also those of a parent
            assert match["document_weight"] == pytest.approx(stored[hit.id][match["token"]], rel=0.01)
    InMemoryDocumentStore(index="children").delete_all_documents()


def test_explanations_stay_with_windows_of_sentences(long_documents, embedder, cranfield_model_folder):
    split = DocumentSplitter(split_by="word", split_length=30).run(long_documents)["documents"]
    store = InMemoryDocumentStore(index="sentences")
    store.write_documents(embedded(split, embedder, cranfield_model_folder), DuplicatePolicy.OVERWRITE)
    pipeline = found("sentences", embedder, cranfield_model_folder)
    pipeline.add_component("windows", SentenceWindowRetriever(store, window_size=1))
    pipeline.connect("explainer.documents", "windows.retrieved_documents")
    data = {"text_embedder": {"text": QUESTION}, "retriever": {"query": QUESTION}}
    result = pipeline.run(data, include_outputs_from={"explainer"})
    hits, windows = result["explainer"]["documents"], result["windows"]["context_windows"]
    assert len(hits) == len(windows) == 6
    assert any(len(window) > len(hit.content) for hit, window in zip(hits, windows, strict=True))
    for hit, window in zip(hits, windows, strict=True):
        assert hit.content in window
        assert hit.meta["why"].startswith("found for")
        assert any(match["token"][:5] in window.lower() for match in hit.meta["matched_tokens"])
    store.delete_all_documents()


@pytest.mark.slow
def test_the_example_answers_offline_in_one_command(smollm2):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENAI")}
    done = subprocess.run(
        [sys.executable, EXAMPLE / "run.py"],
        env={**environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    readme = (EXAMPLE / "README.md").read_text(encoding="utf-8")
    sources = [line for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(sources) == 3
    assert sources[0].startswith("[1] fog.md, The fog horn (")
    assert "found for foulis, proposed, robert (your words)" in sources[0]
    assert done.stdout.strip() in readme


@pytest.mark.slow
def test_the_example_is_a_chat_for_openai_s_clients(tmp_path):
    serve = ["run", "--pipelines-dir", str(EXAMPLE / "served"), "--additional-python-path", str(EXAMPLE)]
    with chat_server(lambda _: "A push moves it [1].") as (url, _):
        environment = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "a key"}
        with hayhooks(serve, tmp_path / "log", **environment) as address:
            messages = [{"role": "user", "content": "Why did lenses float on mercury?"}]
            body = json.dumps({"model": "rag", "messages": messages}).encode()
            request = Request(f"{address}/v1/chat/completions", body, {"Content-Type": "application/json"})
            with urlopen(request, timeout=60) as response:
                answer = json.load(response)["choices"][0]["message"]["content"]
    assert answer.startswith("A push moves it [1].\n")
    assert "[1] lenses.md, Floating on mercury (cited): found for mercury" in answer


@pytest.mark.slow
async def test_the_example_is_a_server_of_mcp_tools(tmp_path):
    serve = ["mcp", "run", "--pipelines-dir", str(EXAMPLE / "served"), "--additional-python-path", str(EXAMPLE)]
    with chat_server(lambda _: "A push moves it [1].") as (url, _):
        environment = {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "a key"}
        with hayhooks(serve, tmp_path / "log", **environment) as address:
            async with (
                streamable_http_client(f"{address}/mcp") as (read, write, _),
                ClientSession(read, write) as session,
            ):
                await session.initialize()
                tools = {tool.name: tool for tool in (await session.list_tools()).tools}
                described = tools["search"].inputSchema["properties"]
                edited = {"query": "a light in the fog", "mute": ["fog"], "require": ["horn"], "top_k": 1}
                search = await session.call_tool("search", edited)
                answer = await session.call_tool("rag", {"question": "Why did lenses float on mercury?"})
    assert tools["search"].description.startswith("Searches notes about lighthouses by meaning and by words")
    assert described.keys() == {"query", "boost", "mute", "require", "top_k"}
    assert all(each["description"] for each in described.values())
    assert not search.isError
    text = search.content[0].text
    assert "fog" not in text.splitlines()[0]
    assert "The fog horn" in text
    assert answer.content[0].text.startswith("A push moves it [1].\n")
