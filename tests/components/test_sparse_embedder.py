# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import gc
import math
import shutil
import time
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.components.writers import DocumentWriter
from haystack.core.serialization import component_from_dict
from haystack.dataclasses import ByteStream
from haystack.document_stores.in_memory import InMemoryDocumentStore
from helpers.rankings import stored

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder, PC1Adjuster
from haystack_integrations.components.embedders.keytok.loading import load_model
from haystack_integrations.components.retrievers.keytok import SparseRetriever
from keytok_haystack import (
    EmbeddingError,
    KeyTokenModel,
    ModelFolderError,
    Preparation,
    Spectrum,
    TokenDecoder,
    fit,
)
from keytok_haystack.sparse_vectors.rank_features import escape_feature

TYPE = "haystack_integrations.components.embedders.keytok.sparse_embedder.KeyTokenSparseEmbedder"
UNUSABLE = {
    "wrong dimension": [1.0, 2.0],
    "no dimension": [],
    "NaN": [1.0] * 7 + [float("nan")],
    "infinity": [1.0] * 7 + [float("inf")],
    "zero": [0.0] * 8,
    "not numbers": ["shock"] * 8,
}


@pytest.fixture
def documents(small_embeddings: np.ndarray, small_texts: list[str]) -> list[Document]:
    return [
        Document(content=text, embedding=embedding.tolist(), meta={"source": "test", "nested": {"position": i}})
        for i, (text, embedding) in enumerate(zip(small_texts, small_embeddings, strict=True))
    ]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that models are loaded from."""
    paths = []
    original = KeyTokenModel.load

    def load(path):
        paths.append(str(path))
        time.sleep(0.02)  # long enough for other threads to come along
        return original(path)

    monkeypatch.setattr(KeyTokenModel, "load", load)
    return paths


def dense_logits(model: KeyTokenModel, embedding: np.ndarray) -> dict[str, float]:
    """The decoder's definition: the weight matrix times the centred embedding of unit length."""
    embedding = embedding.astype(np.float64)
    prepared = embedding / np.sqrt((embedding**2).sum()) - model.decoder.preparation.mean
    # features without a row in the decoder have no logit
    return dict(zip(model.vocabulary.keys, model.decoder.weight.astype(np.float64) @ prepared, strict=False))


def joined_logits(model: KeyTokenModel, document: Document) -> dict[str, float]:
    """The positive logits of a document, to which its literal tokens have been added, strongest first."""
    logits = dense_logits(model, np.array(document.embedding))
    counts = Counter(word for word in (document.content or "").lower().split() if word in model.vocabulary.features)
    share = model.weighting.literal_share / (1 - model.weighting.literal_share)
    for word, tf in counts.items():
        idf = float(model.idf[model.vocabulary.features.index(word)])
        own = share * model.weighting.literal_scale * idf * math.sqrt(tf / counts.total())
        logits[escape_feature(word)] = logits.get(escape_feature(word), 0.0) + own
    return {key: logits[key] for key in sorted(logits, key=lambda key: -logits[key]) if logits[key] > 0}


def damped(model: KeyTokenModel, logits: dict[str, float]) -> dict[str, float]:
    level = max(logits.values(), default=1.0) ** 0.25
    return {key: (logit / level) ** 0.5 / model.weighting.weight_scale for key, logit in logits.items()}


def test_init_default():
    embedder = KeyTokenSparseEmbedder("models/mine")
    assert embedder.model == "models/mine"
    assert embedder.top_k is None
    assert embedder.query_top_k is None
    assert embedder.field == "key_tokens"
    assert embedder.return_sparse_embedding is False
    assert embedder.batch_size == 1024
    assert embedder.progress_bar is True


def test_init_with_parameters():
    embedder = KeyTokenSparseEmbedder(
        Path("models") / "mine",
        top_k=5,
        query_top_k=0,
        field="tokens",
        return_sparse_embedding=True,
        batch_size=2,
        progress_bar=False,
    )
    assert embedder.model == str(Path("models") / "mine")
    assert (embedder.top_k, embedder.query_top_k, embedder.field, embedder.batch_size) == (5, 0, "tokens", 2)
    assert embedder.return_sparse_embedding is True
    assert embedder.progress_bar is False


@pytest.mark.parametrize("name", ["top_k", "query_top_k", "batch_size"])
def test_a_number_without_a_meaning_is_refused(name):
    with pytest.raises(ValueError, match=rf"{name} must .*-1"):
        KeyTokenSparseEmbedder("models/mine", **{name: -1})


@pytest.mark.parametrize("name", ["top_k", "batch_size"])
def test_zero_is_refused(name):
    with pytest.raises(ValueError, match=name):
        KeyTokenSparseEmbedder("models/mine", **{name: 0})


def test_to_dict():
    assert KeyTokenSparseEmbedder("models/mine").to_dict() == {
        "type": TYPE,
        "init_parameters": {
            "model": "models/mine",
            "top_k": None,
            "query_top_k": None,
            "field": "key_tokens",
            "return_sparse_embedding": False,
            "batch_size": 1024,
            "progress_bar": True,
            "raise_on_failure": True,
        },
    }


def test_to_dict_with_custom_parameters():
    embedder = KeyTokenSparseEmbedder(
        Path("m"),
        top_k=5,
        query_top_k=3,
        field="t",
        return_sparse_embedding=True,
        batch_size=2,
        progress_bar=False,
        raise_on_failure=False,
    )
    assert embedder.to_dict() == {
        "type": TYPE,
        "init_parameters": {
            "model": "m",
            "top_k": 5,
            "query_top_k": 3,
            "field": "t",
            "return_sparse_embedding": True,
            "batch_size": 2,
            "progress_bar": False,
            "raise_on_failure": False,
        },
    }


def test_from_dict():
    data = {"type": TYPE, "init_parameters": {"model": "models/mine", "top_k": 7, "field": "t"}}
    embedder = component_from_dict(KeyTokenSparseEmbedder, data, "embedder")
    assert (embedder.model, embedder.top_k, embedder.field, embedder.batch_size) == ("models/mine", 7, "t", 1024)


def test_warm_up_loads_the_model_once_and_for_good(small_model_folder, documents, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small_model_folder, folder)
    embedder = KeyTokenSparseEmbedder(folder)
    embedder.warm_up()
    shutil.rmtree(folder)
    embedder.warm_up()
    assert embedder.run(documents=documents[:1])["documents"][0].meta["key_tokens"]


def test_an_unknown_model_is_named(documents, tmp_path):
    embedder = KeyTokenSparseEmbedder(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="nothing"):
        embedder.warm_up()
    with pytest.raises(FileNotFoundError, match="nothing"):
        embedder.run(documents=documents)


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "decoder.safetensors", "spectrum.safetensors"])
@pytest.mark.parametrize("damage", ["cut off", "missing", "flipped bit"])
def test_a_corrupt_model_folder_is_refused(name, damage, small_model_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small_model_folder, folder)
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    if damage == "cut off":
        (folder / name).write_bytes(content[: len(content) // 2])
    elif damage == "flipped bit":
        (folder / name).write_bytes(content[:-40] + bytes([content[-40] ^ 1]) + content[-39:])
    with pytest.raises(ModelFolderError, match="model"):
        KeyTokenSparseEmbedder(folder).warm_up()


@pytest.mark.parametrize("content", ["its own", None, "", "...", "unheard-of words"])
def test_a_document_gets_the_damped_and_scaled_positive_logits(content, small_model, small_model_folder, documents):
    if content != "its own":
        documents = [replace(document, content=content) for document in documents]
    for document in KeyTokenSparseEmbedder(small_model_folder).run(documents=documents)["documents"]:
        assert document.content == content or content == "its own"
        expected = damped(small_model, joined_logits(small_model, document))
        tokens = document.meta["key_tokens"]
        assert tokens.keys() == expected.keys()
        for key, weight in tokens.items():
            assert weight == pytest.approx(expected[key], rel=2**-8, abs=0.0101)  # in steps of 0.02
        assert list(tokens.values()) == sorted(tokens.values(), reverse=True)


def test_the_strongest_weight_is_one_in_the_mean_over_the_fitting_corpus(small_model_folder, documents):
    results = KeyTokenSparseEmbedder(small_model_folder).run(documents=documents)["documents"]
    maxima = [max(document.meta["key_tokens"].values(), default=0) for document in results]
    assert np.mean(maxima) == pytest.approx(1, rel=2**-8)


def test_top_k_keeps_the_strongest(small_model, small_model_folder, documents):
    for document in KeyTokenSparseEmbedder(small_model_folder, top_k=3).run(documents=documents)["documents"]:
        strongest = dict(list(joined_logits(small_model, document).items())[:3])
        assert set(document.meta["key_tokens"]) == set(strongest)
        expected = damped(small_model, strongest)
        assert document.meta["key_tokens"] == pytest.approx(expected, abs=0.0101, rel=2**-8)


def test_the_content_of_documents_joins(small_model_folder, documents):
    embedder = KeyTokenSparseEmbedder(small_model_folder)
    with_content = embedder.run(documents=documents)["documents"]
    without = embedder.run(documents=[replace(document, content=None) for document in documents])["documents"]
    for document, other in zip(with_content, without, strict=True):
        assert document.meta["key_tokens"] != other.meta["key_tokens"]
        # other documents in the batch make no difference
        assert embedder.run(documents=[document])["documents"][0].meta == document.meta


def test_half_a_surrogate_pair_names_the_document(small_model_folder, documents):
    cut = Document(id="cut off", content="lift \ud83d", embedding=documents[0].embedding)
    with pytest.raises(ValueError, match=r"document 'cut off' has half a surrogate pair"):
        KeyTokenSparseEmbedder(small_model_folder, batch_size=7).run(documents=[*documents, cut])


@pytest.fixture
def with_rare_words(small_texts, small_embeddings, small_vocabulary, tmp_path):
    """The folder of a model of documents among which only one has the word "speed" and none has "3.5"."""
    texts = [" ".join(word for word in text.split() if word not in ("speed", "3.5")) for text in small_texts]
    texts[17] += " speed"
    model = fit(small_embeddings, texts, small_vocabulary, min_df=2)
    assert {"speed", "3.5"} <= set(model.vocabulary.features[len(model.decoder) :])
    model.save(tmp_path / "model")
    pairs = zip(texts, small_embeddings, strict=True)
    documents = [Document(id=f"{i:02}", content=t, embedding=e.tolist()) for i, (t, e) in enumerate(pairs)]
    return tmp_path / "model", documents


@pytest.mark.parametrize(("word", "identifier"), [("speed", "17"), ("3.5", "new")])
@pytest.mark.parametrize("with_bm25", [False, True])
def test_a_document_is_found_by_a_word_that_fitting_has_seen_once_or_never(
    word, identifier, with_bm25, with_rare_words, small_embeddings
):
    folder, documents = with_rare_words
    documents.append(Document(id="new", content="wing 3.5 flow", embedding=documents[4].embedding))
    store = InMemoryDocumentStore()
    embedder = KeyTokenSparseEmbedder(folder, return_sparse_embedding=True)
    store.write_documents(embedder.run(documents=documents)["documents"])
    query = KeyTokenSparseEmbedder(folder, query_top_k=2).run(embedding=small_embeddings[30].tolist(), text=word)
    alone = KeyTokenSparseEmbedder(folder, query_top_k=0).run(embedding=small_embeddings[30].tolist(), text=word)
    assert alone["key_tokens"] == {escape_feature(word): 1.0}
    bm25 = {"model": folder, "bm25_weight": 0.1} if with_bm25 else {}
    retriever = SparseRetriever(store, top_k=61, **bm25)
    text = {"query": word} if with_bm25 else {}
    found = retriever.run(key_tokens=alone["key_tokens"], **text)["documents"]
    assert [document.id for document in found] == [identifier]
    assert identifier in [d.id for d in retriever.run(key_tokens=query["key_tokens"], **text)["documents"]]
    # the sparse embeddings say the same
    ((index, value),) = zip(alone["sparse_embedding"].indices, alone["sparse_embedding"].values, strict=True)
    assert value == 1.0
    assert [d.id for d in store.filter_documents() if index in d.sparse_embedding.indices] == [identifier]


def test_inputs_are_not_mutated_and_outputs_keep_everything_else(small_model_folder, small_embeddings):
    document = Document(
        id="mine",
        content="shock",
        blob=ByteStream(b"1"),
        meta={"a": {"b": 1}, "key_tokens": {"old": 1.0}},
        score=0.5,
        embedding=small_embeddings[0].tolist(),
    )
    before = deepcopy(document)
    (result,) = KeyTokenSparseEmbedder(small_model_folder).run(documents=[document])["documents"]
    assert document == before
    assert result is not document
    assert (result.id, result.content, result.blob, result.score) == ("mine", "shock", ByteStream(b"1"), 0.5)
    assert result.embedding == before.embedding
    assert result.meta["a"] == {"b": 1}
    assert "old" not in result.meta["key_tokens"]
    assert result.sparse_embedding is None


def test_a_generated_id_is_kept(small_model_folder, documents):
    results = KeyTokenSparseEmbedder(small_model_folder, return_sparse_embedding=True).run(documents=documents)
    assert [document.id for document in results["documents"]] == [document.id for document in documents]


def test_field_names_the_key_in_meta(small_model_folder, documents):
    (result,) = KeyTokenSparseEmbedder(small_model_folder, field="tokens").run(documents=documents[:1])["documents"]
    assert result.meta["tokens"]
    assert "key_tokens" not in result.meta


def test_the_sparse_embedding_of_a_document_is_its_key_tokens(small_model, small_model_folder, documents):
    embedder = KeyTokenSparseEmbedder(small_model_folder, return_sparse_embedding=True)
    for document in embedder.run(documents=documents)["documents"]:
        sparse = document.sparse_embedding
        named = {small_model.vocabulary.keys[i]: v for i, v in zip(sparse.indices, sparse.values, strict=True)}
        assert named == {key: stored(weight) for key, weight in document.meta["key_tokens"].items()}


def test_batches_change_nothing(small_model_folder, documents, capsys):
    whole = KeyTokenSparseEmbedder(small_model_folder).run(documents=documents)
    assert (
        KeyTokenSparseEmbedder(small_model_folder, batch_size=7, progress_bar=False).run(documents=documents) == whole
    )
    assert capsys.readouterr().err == ""


def test_a_progress_bar_is_shown_for_more_than_one_batch(small_model_folder, documents, capsys):
    KeyTokenSparseEmbedder(small_model_folder).run(documents=documents)
    assert capsys.readouterr().err == ""
    KeyTokenSparseEmbedder(small_model_folder, batch_size=7).run(documents=documents)
    assert "9/9" in capsys.readouterr().err


def test_documents_that_cannot_be_processed_are_returned_unchanged_where_that_is_asked_for(
    small_model_folder, documents, caplog
):
    bad = [
        Document(id="none", content="shock"),
        Document(id="cut", content="\ud83d", embedding=[1.0] * 8),
        *(Document(id=name, content="shock", embedding=embedding) for name, embedding in UNUSABLE.items()),
    ]
    mixed = [bad[0], *documents[:30], *bad[1:], *documents[30:]]
    options = {"batch_size": 16, "progress_bar": False}
    expected = KeyTokenSparseEmbedder(small_model_folder, **options).run(documents=documents)["documents"]
    with pytest.raises(ValueError, match="'none'"):
        KeyTokenSparseEmbedder(small_model_folder, **options).run(documents=mixed)
    assert not caplog.text
    found = KeyTokenSparseEmbedder(small_model_folder, **options, raise_on_failure=False).run(documents=mixed)
    assert [id(each) for each in found["documents"] if each.id in {one.id for one in bad}] == [id(each) for each in bad]
    assert [each for each in found["documents"] if each.id not in {one.id for one in bad}] == expected
    for document in bad:
        assert f"'{document.id}'" in caplog.text
    only_bad = KeyTokenSparseEmbedder(small_model_folder, raise_on_failure=False).run(documents=bad)["documents"]
    assert only_bad == bad


def test_run_on_empty_list(small_model_folder):
    assert KeyTokenSparseEmbedder(small_model_folder).run(documents=[]) == {
        "documents": [],
        "meta": {"confidences": []},
    }


@pytest.mark.parametrize("wrong", ["shock", ["shock"], [1, 2], Document(content="shock"), ({},)])
def test_run_wrong_input(small_model_folder, wrong):
    with pytest.raises(TypeError, match="KeyTokenSparseEmbedder"):
        KeyTokenSparseEmbedder(small_model_folder).run(documents=wrong)


def test_both_or_neither_input_is_refused(small_model_folder, documents):
    embedder = KeyTokenSparseEmbedder(small_model_folder)
    for inputs in ({}, {"text": "shock"}, {"documents": documents, "embedding": documents[0].embedding}):
        with pytest.raises(ValueError, match="exactly one"):
            embedder.run(**inputs)


def test_text_without_an_embedding_is_refused(small_model_folder, documents):
    with pytest.raises(ValueError, match="text"):
        KeyTokenSparseEmbedder(small_model_folder).run(documents=documents, text="shock")


def test_a_document_without_embedding_is_named(small_model_folder, documents):
    with pytest.raises(EmbeddingError, match="'lacking'"):
        KeyTokenSparseEmbedder(small_model_folder).run(documents=[*documents, Document(id="lacking", content="x")])


@pytest.mark.parametrize("embedding", UNUSABLE.values(), ids=UNUSABLE)
def test_a_document_with_an_unusable_embedding_is_named(embedding, small_model_folder, documents):
    bad = Document(id="unusable", content="x", embedding=embedding)
    with pytest.raises(EmbeddingError, match="'unusable'"):
        KeyTokenSparseEmbedder(small_model_folder).run(documents=[*documents, bad])


@pytest.mark.parametrize("embedding", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_query_embedding_is_refused(embedding, small_model_folder):
    with pytest.raises(EmbeddingError):
        KeyTokenSparseEmbedder(small_model_folder).run(embedding=embedding)


@pytest.fixture(scope="module")
def unpruned_folder(small_model: KeyTokenModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose queries keep all of their tokens."""
    folder = tmp_path_factory.mktemp("models") / "unpruned"
    small_model.with_weighting(gain_share=1.0).save(folder)
    return folder


def test_a_query_has_its_aligned_and_its_own_tokens(small_model, unpruned_folder, small_embeddings):
    idf = dict(zip(small_model.vocabulary.keys, small_model.idf[:-1].astype(float), strict=True))
    embedder = KeyTokenSparseEmbedder(unpruned_folder, query_top_k=4)
    for embedding in small_embeddings[:20]:
        logits = dense_logits(small_model, embedding)
        strongest = sorted((key for key in logits if logits[key] > 0), key=lambda key: -logits[key])[:4]
        expected = {key: logits[key] for key in strongest}
        own = {"wing": math.sqrt(2) * idf["wing"], "3%2E5": idf["3%2E5"]}
        factor = 1.5 * math.hypot(*expected.values()) / math.hypot(*own.values())
        for key, weight in own.items():
            expected[key] = expected.get(key, 0.0) + factor * weight
        largest = max(expected.values())
        result = embedder.run(embedding=embedding.tolist(), text="Wing 3.5 wing unheard-of")["key_tokens"]
        assert result == pytest.approx({key: weight / largest for key, weight in expected.items()}, abs=2e-6)
        assert list(result.values()) == sorted(result.values(), reverse=True)


def test_the_sparse_embedding_of_a_query_is_its_key_tokens(small_model, small_model_folder, small_embeddings):
    result = KeyTokenSparseEmbedder(small_model_folder).run(embedding=small_embeddings[0].tolist(), text="wing lift")
    pairs = zip(result["sparse_embedding"].indices, result["sparse_embedding"].values, strict=True)
    named = {small_model.vocabulary.keys[i]: value for i, value in pairs}
    assert named == pytest.approx(result["key_tokens"], abs=1e-6)


def test_a_weight_that_rounds_to_zero_leaves_the_sparse_embedding_whole(small_vocabulary, tmp_path):
    logits = np.zeros((len(small_vocabulary), 2))
    logits[:5, 0] = [1.0, 2e-7, 0.5, 2e-7, 0.25]
    KeyTokenModel(small_vocabulary, TokenDecoder(logits, Preparation())).save(tmp_path / "model")
    result = KeyTokenSparseEmbedder(tmp_path / "model").run(embedding=[1.0, 0.0])
    keys = small_vocabulary.keys
    assert result["key_tokens"] == {keys[0]: 1.0, keys[2]: 0.5, keys[4]: 0.25}
    pairs = zip(result["sparse_embedding"].indices, result["sparse_embedding"].values, strict=True)
    assert {i: value for i, value in pairs if value > 1e-6} == {0: 1.0, 2: 0.5, 4: 0.25}


@pytest.mark.parametrize("text", ["unheard-of words", "[UNK]"])
def test_a_text_without_a_known_word_adds_nothing(text, small_model_folder, small_embeddings):
    embedder = KeyTokenSparseEmbedder(small_model_folder)
    embedding = small_embeddings[0].tolist()
    assert embedder.run(embedding=embedding, text=text) == embedder.run(embedding=embedding)


def test_without_aligned_tokens_a_query_is_its_own_words(unpruned_folder, small_embeddings):
    embedder = KeyTokenSparseEmbedder(unpruned_folder, query_top_k=0)
    embedding = small_embeddings[0].tolist()
    assert set(embedder.run(embedding=embedding, text="100% lift at 3.5")["key_tokens"]) == {"100%25", "lift", "3%2E5"}
    assert embedder.run(embedding=embedding)["key_tokens"] == {}


@pytest.mark.parametrize("text", [5, b"shock", ["shock"]])
def test_a_text_that_is_no_string_is_refused(text, small_model_folder, small_embeddings):
    with pytest.raises(TypeError, match=type(text).__name__):
        KeyTokenSparseEmbedder(small_model_folder).run(embedding=small_embeddings[0].tolist(), text=text)


def test_a_million_characters_of_query_are_its_distinct_words(small_model_folder, small_embeddings):
    embedder = KeyTokenSparseEmbedder(small_model_folder)
    embedding = small_embeddings[0].tolist()
    long = embedder.run(embedding=embedding, text="shock wave " * 100_000)["key_tokens"]
    assert long == pytest.approx(embedder.run(embedding=embedding, text="shock wave")["key_tokens"], abs=2e-6)


def test_the_length_of_a_document_does_not_matter(small_model_folder, small_embeddings):
    embedding = small_embeddings[0].tolist()
    embedder = KeyTokenSparseEmbedder(small_model_folder)
    for unit in ("x", " shock wave", " x shock x"):
        short, long = (Document(content=unit * times, embedding=embedding) for times in (1, 1_000_000 // len(unit)))
        results = embedder.run(documents=[short, long])["documents"]
        assert results[0].meta["key_tokens"] == pytest.approx(results[1].meta["key_tokens"], rel=2**-8)


def test_adjusted_embeddings_give_the_tokens_of_raw_ones(small_embeddings, small_texts, small_vocabulary, tmp_path):
    spectrum = Spectrum.from_embeddings(small_embeddings)
    fit(small_embeddings, small_texts, small_vocabulary, spectrum=spectrum).save(tmp_path / "model")
    raw = [Document(content=t, embedding=e.tolist()) for t, e in zip(small_texts, small_embeddings, strict=True)]
    embedder, adjuster = KeyTokenSparseEmbedder(tmp_path / "model"), PC1Adjuster(tmp_path / "model")
    adjusted = adjuster.run(documents=raw)["documents"]
    assert not np.allclose(adjusted[0].embedding, raw[0].embedding, atol=0.1)
    for one, other in zip(
        embedder.run(documents=raw)["documents"], embedder.run(documents=adjusted)["documents"], strict=True
    ):
        tokens, others = one.meta["key_tokens"], other.meta["key_tokens"]
        for key in tokens.keys() | others.keys():  # a logit of about 0 may be rounded to either side of it
            assert others.get(key, 0) == pytest.approx(tokens.get(key, 0), rel=2**-8, abs=0.02)
    query = small_embeddings[3].tolist()
    assert embedder.run(embedding=adjuster.run(embedding=query)["embedding"], text="wing")[
        "key_tokens"
    ] == pytest.approx(embedder.run(embedding=query, text="wing")["key_tokens"], abs=1e-4)


def test_components_share_one_model_which_is_freed_with_the_last_of_them(small_model_folder, tmp_path, loads):
    shutil.copytree(small_model_folder, tmp_path / "model")
    (tmp_path / "other").mkdir()
    first = KeyTokenSparseEmbedder(tmp_path / "model")
    second = KeyTokenSparseEmbedder(tmp_path / "other" / ".." / "model")
    first.warm_up()
    second.warm_up()
    assert len(loads) == 1
    model = weakref.ref(load_model(str(tmp_path / "model")))
    del first
    gc.collect()
    assert model() is not None
    del second
    gc.collect()
    assert model() is None


def test_threads_that_warm_up_at_once_load_one_model(small_model_folder, tmp_path, loads):
    shutil.copytree(small_model_folder, tmp_path / "model")
    components = [KeyTokenSparseEmbedder(tmp_path / "model") for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda component: component.warm_up(), components))
    assert len(loads) == 1


def test_a_model_that_was_made_anew_is_loaded_anew(small_model, small_embeddings, tmp_path):
    small_model.save(tmp_path / "model")
    first = KeyTokenSparseEmbedder(tmp_path / "model")
    query = {"embedding": small_embeddings[0].tolist()}
    before = first.run(**query)["key_tokens"]
    small_model.with_weighting(m_query=1).save(tmp_path / "model")
    assert len(KeyTokenSparseEmbedder(tmp_path / "model").run(**query)["key_tokens"]) == 1
    assert first.run(**query)["key_tokens"] == before


def test_in_an_indexing_pipeline(small_model_folder, documents):
    store = InMemoryDocumentStore()
    pipeline = Pipeline()
    pipeline.add_component("embedder", KeyTokenSparseEmbedder(small_model_folder))
    pipeline.add_component("writer", DocumentWriter(store))
    pipeline.connect("embedder.documents", "writer.documents")
    pipeline.run({"embedder": {"documents": documents}})
    assert all(document.meta["key_tokens"] for document in store.filter_documents())


async def test_run_async(small_model_folder, small_embeddings, documents):
    pipeline = Pipeline()
    pipeline.add_component("embedder", KeyTokenSparseEmbedder(small_model_folder))
    for data in ({"documents": documents}, {"embedding": small_embeddings[0].tolist(), "text": "wing"}):
        result = await pipeline.run_async({"embedder": data})
        assert result["embedder"] == KeyTokenSparseEmbedder(small_model_folder).run(**data)


def test_a_vocabulary_smaller_than_k_keeps_all_positive_logits(small_model_folder, small_embeddings):
    embedding = small_embeddings[0].tolist()
    document = Document(content="x", embedding=embedding)
    small, large = (
        KeyTokenSparseEmbedder(small_model_folder, top_k=k).run(documents=[document])["documents"] for k in (12, 10_000)
    )
    assert small == large
