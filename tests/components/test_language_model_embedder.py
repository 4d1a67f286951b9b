# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import gc
import weakref
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever, TextEmbeddingRetriever
from haystack.components.writers import DocumentWriter
from haystack.core.serialization import component_from_dict
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice, Secret
from helpers.tiny_models import TEXTS

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder, LanguageModelEmbedder
from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import calibrate
from keytok_haystack.encoders import PRESETS, head_of
from keytok_haystack.encoders.language_model import LanguageModelEncoder

TYPE = "haystack_integrations.components.embedders.keytok.language_model_embedder.LanguageModelEmbedder"


@pytest.fixture(scope="module")
def model(tiny: Callable[[str], Path]) -> str:
    return f"gritlm-7b:{tiny('mistral')}"


@pytest.fixture(scope="module")
def encoder(model: str) -> LanguageModelEncoder:
    return LanguageModelEncoder(model)


@pytest.fixture
def embedder(model: str) -> LanguageModelEmbedder:
    return LanguageModelEmbedder(model, progress_bar=False)


@pytest.fixture
def documents() -> list[Document]:
    return [Document(content=text, meta={"title": f"no. {i}", "nested": {"i": i}}) for i, text in enumerate(TEXTS)]


def test_init_default():
    embedder = LanguageModelEmbedder("gritlm-7b")
    assert embedder.model == "gritlm-7b"
    assert embedder.instruction is None
    assert embedder.device == ComponentDevice.resolve_device(None)
    assert embedder.dtype is None
    assert embedder.token == Secret.from_env_var(["HF_API_TOKEN", "HF_TOKEN"], strict=False)
    assert (embedder.max_tokens, embedder.batch_tokens) == (None, None)
    assert (embedder.meta_fields_to_embed, embedder.embedding_separator) == ([], "\n")
    assert embedder.progress_bar is True


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model": "intfloat/e5-mistral-7b-instruct"},
            "is not the name of a preset: prompt-eol, .*SentenceTransformers",
        ),
        ({"model": "prompt-eol"}, "name it, as in 'prompt-eol:PATH'"),
        ({"model": "opt-eol", "instruction": "Find"}, "takes no instruction: leave it out"),
        ({"model": "opt-eol", "max_tokens": 0}, "max_tokens must be greater than 0, but got 0"),
        ({"model": "opt-eol", "batch_tokens": -1}, "batch_tokens must be greater than 0, but got -1"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LanguageModelEmbedder(**settings)


def test_serialization(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OWN_TOKEN", "secret")
    embedder = LanguageModelEmbedder(
        "gritlm-7b",
        instruction="Find",
        device=ComponentDevice.from_str("cpu"),
        dtype="bfloat16",
        token=Secret.from_env_var("OWN_TOKEN"),
        max_tokens=64,
        batch_tokens=512,
        meta_fields_to_embed=["title"],
        embedding_separator=" | ",
        progress_bar=False,
    )
    data = embedder.to_dict()
    assert data == {
        "type": TYPE,
        "init_parameters": {
            "model": "gritlm-7b",
            "instruction": "Find",
            "device": {"type": "single", "device": "cpu"},
            "dtype": "bfloat16",
            "token": {"type": "env_var", "env_vars": ["OWN_TOKEN"], "strict": True},
            "max_tokens": 64,
            "batch_tokens": 512,
            "meta_fields_to_embed": ["title"],
            "embedding_separator": " | ",
            "progress_bar": False,
        },
    }
    before = deepcopy(data)
    loaded = component_from_dict(LanguageModelEmbedder, data, "embedder")
    assert data == before
    assert loaded.to_dict() == data
    assert loaded.device == ComponentDevice.from_str("cpu")
    assert loaded.token == Secret.from_env_var("OWN_TOKEN")


def test_a_serialized_component_needs_only_the_model():
    data = {"type": TYPE, "init_parameters": {"model": "gritlm-7b"}}
    embedder = component_from_dict(LanguageModelEmbedder, data, "embedder")
    assert embedder.to_dict() == LanguageModelEmbedder("gritlm-7b").to_dict()
    without = LanguageModelEmbedder("gritlm-7b", token=None)
    assert component_from_dict(LanguageModelEmbedder, without.to_dict(), "embedder").token is None


def test_a_token_that_is_written_out_is_not_serialized():
    with pytest.raises(ValueError, match="Cannot serialize token"):
        LanguageModelEmbedder("gritlm-7b", token=Secret.from_token("secret")).to_dict()


def test_documents_get_embeddings_and_are_not_changed(
    embedder: LanguageModelEmbedder, encoder: LanguageModelEncoder, documents: list[Document]
):
    before = deepcopy(documents)
    embedded = embedder.run(documents=documents)["documents"]
    assert documents == before
    np.testing.assert_array_equal([each.embedding for each in embedded], encoder.encode(TEXTS))
    assert [type(value) for value in embedded[0].embedding[:2]] == [float, float]
    for new, old in zip(embedded, documents, strict=True):
        assert new is not old
        assert (new.id, new.content, new.meta) == (old.id, old.content, old.meta)


def test_a_text_is_embedded_as_a_query(model: str, embedder: LanguageModelEmbedder, encoder: LanguageModelEncoder):
    embedding = embedder.run(text="lift")["embedding"]
    np.testing.assert_array_equal(embedding, encoder.encode(["lift"], "query")[0])
    own = LanguageModelEmbedder(model, instruction="Find the wing", progress_bar=False)
    found = own.run(text="lift")["embedding"]
    np.testing.assert_array_equal(found, encoder.encode(["lift"], "query", "Find the wing")[0])
    assert np.abs(np.subtract(found, embedding)).max() > 0.01
    document = own.run(documents=[Document(content="lift")])["documents"][0]
    np.testing.assert_array_equal(document.embedding, encoder.encode(["lift"])[0])


def test_it_is_called_as_haystacks_own_text_and_document_embedders(
    embedder: LanguageModelEmbedder, documents: list[Document]
):
    assert embedder.run("lift") == embedder.run(text="lift")
    assert embedder.run(documents) == embedder.run(documents=documents)
    embedding = embedder.run(text=TEXTS[2])["embedding"]
    store = InMemoryDocumentStore()
    store.write_documents(embedder.run(documents)["documents"])
    retriever = InMemoryEmbeddingRetriever(document_store=store, top_k=3)
    found = TextEmbeddingRetriever(retriever=retriever, text_embedder=embedder).run(TEXTS[2])["documents"]
    assert found == retriever.run(query_embedding=embedding)["documents"]


def test_fields_of_meta_are_embedded_before_the_content(model: str, encoder: LanguageModelEncoder):
    embedder = LanguageModelEmbedder(
        model, meta_fields_to_embed=["title", "year", "missing"], embedding_separator=" | ", progress_bar=False
    )
    metas = [{"title": "Wings", "year": 1955}, {"title": "", "year": None}, {"title": "Waves", "year": 0}]
    documents = [
        Document(content=content, meta=meta) for content, meta in zip(("lift", "drag", None), metas, strict=True)
    ]
    embedded = embedder.run(documents=documents)["documents"]
    expected = encoder.encode(["Wings | 1955 | lift", "drag", "Waves | 0 | "])
    np.testing.assert_allclose([each.embedding for each in embedded], expected, atol=1e-6)


def test_settings_reach_the_encoder(tiny: Callable[[str], Path]):
    embedder = LanguageModelEmbedder(
        f"prompt-eol:{tiny('llama')}", max_tokens=30, dtype="bfloat16", device=ComponentDevice.from_str("cpu")
    )
    text = " ".join(TEXTS)
    expected = LanguageModelEncoder(embedder.model, max_tokens=30, dtype="bfloat16", device="cpu").encode([text])[0]
    np.testing.assert_array_equal(embedder.run(text=text)["embedding"], expected)
    assert np.abs(LanguageModelEncoder(embedder.model).encode([text])[0] - expected).max() > 0.01
    with pytest.raises(ValueError, match="The device 'cuda:99' cannot be used"):
        LanguageModelEmbedder(embedder.model, device=ComponentDevice.from_str("cuda:99")).run(text="lift")


def test_no_documents_load_no_model():
    assert LanguageModelEmbedder("prompt-eol:/no/where").run(documents=[]) == {"documents": []}


def test_exactly_one_input_is_needed(embedder: LanguageModelEmbedder, documents: list[Document]):
    for inputs in (
        {},
        {"documents": documents, "text": "lift"},
        {"documents": [], "text": ""},
        {"documents": "lift", "text": "lift"},
    ):
        with pytest.raises(ValueError, match="needs exactly one of `documents` and `text`"):
            embedder.run(**inputs)


@pytest.mark.parametrize("documents", [["lift"], [None], Document(content="lift"), [0.5], b"lift"])
def test_only_lists_of_documents_are_accepted(embedder: LanguageModelEmbedder, documents: object):
    with pytest.raises(TypeError, match="LanguageModelEmbedder expects a list of Documents"):
        embedder.run(documents=documents)


def test_texts_that_cannot_be_embedded_are_refused(embedder: LanguageModelEmbedder):
    with pytest.raises(TypeError, match="of type list"):
        embedder.run(text=["lift"])
    with pytest.raises(ValueError, match="half a surrogate pair"):
        embedder.run(text="\ud83d")
    with pytest.raises(ValueError, match="Text 1 is empty"):
        embedder.run(documents=[Document(content="lift"), Document(content=None)])


def test_warm_up_close_and_run_again(embedder: LanguageModelEmbedder):
    embedder.warm_up()
    encoder = weakref.ref(embedder._encoder)
    embedding = embedder.run(text="lift")["embedding"]
    assert embedder._encoder is encoder()  # loaded once
    embedder.close()
    gc.collect()
    assert encoder() is None
    assert embedder.run(text="lift")["embedding"] == embedding
    embedder.close()
    embedder.close()
    with pytest.raises(ValueError, match="'/no/where' is not a language model that can be loaded"):
        LanguageModelEmbedder("prompt-eol:/no/where").warm_up()


def test_progress_is_shown_where_it_is_wanted(
    model: str, documents: list[Document], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("keytok_haystack.utils.progress._SECONDS", 0)  # all of the lines that are said elsewhere
    for wanted in (True, False):
        embedder = LanguageModelEmbedder(model, progress_bar=wanted)
        embedder.warm_up()
        capsys.readouterr()
        embedder.run(documents=documents)
        assert (f"{len(documents)}/{len(documents)}" in capsys.readouterr().err) == wanted
        embedder.run(text="lift")
        assert "Embedding" not in capsys.readouterr().err


def test_in_pipelines_that_are_stored_as_yaml(tiny: Callable[[str], Path], documents: list[Document], tmp_path: Path):
    """Index and query with the head of the language model itself."""
    model = f"prompt-eol:{tiny('llama')}"
    embeddings = LanguageModelEncoder(model).encode(TEXTS)
    key_tokens = calibrate(head_of(model), embeddings, TEXTS, embedder=model)
    key_tokens.save(tmp_path / "model")
    store = InMemoryDocumentStore()

    indexing = Pipeline()
    indexing.add_component("dense", LanguageModelEmbedder(model, device=ComponentDevice.from_str("cpu")))
    indexing.add_component("sparse", KeyTokenSparseEmbedder(str(tmp_path / "model"), progress_bar=False))
    indexing.add_component("writer", DocumentWriter(store))
    indexing.connect("dense.documents", "sparse.documents")
    indexing.connect("sparse.documents", "writer.documents")
    stored = indexing.dumps()
    loaded = Pipeline.loads(stored)
    assert loaded.dumps() == stored
    loaded.run({"dense": {"documents": documents}})
    written = sorted(store.filter_documents(), key=lambda document: document.meta["nested"]["i"])
    np.testing.assert_allclose([each.embedding for each in written], embeddings, atol=1e-6)
    expected = key_tokens.document_tokens(key_tokens.encode_documents(embeddings, TEXTS))
    for document, tokens in zip(written, expected, strict=True):
        assert tokens
        assert document.meta["key_tokens"] == pytest.approx(tokens, rel=1e-3)

    querying = Pipeline()
    querying.add_component("dense", LanguageModelEmbedder(model, device=ComponentDevice.from_str("cpu")))
    querying.add_component("sparse", KeyTokenSparseEmbedder(str(tmp_path / "model"), progress_bar=False))
    querying.add_component("retriever", SparseRetriever(store, top_k=2))
    querying.connect("dense.embedding", "sparse.embedding")
    querying.connect("sparse.key_tokens", "retriever.key_tokens")
    found = Pipeline.loads(querying.dumps()).run({"dense": {"text": TEXTS[2]}, "sparse": {"text": TEXTS[2]}})[
        "retriever"
    ]["documents"]
    assert found[0].content == TEXTS[2]


def test_every_preset_can_be_a_component():
    for name, preset in PRESETS.items():
        model = name if preset.checkpoint else f"{name}:folder"
        assert LanguageModelEmbedder(model).to_dict()["init_parameters"]["model"] == model
