# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, pre_tokenizers

from keytok_haystack import (
    EmbeddingError,
    KeyTokenModel,
    ModelFolderError,
    Preparation,
    Spectrum,
    TokenDecoder,
    TokenizerVocabulary,
    Vocabulary,
    Weighting,
    WordVocabulary,
    fit,
)
from keytok_haystack import model_folder as model_folder_module
from keytok_haystack.encoders import Embedded
from keytok_haystack.evaluation import Collection
from keytok_haystack.model import Comprehension
from keytok_haystack.utils import files
from keytok_haystack.vocabulary import Analysis
from keytok_haystack.weighting import DocumentStatistics

FILES = ["config.json", "decoder.safetensors", "spectrum.safetensors", "vocabulary.json"]


@pytest.fixture
def folder(small_model_folder: Path, tmp_path: Path) -> Path:
    """A copy of a saved model, to damage."""
    return Path(shutil.copytree(small_model_folder, tmp_path / "model"))


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def random_model(data: st.DataObject, vocabulary: Vocabulary) -> KeyTokenModel:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    decoded = np.array(data.draw(st.lists(st.integers(0, 11), min_size=1, unique=True)))
    d = data.draw(st.integers(1, 6))

    def maybe(size: int) -> np.ndarray | None:
        return random.normal(size=size).astype(np.float32) if data.draw(st.booleans()) else None

    directions = np.linalg.qr(random.normal(size=(d, d)))[0][: data.draw(st.integers(0, d))].astype(np.float32)
    preparation = Preparation(
        removed=directions if len(directions) else None,
        shift=maybe(d),
        normalize=data.draw(st.booleans()),
        mean=maybe(d),
    )
    weighting = Weighting(
        k_document=data.draw(st.integers(1, 20)),
        m_query=data.draw(st.integers(0, 20)),
        exponent=data.draw(st.floats(0.1, 3)),
        weight_scale=data.draw(st.floats(0.01, 100)),
        normalization=data.draw(st.floats(0, 1)),
        literal_share=data.draw(st.floats(0, 0.99)),
        literal_scale=data.draw(st.floats(0, 100)),
        gain_share=data.draw(st.floats(0.01, 1)),
    )
    return KeyTokenModel(
        vocabulary.reordered(vocabulary.order_with_first(decoded)),
        TokenDecoder(random.normal(size=(len(decoded), d)), preparation),
        weighting,
        source=data.draw(st.sampled_from(["fit", "language-model", "word-embeddings"])),
        embedder=data.draw(st.none() | st.text(max_size=8)),
        idf=None if (idf := maybe(13)) is None else np.abs(idf),
        statistics=maybe_statistics(random, data),
        spectrum=Spectrum.from_embeddings(random.normal(size=(5, d))) if data.draw(st.booleans()) else None,
        comprehension=data.draw(st.none() | st.builds(Comprehension, st.floats(0, 1), st.floats(0, 1))),
        refined=data.draw(st.booleans()),
        fit_seconds=data.draw(st.none() | st.floats(0, 1e6)),
        refine_seconds=data.draw(st.none() | st.floats(0, 1e6)),
    )


def maybe_statistics(random: np.random.Generator, data: st.DataObject) -> DocumentStatistics | None:
    if not data.draw(st.booleans()):
        return None
    return DocumentStatistics(*random.uniform(0.1, 1, size=(2, 13)).astype(np.float32))


def assert_same_array(a: np.ndarray | None, b: np.ndarray | None) -> None:
    assert (a is None) == (b is None)
    if a is not None:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@settings(max_examples=50)
@given(st.data())
def test_a_model_survives_saving_and_loading_to_the_bit(small_vocabulary: Vocabulary, data: st.DataObject):
    model = random_model(data, small_vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        loaded = KeyTokenModel.load(str(Path(folder) / "model"))
    assert loaded.fingerprint == model.fingerprint
    assert loaded.vocabulary.features == model.vocabulary.features
    assert_same_array(loaded.vocabulary.feature_of_id, model.vocabulary.feature_of_id)
    for name in ("weighting", "source", "embedder", "comprehension", "refined", "fit_seconds", "refine_seconds"):
        assert getattr(loaded, name) == getattr(model, name)
    assert loaded.dimension == model.dimension
    assert_same_array(loaded.decoder.weight, model.decoder.weight)
    for name in ("mean", "removed", "shift"):
        assert_same_array(getattr(loaded.decoder.preparation, name), getattr(model.decoder.preparation, name))
    assert_same_array(loaded.idf, model.idf)
    assert (loaded.statistics is None) == (model.statistics is None)
    if model.statistics is not None:
        assert_same_array(loaded.statistics.share, model.statistics.share)
        assert_same_array(loaded.statistics.mean_weight, model.statistics.mean_weight)
    assert (loaded.spectrum is None) == (model.spectrum is None)
    if model.spectrum is not None:
        for name in ("mean", "components", "explained_energy"):
            assert_same_array(getattr(loaded.spectrum, name), getattr(model.spectrum, name))
    embeddings = np.random.default_rng(0).normal(size=(4, model.dimension))
    texts = ["lift wing", "3.5 100%", "", "unknown"]
    assert_same_array(
        loaded.encode_documents(embeddings).rows.toarray(), model.encode_documents(embeddings).rows.toarray()
    )
    assert_same_array(
        loaded.encode_documents(embeddings, texts).rows.toarray(),
        model.encode_documents(embeddings, texts).rows.toarray(),
    )
    assert_same_array(
        loaded.encode_queries(embeddings, texts).rows.toarray(), model.encode_queries(embeddings, texts).rows.toarray()
    )


def test_fitting_on_a_loaded_models_vocabulary_is_possible(
    small_embeddings: np.ndarray, small_texts: list[str], small_vocabulary: Vocabulary, tmp_path: Path
):
    fit(small_embeddings, small_texts, small_vocabulary, min_df=16).save(tmp_path / "model")
    loaded = KeyTokenModel.load(tmp_path / "model")
    assert len(loaded.decoder) < len(loaded.vocabulary)
    assert loaded.vocabulary.features != small_vocabulary.features, "the test can tell the orders apart"
    again = fit(small_embeddings, small_texts, loaded.vocabulary, min_df=16)
    expected = fit(small_embeddings, small_texts, small_vocabulary, min_df=16)
    assert sorted(again.vocabulary.features) == sorted(small_vocabulary.features)
    position = [again.vocabulary.features.index(f) for f in expected.vocabulary.features[: len(expected.decoder)]]
    np.testing.assert_allclose(again.decoder.weight[position], expected.decoder.weight, atol=2**-10)


def test_a_large_model_survives_too(cranfield_model: KeyTokenModel, cranfield_model_folder: Path):
    loaded = KeyTokenModel.load(cranfield_model_folder)
    assert loaded.fingerprint == cranfield_model.fingerprint
    assert_same_array(loaded.decoder.weight, cranfield_model.decoder.weight)


def test_the_folder_holds_only_json_and_safetensors(small_model_folder: Path):
    assert sorted(contents(small_model_folder)) == FILES
    for name in ("config.json", "vocabulary.json"):
        json.loads((small_model_folder / name).read_text(encoding="utf-8"))
    assert load_file(small_model_folder / "decoder.safetensors")["weight"].dtype == np.float16
    assert set(load_file(small_model_folder / "spectrum.safetensors")) == {"mean", "components", "explained_energy"}


def test_the_configuration_says_what_the_model_is(small_model: KeyTokenModel, small_model_folder: Path):
    config = json.loads((small_model_folder / "config.json").read_text(encoding="utf-8"))
    expected = {
        "format_version": 3,
        "fingerprint": small_model.fingerprint,
        "source": "fit",
        "embedder": "random-projection",
        "dimension": 8,
        "k_document": Weighting.k_document,
        "m_query": Weighting.m_query,
        "exponent": Weighting.exponent,
        "weight_scale": small_model.weighting.weight_scale,
        "normalization": Weighting.normalization,
        "literal_share": Weighting.literal_share,
        "gain_share": Weighting.gain_share,
        "literal_scale": small_model.weighting.literal_scale,
        "comprehension": {
            "coverage": small_model.comprehension.coverage,
            "literal_auc": small_model.comprehension.literal_auc,
        },
        "refined": False,
        "refine_seconds": None,
    }
    assert "minimum_weight" not in config
    assert config["literal_scale"] > 0
    assert {name: config[name] for name in expected} == expected
    for name, digest in config["sha256"].items():
        assert hashlib.sha256((small_model_folder / name).read_bytes()).hexdigest() == digest
    assert set(config["sha256"]) == set(FILES) - {"config.json"}


def other_decoder(model: KeyTokenModel, **preparation: Any) -> KeyTokenModel:
    prepared = replace(model.decoder.preparation, **preparation)
    return replace(model, decoder=TokenDecoder(model.decoder.weight, prepared))


def one_entry_changed(model: KeyTokenModel) -> KeyTokenModel:
    weight = model.decoder.weight.copy()
    weight[3, 5] = np.nextafter(np.float16(weight[3, 5]), np.float16(2))
    return replace(model, decoder=TokenDecoder(weight, model.decoder.preparation))


def one_id_of_another_feature(model: KeyTokenModel) -> KeyTokenModel:
    feature_of_id = model.vocabulary.feature_of_id.copy()
    feature_of_id[1] = feature_of_id[2]
    tokenizer = Tokenizer.from_str(model.vocabulary.settings["tokenizer"])
    return replace(model, vocabulary=TokenizerVocabulary(tokenizer, model.vocabulary.features, feature_of_id))


def one_feature_renamed(model: KeyTokenModel) -> KeyTokenModel:
    tokenizer = Tokenizer.from_str(model.vocabulary.settings["tokenizer"])
    features = ["drag", *model.vocabulary.features[1:]]
    return replace(model, vocabulary=TokenizerVocabulary(tokenizer, features, model.vocabulary.feature_of_id))


@pytest.mark.parametrize(
    "change",
    [
        one_entry_changed,
        one_feature_renamed,
        lambda model: model.with_weighting(k_document=Weighting.k_document - 1),
        lambda model: model.with_weighting(exponent=0.6),
        lambda model: model.with_weighting(weight_scale=model.weighting.weight_scale * 1.01),
        lambda model: model.with_weighting(normalization=0.3),
        lambda model: model.with_weighting(literal_share=0.36),
        lambda model: model.with_weighting(literal_scale=model.weighting.literal_scale * 1.01),
        lambda model: replace(model, idf=None),
        lambda model: replace(model, idf=model.idf * np.float32(1.01)),
        one_id_of_another_feature,
        lambda model: other_decoder(model, normalize=False),
        lambda model: other_decoder(model, mean=None),
        lambda model: other_decoder(model, mean=model.decoder.preparation.mean * np.float32(1.01)),
        lambda model: other_decoder(model, removed=model.spectrum.leading(1)),
    ],
    ids=[
        "decoder",
        "vocabulary",
        "K",
        "exponent",
        "scale",
        "normalization",
        "share",
        "literal scale",
        "no idf",
        "idf",
        "ids",
        "norm",
        "no mean",
        "mean",
        "removed",
    ],
)
def test_the_fingerprint_changes_with_what_documents_depend_on(
    small_model: KeyTokenModel,
    small_embeddings: np.ndarray,
    small_texts: list[str],
    change: Callable[[KeyTokenModel], KeyTokenModel],
    tmp_path: Path,
):
    changed = change(small_model)
    assert changed.fingerprint != small_model.fingerprint
    changed.save(tmp_path / "changed")
    assert KeyTokenModel.load(tmp_path / "changed").fingerprint == changed.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.with_weighting(m_query=7),
        lambda model: model.with_weighting(gain_share=0.2),
        lambda model: replace(model, statistics=None),
        lambda model: replace(model, comprehension=None),
        lambda model: replace(model, embedder="another/name"),
        lambda model: replace(model, spectrum=None),
        lambda model: replace(model, fit_seconds=3.0),
        lambda model: replace(model, refined=True, refine_seconds=3.0),
    ],
    ids=["M", "gain", "statistics", "comprehension", "embedder", "spectrum", "seconds", "refine seconds"],
)
def test_the_fingerprint_stays_where_documents_do(
    small_model: KeyTokenModel,
    small_embeddings: np.ndarray,
    small_texts: list[str],
    change: Callable[[KeyTokenModel], KeyTokenModel],
):
    changed = change(small_model)
    assert changed.fingerprint == small_model.fingerprint
    for texts in (None, small_texts):
        documents = small_model.encode_documents(small_embeddings, texts)
        assert (changed.encode_documents(small_embeddings, texts).rows != documents.rows).nnz == 0


def test_a_missing_folder_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"There is no key-token model at '.*nowhere'"):
        KeyTokenModel.load(tmp_path / "nowhere")


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path):
    (tmp_path / "model").write_text("{}")
    with pytest.raises((FileNotFoundError, ModelFolderError), match="no key-token model"):
        KeyTokenModel.load(tmp_path / "model")


@pytest.mark.parametrize(
    "config",
    [
        None,
        b'{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}',
        b"[]",
        b"3",
        b"",
        b"\xff\xfe",
        b"not json",
    ],
    ids=["empty folder", "Hugging Face", "list", "number", "empty", "binary", "text"],
)
def test_a_folder_of_something_else_is_refused(tmp_path: Path, config: bytes | None):
    if config is not None:
        (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(ModelFolderError, match="is not a key-token model"):
        KeyTokenModel.load(tmp_path)


@pytest.mark.parametrize("version", [0, 1, 2, 4, 99, "3", None, 1.5])
def test_another_format_version_is_refused(folder: Path, version: object):
    edit_config(folder, format_version=version)
    with pytest.raises(ModelFolderError, match=f"format version {version}, but .* reads 3: make it again"):
        KeyTokenModel.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"{name}"):
        KeyTokenModel.load(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, 8, 100, -1])
def test_a_cut_off_file_is_refused(folder: Path, name: str, kept: int):
    whole = (folder / name).read_bytes().rstrip(b"\n")
    (folder / name).write_bytes(whole[:kept])
    with pytest.raises(ModelFolderError, match=f"no readable {name}|is damaged: .*{name}"):
        KeyTokenModel.load(folder)


@pytest.mark.parametrize("name", [name for name in FILES if name != "config.json"])
@pytest.mark.parametrize("position", [0, 7, 9, 0.3, 0.5, 0.9, -1])
def test_a_flipped_bit_is_noticed(folder: Path, name: str, position: float):
    content = bytearray((folder / name).read_bytes())
    content[int(position * len(content)) if isinstance(position, float) else position] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFolderError, match=f"is damaged: .*{name}"):
        KeyTokenModel.load(folder)


def test_a_flipped_bit_of_the_configuration_is_refused_or_leaves_documents_as_they_are(
    folder: Path, small_model: KeyTokenModel, small_embeddings: np.ndarray
):
    whole = (folder / "config.json").read_bytes()
    expected = small_model.encode_documents(small_embeddings).rows.toarray()
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        (folder / "config.json").write_bytes(damaged)
        try:
            loaded = KeyTokenModel.load(folder)
        except ModelFolderError:
            refused += 1
        else:
            np.testing.assert_array_equal(loaded.encode_documents(small_embeddings).rows.toarray(), expected)
    assert refused > len(whole) / 2


@pytest.mark.parametrize(
    "change",
    [
        {"k_document": Weighting.k_document - 1},
        {"k_document": str(Weighting.k_document)},
        {"k_document": 0},
        {"exponent": 0.6},
        {"exponent": None},
        {"weight_scale": float("nan")},
        {"normalization": 0.5},
        {"normalization": 2.0},
        {"literal_share": 0.25},
        {"literal_share": 1.0},
        {"literal_scale": 0.0},
        {"literal_scale": float("nan")},
        {"normalize": False},
        {"dimension": 9},
        {"fingerprint": "0" * 16},
        {"fingerprint": None},
        {"sha256": {}},
        {"sha256": None},
        {"sha256": dict.fromkeys(FILES[1:], "0" * 64)},
        {"sha256": dict.fromkeys(FILES[1:], 3)},
        {"sha256": dict.fromkeys(FILES[1:])},
    ],
    ids=str,
)
def test_a_configuration_that_does_not_match_the_files_is_refused(folder: Path, change: dict[str, Any]):
    edit_config(folder, **change)
    with pytest.raises(ModelFolderError, match="is damaged"):
        KeyTokenModel.load(folder)


@pytest.mark.parametrize(
    "key",
    [
        "source",
        "embedder",
        "dimension",
        "normalize",
        "k_document",
        "m_query",
        "exponent",
        "literal_share",
        "literal_scale",
        "gain_share",
        "comprehension",
        "refined",
        "fit_seconds",
        "refine_seconds",
    ],
)
def test_a_configuration_that_lacks_a_key_is_refused(folder: Path, key: str):
    config = json.loads((folder / "config.json").read_text())
    del config[key]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFolderError, match=key):
        KeyTokenModel.load(folder)


@pytest.mark.parametrize("absolute", [True, False])
def test_files_outside_of_the_folder_are_never_read(folder: Path, absolute: bool):
    outside = folder.parent / "decoder.safetensors"
    (folder / "decoder.safetensors").rename(outside)
    digests = json.loads((folder / "config.json").read_text())["sha256"]
    digests[str(outside) if absolute else "../decoder.safetensors"] = digests.pop("decoder.safetensors")
    edit_config(folder, sha256=digests)
    with pytest.raises(ModelFolderError, match="damaged"):
        KeyTokenModel.load(folder)


def test_a_name_of_another_file_in_the_configuration_changes_nothing(folder: Path, small_model: KeyTokenModel):
    secret = folder.parent / "secret"
    secret.write_text("secret")
    digests = json.loads((folder / "config.json").read_text())["sha256"]
    edit_config(folder, sha256=digests | {"../secret": "0" * 64, str(secret): "0" * 64})
    assert KeyTokenModel.load(folder).fingerprint == small_model.fingerprint


def test_saving_creates_parents_and_fills_an_empty_folder(small_model: KeyTokenModel, tmp_path: Path):
    small_model.save(tmp_path / "a" / "b" / "model")
    (tmp_path / "empty").mkdir()
    small_model.save(str(tmp_path / "empty"))
    for path in (tmp_path / "a" / "b" / "model", tmp_path / "empty"):
        assert KeyTokenModel.load(path).fingerprint == small_model.fingerprint
        assert sorted(file.name for file in path.parent.iterdir() if file.name.startswith(".")) == []


def test_saving_into_the_current_folder_is_possible(
    small_model: KeyTokenModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    small_model.save("model")
    assert KeyTokenModel.load("model").fingerprint == small_model.fingerprint


def test_the_fingerprint_covers_what_is_removed_and_added(small_model: KeyTokenModel, small_embeddings: np.ndarray):
    spectrum = Spectrum.from_embeddings(small_embeddings)
    preparations = [Preparation(), *(make(n) for make in (spectrum.removal, spectrum.shift) for n in (1, 2))]
    models = [replace(small_model, decoder=TokenDecoder(small_model.decoder.weight, p)) for p in preparations]
    assert len({model.fingerprint for model in models}) == len(models)


def test_saving_replaces_a_model(small_model: KeyTokenModel, folder: Path):
    other = replace(small_model.with_weighting(k_document=3), spectrum=None)
    other.save(folder)
    assert KeyTokenModel.load(folder).fingerprint == other.fingerprint
    assert sorted(contents(folder)) == ["config.json", "decoder.safetensors", "vocabulary.json"]
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "existing",
    [
        {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"weights"},
        {"thesis.txt": b"the only copy"},
        {"config.json": b"not json"},
        {"sub/thesis.txt": b"the only copy"},
    ],
    ids=["Hugging Face", "another file", "broken config", "subfolder"],
)
def test_saving_never_replaces_something_else(small_model: KeyTokenModel, tmp_path: Path, existing: dict[str, bytes]):
    target = tmp_path / "target"
    for name, content in existing.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    with pytest.raises(FileExistsError, match="is not a key-token model, so it is not replaced"):
        small_model.save(target)
    assert contents(target) == existing


def test_saving_never_replaces_a_file(small_model: KeyTokenModel, tmp_path: Path):
    (tmp_path / "target").write_text("the only copy")
    with pytest.raises(FileExistsError, match="not replaced"):
        small_model.save(tmp_path / "target")
    assert (tmp_path / "target").read_text() == "the only copy"


def test_saving_never_deletes_files_that_someone_put_beside_a_model(small_model: KeyTokenModel, folder: Path):
    (folder / "thesis.txt").write_text("the only copy")
    with pytest.raises(FileExistsError, match="not replaced"):
        small_model.save(folder)
    assert (folder / "thesis.txt").read_text() == "the only copy"
    assert KeyTokenModel.load(folder).fingerprint == small_model.fingerprint


@pytest.mark.parametrize("broken", ["save_tensors", "version"])
def test_a_failure_midway_leaves_the_old_model_untouched(
    small_model: KeyTokenModel, folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str
):
    before = contents(folder)

    def fail(*_: object, **__: object) -> None:
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(model_folder_module, broken, fail)
    for target in (folder, folder.parent / "new"):
        with pytest.raises(OSError, match="No space left"):
            small_model.with_weighting(k_document=3).save(target)
    assert contents(folder) == before
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_a_failure_while_files_are_written_leaves_the_old_model_untouched(
    small_model: KeyTokenModel, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    before = contents(folder)
    write_bytes = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if path.name == "spectrum.safetensors":
            msg = "No space left on device"
            raise OSError(msg)
        return write_bytes(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(OSError, match="No space left"):
            small_model.with_weighting(k_document=3).save(folder)
    assert contents(folder) == before
    assert [file.name for file in folder.parent.iterdir()] == [folder.name]


def test_a_failure_while_the_new_folder_is_moved_leaves_the_old_model_in_place(
    small_model: KeyTokenModel, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    before = contents(folder)
    move = Path.replace

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            msg = "Input/output error"
            raise OSError(msg)
        return move(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_exchanged", lambda *_: False)  # as on systems that cannot do it in one step
        patched.setattr(Path, "replace", interrupted)
        with pytest.raises(OSError, match="Input/output error"):
            small_model.with_weighting(k_document=3).save(folder)
    assert folder.exists(), "the old model is gone"
    assert contents(folder) == before


def test_a_folder_of_format_2_is_refused_in_one_sentence_but_may_be_replaced(small_model: KeyTokenModel, folder: Path):
    """Format 2 had the tokenizer in a file of its own, and the features beside the decoder."""
    (folder / "vocabulary.json").rename(folder / "tokenizer.json")
    edit_config(folder, format_version=2, sha256=dict.fromkeys(("tokenizer.json", *FILES[1:3]), "0" * 64))
    before = contents(folder)
    with pytest.raises(
        ModelFolderError, match=r"format version 2, but .*: make it again with `keytok fit`, and"
    ) as raised:
        KeyTokenModel.load(folder)
    assert str(raised.value).count(". ") == 0
    assert str(raised.value).endswith("`keytok backfill`.")
    assert contents(folder) == before
    small_model.save(folder)
    assert sorted(contents(folder)) == FILES
    assert KeyTokenModel.load(folder).fingerprint == small_model.fingerprint


def test_the_fingerprint_changes_with_how_the_tokenizer_splits(
    embedder: str, cranfield: Collection, cranfield_documents: Embedded
):
    """The same features and ids, but words are no longer split at hyphens."""
    vocabulary = TokenizerVocabulary.from_tokenizer(embedder)
    model = fit(cranfield_documents.embeddings[:100], list(cranfield.documents.values())[:100], vocabulary)
    vocabulary = model.vocabulary
    tokenizer = Tokenizer.from_str(vocabulary.settings["tokenizer"])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    other = TokenizerVocabulary(tokenizer, vocabulary.features, vocabulary.feature_of_id)
    assert replace(model, vocabulary=other).fingerprint != model.fingerprint
    tokenizer = Tokenizer.from_str(vocabulary.settings["tokenizer"])
    same = TokenizerVocabulary(tokenizer, vocabulary.features, vocabulary.feature_of_id)
    assert replace(model, vocabulary=same).fingerprint == model.fingerprint


@pytest.mark.parametrize(
    "change",
    [{"language": "german"}, {"language": "none"}, {"stop_words": frozenset({"flow"})}, {"letters": frozenset({"x"})}],
    ids=str,
)
def test_the_fingerprint_changes_with_how_texts_become_words(cranfield_model: KeyTokenModel, change: dict[str, Any]):
    vocabulary = cranfield_model.vocabulary
    own = vocabulary.analysis
    settings = {"language": own.language, "stop_words": own.stop_words, "letters": own.letters}
    features = vocabulary.features[:50]
    same, other = (
        replace(
            cranfield_model,
            vocabulary=WordVocabulary(features, Analysis(**settings | changes)),
            decoder=TokenDecoder(cranfield_model.decoder.weight[:50], cranfield_model.decoder.preparation),
            idf=cranfield_model.idf[:51],
            statistics=None,
        )
        for changes in ({}, change)
    )
    again = replace(same, vocabulary=WordVocabulary(features, Analysis(**settings)))
    assert other.fingerprint != same.fingerprint == again.fingerprint


def resigned(folder: Path) -> Path:
    """Write the right digests into the configuration, as someone does who has made the files."""
    names = json.loads((folder / "config.json").read_text())["sha256"]
    edit_config(folder, sha256={name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names})
    return folder


@pytest.mark.parametrize(
    ("file", "name", "change"),
    [
        ("decoder.safetensors", "weight", lambda array: np.where(np.eye(*array.shape), np.nan, array)),
        ("decoder.safetensors", "weight", lambda array: array[:, :-1]),
        ("decoder.safetensors", "weight", lambda array: array.ravel()),
        ("decoder.safetensors", "weight", lambda array: array.astype(np.int32)),
        ("decoder.safetensors", "idf", lambda array: array[:-1]),
        ("decoder.safetensors", "idf", lambda array: -array),
        ("decoder.safetensors", "idf", lambda array: np.full_like(array, np.inf)),
        ("decoder.safetensors", "mean", lambda array: array[:1]),
        ("decoder.safetensors", "statistics.share", lambda array: array[None]),
        ("spectrum.safetensors", "mean", lambda array: array[:3]),
        ("spectrum.safetensors", "components", lambda array: 1e30 * array),
        ("spectrum.safetensors", "components", lambda array: np.zeros((100_000, 8), np.float32)),
        ("spectrum.safetensors", "explained_energy", lambda array: np.full_like(array, np.nan)),
    ],
)
def test_arrays_with_right_digests_and_wrong_content_are_refused(
    folder: Path, file: str, name: str, change: Callable[[np.ndarray], np.ndarray]
):
    arrays = load_file(folder / file)
    kind = arrays[name].dtype
    changed = change(arrays[name])
    arrays[name] = changed if changed.dtype.kind == "i" else changed.astype(kind)
    save_file({each: np.ascontiguousarray(array) for each, array in arrays.items()}, folder / file)
    with pytest.raises(ModelFolderError, match=r"is damaged: .*; make it again") as raised:
        KeyTokenModel.load(resigned(folder))
    assert "fingerprint" not in str(raised.value)


@pytest.mark.parametrize(
    "change",
    [
        {"features": None},
        {"features": "lift"},
        {"features": [["lift"]]},
        {"features": ["lift"] * 12},
        {"features": ["\ud800", *map(str, range(11))]},
        {"tokenizer": None},
        {"tokenizer": "[" * 10**6},
        {"feature_of_id": None},
        {"feature_of_id": [12] * 13},
        {"feature_of_id": [0.5] * 13},
        {"feature_of_id": [[0]] * 13},
        {"feature_of_id": [0]},
        {"kind": "words"},
        {"kind": ["tokens"]},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_vocabulary_with_a_right_digest_and_wrong_content_is_refused(folder: Path, change: dict[str, Any]):
    content = json.loads((folder / "vocabulary.json").read_text())
    (folder / "vocabulary.json").write_text(json.dumps(content | change))
    with pytest.raises(ModelFolderError, match=r"is damaged: .*; make it again") as raised:
        KeyTokenModel.load(resigned(folder))
    assert "fingerprint" not in str(raised.value)


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_place_of_a_file_is_refused_at_once(folder: Path, name: str):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelFolderError, match=f"{name}' is not a regular file"):
        KeyTokenModel.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_a_terabyte_is_refused_without_reading_it(folder: Path, name: str):
    with (folder / name).open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelFolderError, match=f"{name}'? .*bytes"):
        KeyTokenModel.load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"k_document": 2**40},
        {"exponent": 10**400},
        {"refined": "yes"},
        {"dimension": 8.0},
        {"embedder": ["some"]},
        {"embedder": "\ud800"},
        {"source": None},
        {"comprehension": {"coverage": "all", "literal_auc": 1}},
        {"comprehension": [1]},
        {"fit_seconds": float("inf")},
    ],
    ids=str,
)
def test_a_setting_of_another_type_is_refused(folder: Path, change: dict[str, Any]):
    edit_config(folder, **change)
    with pytest.raises(ModelFolderError, match=r"is damaged: .*; make it again"):
        KeyTokenModel.load(folder)


def test_weights_that_float32_does_not_hold_are_refused_when_they_arise(
    small_model: KeyTokenModel, small_embeddings: np.ndarray
):
    model = small_model.with_weighting(weight_scale=1e-300)
    with pytest.raises(EmbeddingError, match="out of proportion"):
        model.encode_documents(small_embeddings)
    plain = replace(
        small_model,
        decoder=TokenDecoder(1e4 * small_model.decoder.weight, Preparation(normalize=False)),
        statistics=None,
    )
    for encode in (plain.encode_documents, plain.encode_queries, plain.decoder.logits):
        with pytest.raises(EmbeddingError, match="too long for the decoder"):
            encode(small_embeddings * np.float32(1e34))
