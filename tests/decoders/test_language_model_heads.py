# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from helpers.checkpoints import FEATURES, GPT2_SIZES, SIZES, D, V, folded, save_checkpoint, save_tokenizer
from huggingface_hub import constants
from safetensors import safe_open

from keytok_haystack import (
    CheckpointError,
    EmbeddingError,
    KeyTokenModel,
    Preparation,
    Spectrum,
    TokenizerVocabulary,
    calibrate,
    from_language_model,
    from_word_embeddings,
)
from keytok_haystack.weighting import IDF_EXPONENT


def build(name: str, *, tied: bool, seed: int = 0) -> transformers.PreTrainedModel:
    torch.manual_seed(seed)
    if name == "gpt2":
        config: transformers.PretrainedConfig = transformers.GPT2Config(
            **GPT2_SIZES, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied
        )
        return transformers.GPT2LMHeadModel(config)
    if name == "neox":
        return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES, tie_word_embeddings=tied))
    if name == "opt":
        config = transformers.OPTConfig(**SIZES, ffn_dim=16, word_embed_proj_dim=D, tie_word_embeddings=tied)
        return transformers.OPTForCausalLM(config)
    if name == "qwen2":
        config = transformers.Qwen2Config(**SIZES, num_key_value_heads=2, tie_word_embeddings=tied)
        return transformers.Qwen2ForCausalLM(config)
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2, tie_word_embeddings=tied)
    return transformers.LlamaForCausalLM(config)


def assert_decodes_with(model: KeyTokenModel, matrix: np.ndarray) -> None:
    expected = folded(matrix)
    assert set(model.vocabulary.features) == set(expected)
    for feature, row in zip(model.vocabulary.features, model.decoder.weight, strict=True):
        if len(FEATURES[feature]) == 1:
            np.testing.assert_array_equal(row, expected[feature].astype(np.float16).astype(np.float32))
        else:
            np.testing.assert_allclose(row, expected[feature], rtol=2**-10, atol=2**-24)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("shard", ["50MB", "1KB"], ids=["whole", "sharded"])
@pytest.mark.parametrize(
    ("name", "tied"),
    [
        ("llama", True),
        ("llama", False),
        ("qwen2", True),
        ("qwen2", False),
        ("gpt2", True),
        ("opt", True),
        ("neox", False),
    ],
)
def test_the_decoder_is_the_output_embedding_of_the_language_model(
    tmp_path: Path, name: str, tied: bool, shard: str, dtype: torch.dtype
):
    network = build(name, tied=tied).to(dtype)
    network.save_pretrained(save_tokenizer(tmp_path), max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "1KB")
    head = network.get_output_embeddings().weight.detach().float().numpy()
    inputs = network.get_input_embeddings().weight.detach().float().numpy()
    assert np.array_equal(head, inputs) == tied

    model = from_language_model(tmp_path)
    assert_decodes_with(model, head)
    assert model.source == "language-model"
    assert model.dimension == D
    assert model.idf is None
    assert model.spectrum is None
    assert_decodes_with(from_word_embeddings(str(tmp_path)), inputs)


@pytest.mark.parametrize("network", [transformers.BertModel, transformers.BertForMaskedLM])
def test_the_word_embeddings_of_an_encoder_are_its_input_embeddings(tmp_path: Path, network: type):
    torch.manual_seed(0)
    encoder = network(transformers.BertConfig(**SIZES))
    encoder.save_pretrained(save_tokenizer(tmp_path))
    model = from_word_embeddings(tmp_path)
    assert_decodes_with(model, encoder.get_input_embeddings().weight.detach().numpy())
    assert model.source == "word-embeddings"


def test_the_word_embeddings_of_modernbert_are_found(tmp_path: Path):
    torch.manual_seed(0)
    special = {"cls_token_id": 0, "sep_token_id": 0}
    encoder = transformers.ModernBertModel(transformers.ModernBertConfig(**SIZES, **special))
    encoder.save_pretrained(save_tokenizer(tmp_path))
    assert_decodes_with(from_word_embeddings(tmp_path), encoder.get_input_embeddings().weight.detach().numpy())


def test_the_word_embeddings_of_minilm_are_the_tensor_of_its_checkpoint(embedder: str):
    with safe_open(Path(embedder) / "model.safetensors", framework="numpy") as tensors:
        matrix = tensors.get_tensor("embeddings.word_embeddings.weight").astype(np.float32)
    vocabulary = TokenizerVocabulary.from_tokenizer(embedder)
    assert (len(matrix), matrix.shape[1]) == (len(vocabulary.feature_of_id), 384)
    model = from_word_embeddings(embedder)
    assert model.vocabulary.features == vocabulary.features
    order = np.argsort(vocabulary.feature_of_id, kind="stable")
    order = order[vocabulary.feature_of_id[order] >= 0]
    starts = np.flatnonzero(np.diff(vocabulary.feature_of_id[order], prepend=-1))
    sums = np.add.reduceat(matrix[order], starts)
    shares = np.diff(starts, append=len(order))
    assert (shares > 1).any()
    np.testing.assert_allclose(model.decoder.weight, sums / shares[:, None], rtol=2**-10, atol=1e-6)


def bf16_file(path: Path, name: str, bits: list[list[int]]) -> None:
    """Write a safetensors file with one bfloat16 matrix, as the format's description says."""
    data = np.array(bits, dtype="<u2").tobytes()
    entry = {"dtype": "BF16", "shape": [len(bits), len(bits[0])], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pt"}, name: entry}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + data)


def test_bfloat16_is_widened(tmp_path: Path):
    save_checkpoint(tmp_path, {}, unused=np.zeros(1))
    one, minus_two, half, pi, tiny = 0x3F80, 0xC000, 0x3F00, 0x4049, 0x3380
    bits = [[0, 0]] * 4 + [[one, minus_two], [0, 0], [half, pi], [tiny, 0x8000]]
    bf16_file(tmp_path / "model.safetensors", "lm_head.weight", bits)
    model = from_language_model(tmp_path)
    rows = dict(zip(model.vocabulary.features, model.decoder.weight.tolist(), strict=True))
    assert rows == {"lift": [0, 0], "wing": [1, -2], "wave": [0.5, 3.140625], "3.5": [2**-24, 0]}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_checkpoint_made_without_transformers_is_read(tmp_path: Path, dtype: type):
    head = np.random.default_rng(0).normal(size=(V, D)).astype(dtype)
    model = from_language_model(save_checkpoint(tmp_path, {}, lm_head__weight=head, embed_tokens__weight=0 * head))
    assert_decodes_with(model, head.astype(np.float32))


def test_features_without_a_row_come_last_and_are_literal_only(tmp_path: Path):
    head = np.random.default_rng(0).normal(size=(5, D)).astype(np.float32)
    save_checkpoint(tmp_path, {}, lm_head__weight=head)
    model = from_language_model(save_tokenizer(tmp_path, own=5))
    assert model.vocabulary.features[:2] == ("lift", "wing")
    assert sorted(model.vocabulary.features[2:]) == ["3.5", "wave"]
    assert len(model.decoder) == 2
    wave = model.vocabulary.features.index("wave")
    expected = [1.0 if i in (0, 1, wave) else 0.0 for i in range(4)]
    assert model.vocabulary.literal_counts(["wing Wave Lift"]).rows.toarray().tolist() == [expected]
    embedding = np.ones((1, D))
    assert model.encode_documents(embedding, top_k=4).rows.indices.max(initial=0) < 2
    assert set(model.query_tokens(model.encode_queries(embedding, ["Wave"], top_k=0))[0]) == {"wave"}


@pytest.mark.parametrize("rows", [[4, 6], [6], [7, 1]], ids=str)
def test_rows_stay_with_their_features_where_some_features_have_none(tmp_path: Path, rows: list[int]):
    """A head lacks the rows of tokens that were added later, at the end; the order of features follows the ids."""
    head = np.random.default_rng(1).normal(size=(max(rows) + 1, D)).astype(np.float32)
    save_checkpoint(tmp_path, {}, lm_head__weight=head)
    model = from_language_model(save_tokenizer(tmp_path, own=len(head)))
    expected = {
        f: head[[i for i in ids if i < len(head)]].mean(axis=0) for f, ids in FEATURES.items() if ids[0] < len(head)
    }
    assert model.vocabulary.features[: len(model.decoder)] == tuple(expected)
    for row, exact in zip(model.decoder.weight, expected.values(), strict=True):
        np.testing.assert_allclose(row, exact, rtol=2**-10, atol=2**-24)
    assert set(model.vocabulary.features) == set(FEATURES)


def test_a_tensor_whose_name_only_ends_alike_is_not_taken_for_the_head(tmp_path: Path):
    matrix = np.ones((V, D), dtype=np.float32)
    save_checkpoint(tmp_path, {}, not_lm_head__weight=0 * matrix, model__embed_tokens__weight=matrix)
    assert_decodes_with(from_language_model(tmp_path), matrix)


def test_a_multimodal_checkpoint_is_read_like_its_language_model(tmp_path: Path):
    matrix = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)
    tensors = {"model__language_model__embed_tokens__weight": matrix}
    tied = save_checkpoint(tmp_path / "tied", {"text_config": {"tie_word_embeddings": True}}, **tensors)
    assert_decodes_with(from_language_model(tied), matrix)
    untied = save_checkpoint(tmp_path / "untied", {"text_config": {"tie_word_embeddings": False}}, **tensors)
    with pytest.raises(CheckpointError, match=r"without its LM head"):
        from_language_model(untied)


@pytest.mark.parametrize("name", ["llama", "qwen2", "neox"])
def test_an_embedder_that_was_saved_without_its_untied_head_is_refused(tmp_path: Path, name: str):
    network = build(name, tied=False)
    network.base_model.save_pretrained(save_tokenizer(tmp_path))
    with pytest.raises(CheckpointError, match=r"without its LM head.*Name the language model"):
        from_language_model(tmp_path)
    assert_decodes_with(from_word_embeddings(tmp_path), network.get_input_embeddings().weight.detach().numpy())


def test_an_embedder_whose_head_is_tied_needs_no_head(tmp_path: Path):
    network = build("llama", tied=True)
    network.base_model.save_pretrained(save_tokenizer(tmp_path))
    assert_decodes_with(from_language_model(tmp_path), network.get_output_embeddings().weight.detach().numpy())


def test_a_checkpoint_without_a_known_matrix_is_refused(tmp_path: Path):
    save_checkpoint(tmp_path, {}, some__weight=np.ones((V, D)))
    for source in (from_language_model, from_word_embeddings):
        with pytest.raises(CheckpointError, match="neither an LM head nor word embeddings"):
            source(tmp_path)


@pytest.mark.parametrize("head", [np.ones((V, D), dtype=np.int8), np.ones(V, dtype=np.float32)], ids=["int8", "1-d"])
def test_a_head_that_is_no_matrix_of_floats_is_refused(tmp_path: Path, head: np.ndarray):
    with pytest.raises(CheckpointError, match=r"'lm_head\.weight'.* a matrix of floats is needed"):
        from_language_model(save_checkpoint(tmp_path, {}, lm_head__weight=head))


@pytest.mark.parametrize(
    "name", ["no/such/folder", "no-such-folder", "some-org/some-model", "", " ", "~/models/x", ".."]
)
@pytest.mark.parametrize("source", [from_language_model, from_word_embeddings])
def test_an_unknown_path_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Any, name: str):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # the variable is read when huggingface_hub is imported
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    started = time.perf_counter()
    with pytest.raises(CheckpointError, match=r"folder|has no config\.json"):
        source(name)
    assert time.perf_counter() - started < 5


def test_an_unreachable_hub_is_told_apart_from_a_model_without_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"'some-org/some-model' is not a folder.*cannot be reached"):
        from_language_model("some-org/some-model")


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str):
    save_checkpoint(tmp_path, {}, lm_head__weight=np.ones((V, D), dtype=np.float32))
    (tmp_path / missing).unlink()
    with pytest.raises(CheckpointError, match=f"has no {missing}"):
        from_language_model(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path):
    build("llama", tied=False).save_pretrained(save_tokenizer(tmp_path), max_shard_size="1KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shard = index["weight_map"]["lm_head.weight"]
    (tmp_path / shard).unlink()
    with pytest.raises(CheckpointError, match=f"has no {shard}"):
        from_language_model(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 8, 9, 60, -D * 4 * V, -D * 4, -1])
def test_a_cut_off_file_is_refused(tmp_path: Path, kept: int):
    save_checkpoint(tmp_path, {}, lm_head__weight=np.ones((V, D), dtype=np.float32))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="cut off"):
        from_language_model(tmp_path)


GARBAGE = {"noise": bytes(range(256)), "nothing": b"", "a list": b"[1, 2]", "an object": b"{}", "text": b"lift"}
FILES = ("config.json", "tokenizer.json", "model.safetensors", "model.safetensors.index.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [(f, c) for f in FILES for c in GARBAGE if (f, c) != ("config.json", "an object")],  # which would be right
)
def test_a_file_with_other_content_is_refused(tmp_path: Path, name: str, content: str):
    save_checkpoint(tmp_path, {}, lm_head__weight=np.ones((V, D), dtype=np.float32))
    (tmp_path / name).write_bytes(GARBAGE[content])
    with pytest.raises(CheckpointError):
        from_language_model(tmp_path)


def test_a_safetensors_header_that_is_no_object_is_refused(tmp_path: Path):
    save_checkpoint(tmp_path, {}, lm_head__weight=np.ones((V, D), dtype=np.float32))
    (tmp_path / "model.safetensors").write_bytes((6).to_bytes(8, "little") + b"[1, 2]")
    with pytest.raises(CheckpointError, match=r"header of .* is not a JSON object"):
        from_language_model(tmp_path)


def test_an_index_that_names_a_tensor_its_file_lacks_is_refused(tmp_path: Path):
    save_checkpoint(tmp_path, {}, other__weight=np.ones((V, D), dtype=np.float32))
    index = {"weight_map": {"lm_head.weight": "model.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="lm_head"):
        from_language_model(tmp_path)


def test_a_checkpoint_is_read_without_torch_and_haystack(embedder: str):
    code = (
        "import sys, keytok_haystack\n"
        "assert len(keytok_haystack.from_word_embeddings(sys.argv[1]).decoder) > 20_000\n"
        "assert not {'torch', 'haystack', 'transformers', 'sentence_transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, embedder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def read(tmp_path: Path) -> KeyTokenModel:
    head = np.random.default_rng(4).normal(size=(V, D)).astype(np.float32)
    return from_language_model(save_checkpoint(tmp_path, {}, lm_head__weight=head))


@pytest.fixture
def embeddings() -> np.ndarray:
    random = np.random.default_rng(5)
    return (random.normal(size=(50, D)) + 2 * random.normal(size=D)).astype(np.float32)


def test_calibrating_removes_pc1_and_the_mean_and_keeps_the_matrix(read: KeyTokenModel, embeddings: np.ndarray):
    model = calibrate(read, embeddings, embedder="somebody/embedder")
    x = embeddings.astype(np.float64)
    u1 = np.linalg.svd(x)[2][0]
    without = x - np.outer(x @ u1, u1)
    without /= np.linalg.norm(without, axis=1, keepdims=True)
    expected = (without - without.mean(axis=0)) @ read.decoder.weight.T
    np.testing.assert_array_equal(model.decoder.weight, read.decoder.weight)
    np.testing.assert_allclose(model.decoder.logits(embeddings), expected, atol=1e-5)
    np.testing.assert_allclose(np.abs(model.spectrum.pc1 @ u1), 1, atol=1e-6)
    assert model.spectrum.pc1 @ x.mean(axis=0) > 0
    assert model.embedder == "somebody/embedder"
    adjusted = model.spectrum.adjust(embeddings)
    np.testing.assert_allclose(model.decoder.logits(adjusted), expected, atol=1e-5)


def test_pc1_can_be_left_in(read: KeyTokenModel, embeddings: np.ndarray):
    model = calibrate(read, embeddings, preparation=Preparation())
    x = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(
        model.decoder.logits(embeddings), (x - x.mean(axis=0)) @ read.decoder.weight.T, atol=1e-5
    )
    assert isinstance(model.spectrum, Spectrum)


def test_calibrated_documents_have_a_mean_maximum_of_1(read: KeyTokenModel, embeddings: np.ndarray):
    model = calibrate(read.with_weighting(exponent=0.7, k_document=2, weight_scale=9.0), embeddings)
    assert model.encode_documents(embeddings).rows.toarray().max(axis=1).mean() == pytest.approx(1, rel=1e-5)
    assert (model.weighting.exponent, model.weighting.k_document) == (0.7, 2)


def test_calibrating_with_texts_gives_idf(read: KeyTokenModel, embeddings: np.ndarray):
    texts = ["wing", "wing wing", "", "lift Wave", *["zzz"] * 46]
    df = {"lift": 1, "wing": 2, "wave": 1, "3.5": 1}  # what is in no text counts as if it were in one
    expected = [np.log(1 + (50 - df[f] + 0.5) / (df[f] + 0.5)) ** IDF_EXPONENT for f in read.vocabulary.features]
    np.testing.assert_allclose(calibrate(read, embeddings, iter(texts)).idf[:-1], expected, rtol=1e-6)
    assert calibrate(read, embeddings).idf is None


def test_calibrating_with_texts_makes_their_own_tokens_comparable_with_logits(
    read: KeyTokenModel, embeddings: np.ndarray
):
    texts = ["wing", "wing wing lift", "", "lift Wave", *["zzz"] * 46]
    model = calibrate(read.with_weighting(weight_scale=9.0, literal_scale=9.0), embeddings, texts)
    idf = dict(zip(model.vocabulary.features, model.idf[:-1].astype(float), strict=True))
    assert idf["wing"] == idf["lift"] < idf["wave"]
    strongest = [idf["wing"], idf["wing"] * (2 / 3) ** 0.5, 0, idf["wave"] * 0.5**0.5]
    logits = model.decoder.logits(embeddings).astype(float)
    expected = np.maximum(logits.max(axis=1), 0).mean() / (sum(strongest) / 50)
    assert model.weighting.literal_scale == pytest.approx(expected, rel=1e-5)
    weights = model.encode_documents(embeddings, texts).rows
    assert weights.toarray().max(axis=1).mean() == pytest.approx(1, rel=1e-5)
    assert calibrate(read, embeddings).weighting.literal_scale == 0


@pytest.mark.parametrize("n_texts", [0, 49, 51])
def test_calibrating_with_another_number_of_texts_is_refused(read: KeyTokenModel, embeddings: np.ndarray, n_texts: int):
    with pytest.raises(ValueError, match=f"{n_texts}.*texts|texts.*{n_texts}"):
        calibrate(read, embeddings, ["wing"] * n_texts)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        (np.ones((3, D + 1)), f"head has {D} dimensions, but the embeddings {D + 1}"),
        (np.zeros((3, D)), "Embedding 0 is the zero vector"),
        (np.zeros((0, D)), "no embeddings"),
    ],
)
def test_calibrating_with_unusable_embeddings_is_refused(read: KeyTokenModel, embeddings: np.ndarray, message: str):
    with pytest.raises(EmbeddingError, match=message):
        calibrate(read, embeddings)
