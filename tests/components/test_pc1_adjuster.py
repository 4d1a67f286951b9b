# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import shutil
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from haystack import Document, Pipeline
from haystack.core.serialization import component_from_dict

from haystack_integrations.components.embedders.keytok import KeyTokenSparseEmbedder, PC1Adjuster
from keytok_haystack import EmbeddingError, KeyTokenModel, ModelFolderError, Preparation, Spectrum, TokenDecoder, fit

TYPE = "haystack_integrations.components.embedders.keytok.pc1_adjuster.PC1Adjuster"
UNUSABLE = {
    "wrong dimension": [1.0, 2.0],
    "NaN": [1.0] * 7 + [float("nan")],
    "infinity": [1.0] * 7 + [float("inf")],
    "zero": [0.0] * 8,
}


@pytest.fixture(scope="module")
def model_folder(small_embeddings, small_texts, small_vocabulary, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "with-spectrum"
    spectrum = Spectrum.from_embeddings(small_embeddings)
    fit(small_embeddings, small_texts, small_vocabulary, spectrum=spectrum).save(folder)
    return folder


@pytest.fixture(scope="module")
def projection(small_embeddings) -> np.ndarray:
    """The matrix (d, d) that projects onto the first right singular vector of the embeddings."""
    first = np.linalg.svd(small_embeddings.astype(np.float64))[2][0]
    return np.outer(first, first)


def test_init_default():
    adjuster = PC1Adjuster("models/mine")
    assert (adjuster.model, adjuster.strength) == ("models/mine", 1.0)
    assert (adjuster.n_components, adjuster.method) == (1, "remove")


def test_init_with_parameters():
    adjuster = PC1Adjuster(Path("m"), strength=0.5, n_components=3, method="shift")
    assert (adjuster.model, adjuster.strength) == ("m", 0.5)
    assert (adjuster.n_components, adjuster.method) == (3, "shift")


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_strength_without_a_meaning_is_refused(strength):
    with pytest.raises(ValueError, match="strength"):
        PC1Adjuster("models/mine", strength=strength)


@pytest.mark.parametrize("n_components", [0, -1])
def test_a_number_of_components_without_a_meaning_is_refused(n_components):
    with pytest.raises(ValueError, match=f"n_components must be greater than 0, but got {n_components}"):
        PC1Adjuster("models/mine", n_components=n_components)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of 'remove', 'shift', but got 'whiten'"):
        PC1Adjuster("models/mine", method="whiten")


def test_to_dict():
    assert PC1Adjuster("models/mine").to_dict() == {
        "type": TYPE,
        "init_parameters": {
            "model": "models/mine",
            "strength": 1.0,
            "n_components": 1,
            "method": "remove",
            "raise_on_failure": True,
        },
    }


def test_to_dict_with_custom_parameters():
    adjuster = PC1Adjuster(Path("m"), strength=0.25, n_components=2, method="shift", raise_on_failure=False)
    assert adjuster.to_dict() == {
        "type": TYPE,
        "init_parameters": {
            "model": "m",
            "strength": 0.25,
            "n_components": 2,
            "method": "shift",
            "raise_on_failure": False,
        },
    }


def test_from_dict():
    data = {
        "type": TYPE,
        "init_parameters": {"model": "m", "strength": 0.25, "n_components": 2, "method": "shift"},
    }
    adjuster = component_from_dict(PC1Adjuster, data, "adjuster")
    assert (adjuster.model, adjuster.strength) == ("m", 0.25)
    assert (adjuster.n_components, adjuster.method) == (2, "shift")


def test_a_pipeline_of_an_earlier_version_loads():
    data = {"type": TYPE, "init_parameters": {"model": "m", "strength": 0.25}}
    adjuster = component_from_dict(PC1Adjuster, data, "adjuster")
    assert (adjuster.n_components, adjuster.method) == (1, "remove")


def test_a_pipeline_in_yaml_keeps_all_parameters():
    pipeline = Pipeline()
    pipeline.add_component("adjuster", PC1Adjuster("m", strength=0.5, n_components=3, method="shift"))
    loaded = Pipeline.loads(pipeline.dumps()).get_component("adjuster")
    assert (loaded.model, loaded.strength, loaded.n_components, loaded.method) == ("m", 0.5, 3, "shift")


def test_warm_up_loads_the_spectrum_once_and_for_good(model_folder, small_embeddings, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    adjuster = PC1Adjuster(folder)
    adjuster.warm_up()
    shutil.rmtree(folder)
    adjuster.warm_up()
    assert len(adjuster.run(embedding=small_embeddings[0].tolist())["embedding"]) == 8


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        PC1Adjuster(tmp_path / "nothing").warm_up()


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelFolderError, match="not a key-token model"):
        PC1Adjuster(tmp_path).warm_up()


def test_a_model_without_spectrum_is_refused(small_vocabulary, tmp_path):
    decoder = TokenDecoder(np.ones((len(small_vocabulary), 8)), Preparation())
    KeyTokenModel(small_vocabulary, decoder, source="language-model").save(tmp_path / "uncalibrated")
    adjuster = PC1Adjuster(tmp_path / "uncalibrated")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"uncalibrated.*spectrum"):
            adjuster.warm_up()


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_documents_lose_their_share_of_the_first_component(strength, model_folder, small_embeddings, projection):
    documents = [Document(content=str(i), embedding=e.tolist()) for i, e in enumerate(small_embeddings)]
    adjusted = PC1Adjuster(model_folder, strength=strength).run(documents=documents)["documents"]
    expected = small_embeddings - strength * (small_embeddings @ projection)
    np.testing.assert_allclose([document.embedding for document in adjusted], expected, atol=1e-4)


def test_several_components_are_taken_out(model_folder, small_embeddings):
    first = np.linalg.svd(small_embeddings.astype(np.float64))[2][:3]
    documents = [Document(content=str(i), embedding=e.tolist()) for i, e in enumerate(small_embeddings)]
    adjusted = PC1Adjuster(model_folder, n_components=3).run(documents=documents)["documents"]
    expected = small_embeddings - small_embeddings @ first.T @ first
    np.testing.assert_allclose([document.embedding for document in adjusted], expected, atol=1e-4)


def test_shifting_moves_documents_and_queries_by_the_same_vector(model_folder, small_embeddings, projection):
    documents = [Document(content=str(i), embedding=e.tolist()) for i, e in enumerate(small_embeddings)]
    adjuster = PC1Adjuster(model_folder, strength=0.5, method="shift")
    expected = small_embeddings - 0.5 * small_embeddings.mean(axis=0) @ projection
    adjusted = adjuster.run(documents=documents)["documents"]
    np.testing.assert_allclose([document.embedding for document in adjusted], expected, atol=1e-4)
    query = adjuster.run(embedding=small_embeddings[0].tolist())["embedding"]
    np.testing.assert_allclose(query, expected[0], atol=1e-4)


@pytest.mark.parametrize(("n_components", "method"), [(1, "remove"), (1, "shift"), (2, "remove")])
def test_a_model_that_does_not_remove_the_components_is_named_once(
    n_components, method, model_folder, small_embeddings, caplog
):
    adjuster = PC1Adjuster(model_folder, n_components=n_components, method=method)
    for _ in range(2):
        adjuster.run(embedding=small_embeddings[0].tolist())
    assert [f"'{model_folder}'" in message for message in caplog.messages] == [True] * (n_components > 1)


def test_more_components_than_the_model_has_are_refused(model_folder, small_embeddings):
    adjuster = PC1Adjuster(model_folder, n_components=9)
    for _ in range(2):
        with pytest.raises(ValueError, match="between 1 and 8, but it is 9"):
            adjuster.run(embedding=small_embeddings[0].tolist())


def test_a_query_is_adjusted_like_a_document(model_folder, small_embeddings, projection):
    embedding = small_embeddings[0].tolist()
    adjusted = PC1Adjuster(model_folder).run(embedding=embedding)
    assert adjusted.keys() == {"embedding"}
    assert all(type(value) is float for value in adjusted["embedding"])
    np.testing.assert_allclose(adjusted["embedding"], embedding - embedding @ projection, atol=1e-4)


def test_adjusting_twice_changes_nothing_more(model_folder, small_embeddings):
    adjuster = PC1Adjuster(model_folder)
    once = adjuster.run(embedding=small_embeddings[0].tolist())["embedding"]
    np.testing.assert_allclose(adjuster.run(embedding=once)["embedding"], once, atol=1e-5)


def test_inputs_are_not_mutated_and_outputs_keep_everything_else(model_folder, small_embeddings):
    document = Document(content="shock", embedding=small_embeddings[0].tolist(), meta={"a": {"b": 1}}, score=0.5)
    before = deepcopy(document)
    (result,) = PC1Adjuster(model_folder).run(documents=[document])["documents"]
    assert document == before
    assert (result.id, result.content, result.meta, result.score) == (document.id, "shock", {"a": {"b": 1}}, 0.5)
    embedding = small_embeddings[1].tolist()
    PC1Adjuster(model_folder).run(embedding=embedding)
    assert embedding == small_embeddings[1].tolist()


def test_run_on_empty_list(model_folder):
    assert PC1Adjuster(model_folder).run(documents=[]) == {"documents": []}


@pytest.mark.parametrize("wrong", ["shock", ["shock"], [1.0, 2.0], Document(content="shock")])
def test_run_wrong_input(model_folder, wrong):
    with pytest.raises(TypeError, match="PC1Adjuster"):
        PC1Adjuster(model_folder).run(documents=wrong)


def test_both_or_neither_input_is_refused(model_folder):
    adjuster = PC1Adjuster(model_folder)
    with pytest.raises(ValueError, match="exactly one"):
        adjuster.run()
    with pytest.raises(ValueError, match="exactly one"):
        adjuster.run(documents=[], embedding=[1.0] * 8)


def test_a_document_without_embedding_is_named(model_folder):
    with pytest.raises(EmbeddingError, match="'lacking'"):
        PC1Adjuster(model_folder).run(documents=[Document(id="lacking", content="x")])


@pytest.mark.parametrize("embedding", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_embedding_is_refused(embedding, model_folder):
    fine = Document(id="fine", content="x", embedding=[1.0] * 8)
    with pytest.raises(EmbeddingError, match="'unusable'"):
        PC1Adjuster(model_folder).run(documents=[fine, Document(id="unusable", content="x", embedding=embedding)])
    with pytest.raises(EmbeddingError):
        PC1Adjuster(model_folder).run(embedding=embedding)


def test_a_document_that_cannot_be_adjusted_is_returned_unchanged_where_that_is_asked_for(model_folder, caplog):
    fine, lacking = Document(id="fine", embedding=[1.0, *[0.5] * 7]), Document(id="lacking", content="x")
    (expected,) = PC1Adjuster(model_folder).run(documents=[fine])["documents"]
    found = PC1Adjuster(model_folder, raise_on_failure=False).run(documents=[lacking, fine])["documents"]
    assert found == [lacking, expected]
    assert "'lacking'" in caplog.text


async def test_in_a_query_pipeline(model_folder, small_embeddings):
    pipeline = Pipeline()
    pipeline.add_component("adjuster", PC1Adjuster(model_folder))
    pipeline.add_component("embedder", KeyTokenSparseEmbedder(model_folder))
    pipeline.connect("adjuster.embedding", "embedder.embedding")
    data = {"adjuster": {"embedding": small_embeddings[0].tolist()}, "embedder": {"text": "wing"}}
    result = pipeline.run(data)["embedder"]
    raw = KeyTokenSparseEmbedder(model_folder).run(embedding=small_embeddings[0].tolist(), text="wing")
    assert result["key_tokens"] == pytest.approx(raw["key_tokens"], abs=1e-4)
    assert (await pipeline.run_async(data))["embedder"] == result
