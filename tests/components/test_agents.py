# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Retrievers as tools of an agent, called as a client calls them."""

import json

import pytest
from haystack import Document, component
from haystack.components.agents import Agent
from haystack.core.serialization import component_from_dict, component_to_dict
from haystack.dataclasses import ChatMessage, ToolCall
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.tools import ComponentTool
from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder
from hypothesis import given, settings
from hypothesis import strategies as st

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder
from haystack_integrations.components.retrievers.keytok import (
    EditableQueryRetriever,
    KeyTokenHybridRetriever,
    SparseRetriever,
)

QUESTION = "papers on shock-sound wave interaction"
WORDS = ["shock", "sound", "wave", "noise", "acoustic", "turbulence", "layer"]


@component
class Scripted:
    """A chat generator that makes the next of the given tool calls, and then repeats what the last tool told."""

    def __init__(self, calls: list[dict]) -> None:
        self.calls = calls
        self.offered: list = []

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage], tools: list | None = None) -> dict:
        self.offered = [tool.tool_spec for tool in tools]
        done = sum(bool(message.tool_calls) for message in messages)
        if done < len(self.calls):
            call = ToolCall(tool_name=self.offered[0]["name"], arguments=self.calls[done])
            return {"replies": [ChatMessage.from_assistant(tool_calls=[call])]}
        return {"replies": [ChatMessage.from_assistant(messages[-1].tool_call_result.result)]}


@pytest.fixture(scope="module")
def filled(cranfield, cranfield_documents, cranfield_model_folder) -> InMemoryDocumentStore:
    rows = zip(cranfield.documents.items(), cranfield_documents.embeddings, strict=True)
    documents = [
        Document(id=key, content=text, embedding=row.tolist(), meta={"year": 1950 + i % 20})
        for i, ((key, text), row) in enumerate(rows)
    ]
    store = InMemoryDocumentStore(return_embedding=False)
    store.write_documents(
        KeyTokenSparseEmbedder(cranfield_model_folder, progress_bar=False).run(documents)["documents"]
    )
    return store


@pytest.fixture(scope="module")
def text_embedder(embedder) -> SentenceTransformersTextEmbedder:
    return SentenceTransformersTextEmbedder(model=embedder, progress_bar=False)


@pytest.fixture(scope="module")
def search(filled, text_embedder, cranfield_model_folder) -> EditableQueryRetriever:
    retriever = SparseRetriever(filled, model=cranfield_model_folder, dense_weight=1.5, bm25_weight=0.05, top_k=3)
    return EditableQueryRetriever(retriever, text_embedder=text_embedder)


def answers_of(tool: ComponentTool, calls: list[dict]) -> tuple[list[str], Scripted]:
    """What a tool tells an agent that makes these calls, one after the other."""
    generator = Scripted(calls)
    result = Agent(chat_generator=generator, tools=[tool]).run(messages=[ChatMessage.from_user(QUESTION)])
    told = [m.tool_call_result.result for m in result["messages"] if m.tool_call_result is not None]
    assert result["last_message"].text == told[-1]
    return told, generator


def tool_of(search: EditableQueryRetriever) -> ComponentTool:
    description = "Searches abstracts of papers on aerodynamics."
    return ComponentTool(search, name="search", description=description, outputs_to_string={"source": "text"})


def test_an_agent_edits_its_query_until_it_finds_what_it_wants(search, filled):
    calls = [
        {"query": QUESTION},
        {"query": QUESTION, "mute": ["interactions"], "boost": ["noise"]},
        {"query": QUESTION, "require": ["unicorn"]},
        {"query": QUESTION, "require": ["turbulence", "noise"], "top_k": 2},
    ]
    (plain, edited, nothing, required), generator = answers_of(tool_of(search), calls)
    (specification,) = generator.offered
    assert {*specification["parameters"]["properties"]} == {"query", "boost", "mute", "require", "filters", "top_k"}
    assert all(each["description"] for each in specification["parameters"]["properties"].values())
    assert "1. id 64, score" in plain
    assert "found for sound, wave, shock (your words) and" in plain
    assert filled.storage["64"].content in plain
    assert "interaction" in plain.splitlines()[0]
    assert "interaction" not in edited.splitlines()[0]
    assert edited.startswith("Tokens of the query: noise 2.00, ")
    assert "Nothing found. No document that the query finds has all required tokens: unicorn." in nothing
    assert "None of the returned documents has 'unicorn'. Similar tokens of the model: " in nothing
    hits = [line.split()[2].strip(",") for line in required.splitlines() if line[:3] in ("1. ", "2. ", "3. ")]
    assert len(hits) == 2
    for hit in hits:
        assert filled.storage[hit].meta["key_tokens"].keys() >= {"turbulent", "noise"}


@settings(max_examples=25)
@given(
    boost=st.lists(st.sampled_from(WORDS), max_size=2),
    mute=st.lists(st.sampled_from(WORDS), max_size=3),
    require=st.lists(st.sampled_from(WORDS), max_size=2),
)
def test_edits_do_what_they_say(boost, mute, require, search, filled, text_embedder):
    key_of = {word: {"turbulence": "turbulent"}.get(word, word) for word in WORDS}
    boosted, muted, required = ([key_of[word] for word in words] for words in (boost, mute, require))
    unedited = search.run(QUESTION)["key_tokens"]
    result = search.run(QUESTION, boost=boost, mute=mute, require=require)
    strongest = max(unedited.values())
    expected = {key: weight for key, weight in unedited.items() if key not in muted}
    expected |= {key: expected.get(key, strongest) for key in required}
    expected |= dict.fromkeys(boosted, 2 * strongest)
    assert result["key_tokens"] == expected
    for hit in result["documents"]:
        assert filled.storage[hit.id].meta["key_tokens"].keys() >= {*required}
        assert hit.meta["why"].startswith("found for")
    if not (boost or mute or require):
        same = search.retriever.run(query_embedding=text_embedder.run(QUESTION)["embedding"], query=QUESTION)
        assert [(d.id, d.score) for d in result["documents"]] == [(d.id, d.score) for d in same["documents"]]


def test_a_muted_word_counts_neither_as_a_token_nor_in_bm25(search):
    hits = search.run("waves", mute=["wave"], boost=["noise"])["documents"]
    assert hits
    for hit in hits:
        assert hit.meta["score_parts"]["bm25"]["score"] == 0
        assert "wave" not in {match["token"] for match in hit.meta["matched_tokens"]}


def test_edits_without_effect_are_answered_with_what_there_is(search):
    notes = search.run(QUESTION, mute=["banana"], boost=["the", "turbulnce"])["notes"]
    assert notes[0] == "'the' cannot be searched for and was ignored."
    assert notes[1].startswith("'banana' was not muted: the tokens of this query are sound 1.00, ")
    assert notes[2].startswith("None of the returned documents has 'turbulnce'. Similar tokens of the model: ")
    assert "turbulen" in notes[2]


def test_an_agent_is_told_what_is_wrong_with_its_filters(search):
    year = {"field": "meta.year", "operator": ">=", "value": 1965}
    told, _ = answers_of(
        tool_of(search), [{"query": QUESTION, "filters": {"year": 1965}}, {"query": QUESTION, "filters": year}]
    )
    assert "1. id" not in told[0]
    assert "Invalid filter syntax" in told[0]
    assert "1. id" in told[1]
    hits = search.run(QUESTION, filters=year)["documents"]
    assert hits
    assert all(hit.meta["year"] >= 1965 for hit in hits)


def test_a_retriever_without_a_model_cannot_read_a_query(filled, text_embedder):
    with pytest.raises(ValueError, match="set its `model`"):
        EditableQueryRetriever(SparseRetriever(filled), text_embedder=text_embedder)


def test_the_editable_retriever_comes_back_from_its_data(search):
    data = component_to_dict(search, "search")
    search.close()
    again = component_from_dict(EditableQueryRetriever, json.loads(json.dumps(data)), "search")
    assert component_to_dict(again, "search") == data
    assert again.run(QUESTION) == search.run(QUESTION)  # both stores have the same name, so the same documents


def test_the_hybrid_retriever_is_a_tool_as_it_is(filled, text_embedder, cranfield_model_folder):
    hybrid = KeyTokenHybridRetriever(filled, embedder=text_embedder, model=cranfield_model_folder)

    def listed(documents: list[Document]) -> str:
        return "\n".join(f"{hit.id}: {hit.meta['why']}" for hit in documents)

    tool = ComponentTool(
        hybrid,
        name="search",
        description="Searches abstracts of papers on aerodynamics.",
        outputs_to_string={"source": "documents", "handler": listed},
    )
    year = {"field": "meta.year", "operator": ">=", "value": 1965}
    (two, later), generator = answers_of(
        tool, [{"query": QUESTION, "top_k": 2}, {"query": QUESTION, "filters": year, "top_k": 5}]
    )
    parameters = generator.offered[0]["parameters"]["properties"]
    assert parameters["query"]["description"] == "What to search for, in a phrase or a sentence."
    assert '{"field": "meta.year", "operator": ">=", "value": 1960}' in parameters["filters"]["description"]
    assert parameters["top_k"]["description"] == "Maximum number of documents to return."
    assert {*parameters} == {"query", "filters", "top_k"}
    assert two.startswith("64: found for sound, wave, shock (your words) and")
    assert len(two.splitlines()) == 2
    assert len(later.splitlines()) == 5
    assert all(filled.storage[line.split(":")[0]].meta["year"] >= 1965 for line in later.splitlines())


def test_an_agent_is_told_of_edits_that_contradict_each_other(search):
    notes = search.run(QUESTION, mute=["shock"], require=["shock"])["notes"]
    assert notes == ["'shock' was not muted, since it is boosted or required, too."]


def test_filters_that_leave_nothing_are_not_blamed_on_words(search):
    nowhere = {"field": "meta.year", "operator": "==", "value": 1}
    found = search.run(QUESTION, require=["shock"], filters=nowhere)
    assert "The filters leave out every document" in found["text"]
    assert found["notes"] == []
