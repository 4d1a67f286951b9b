# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Heads of every architecture, compared with transformers' own logits, torch's own files and PEFT's own merging."""

import copy
import json
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from helpers.checkpoints import FEATURES, GPT2_SIZES, SIZES, TOKENS, D, V, folded, save_checkpoint, save_tokenizer
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from keytok_haystack import (
    CheckpointError,
    EmbeddingError,
    KeyTokenModel,
    Preparation,
    TokenDecoder,
    TokenizerVocabulary,
    calibrate,
    fit,
    from_language_model,
    from_masked_lm,
    from_word_embeddings,
)
from keytok_haystack.embedding_space import HeadTransform

GROUPED = {**SIZES, "num_key_value_heads": 1}
SPECIAL = {"cls_token_id": 0, "sep_token_id": 0}
NEO = {"hidden_size": D, "num_layers": 1, "num_heads": 2, "attention_types": [[["global"], 1]], "intermediate_size": 16}
CAUSAL = {
    "llama": transformers.LlamaConfig(**GROUPED, tie_word_embeddings=False),
    "llama, tied": transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(**GROUPED, tie_word_embeddings=False),
    "qwen2": transformers.Qwen2Config(**GROUPED, tie_word_embeddings=False),
    "qwen3, tied": transformers.Qwen3Config(**GROUPED, head_dim=4, tie_word_embeddings=True),
    "gemma, tied": transformers.GemmaConfig(**GROUPED, head_dim=4, tie_word_embeddings=True),
    "gpt2, tied": transformers.GPT2Config(**GPT2_SIZES, bos_token_id=0, eos_token_id=0),
    "gpt-neo, tied": transformers.GPTNeoConfig(
        **NEO, vocab_size=V, max_position_embeddings=16, bos_token_id=0, eos_token_id=0
    ),
    "gpt-neox": transformers.GPTNeoXConfig(**SIZES, tie_word_embeddings=False),
    "opt, tied": transformers.OPTConfig(**SIZES, ffn_dim=16, word_embed_proj_dim=D),
    "opt, projected": transformers.OPTConfig(**SIZES, ffn_dim=16, word_embed_proj_dim=4),  # as OPT 350M
}
DISTIL = {"vocab_size": V, "dim": D, "hidden_dim": 16, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 16}
TWO_LAYERS = {**SIZES, "num_hidden_layers": 2}
POSITIONS = {**SIZES, "max_position_embeddings": 32}  # those of RoBERTa begin after the padding's id
MASKED = {
    "bert": transformers.BertConfig(**TWO_LAYERS),
    "bert, gelu_new": transformers.BertConfig(**SIZES, hidden_act="gelu_new"),
    "bert, relu": transformers.BertConfig(**SIZES, hidden_act="relu"),
    "bert, silu": transformers.BertConfig(**SIZES, hidden_act="silu"),
    "bert, untied": transformers.BertConfig(**SIZES, tie_word_embeddings=False),
    "roberta": transformers.RobertaConfig(**POSITIONS, hidden_act="relu"),  # whose head has GELU all the same
    "xlm-roberta": transformers.XLMRobertaConfig(**POSITIONS, layer_norm_eps=1e-5),
    "mpnet": transformers.MPNetConfig(**POSITIONS),
    "distilbert": transformers.DistilBertConfig(**DISTIL, pad_token_id=0),
    "modernbert": transformers.ModernBertConfig(**SIZES, **SPECIAL),
    "modernbert, biases": transformers.ModernBertConfig(**SIZES, **SPECIAL, norm_bias=True, classifier_bias=True),
    "modernbert, no bias": transformers.ModernBertConfig(**SIZES, **SPECIAL, decoder_bias=False),
}
IDS = torch.tensor([[1, 4, 6, 2, 7], [3, 3, 4, 1, 6]])


def network_of(config: transformers.PretrainedConfig, *, seed: int = 0) -> transformers.PreTrainedModel:
    """A model with random parameters, layer norms and biases too, that float16 can hold."""
    auto = transformers.AutoModelForCausalLM if config in CAUSAL.values() else transformers.AutoModelForMaskedLM
    torch.manual_seed(seed)
    network = auto.from_config(copy.deepcopy(config)).eval()  # which PEFT may change
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape).mul(0.5).half())
    return network


def hidden_and_logits(network: transformers.PreTrainedModel) -> tuple[np.ndarray, np.ndarray]:
    """The last hidden states of some tokens, and the network's own logits for them, averaged over ids of a feature."""
    with torch.no_grad():
        hidden = network.base_model(IDS).last_hidden_state.flatten(0, 1).numpy()
        logits = network(IDS).logits.flatten(0, 1).numpy()
    return hidden, np.column_stack([logits[:, list(ids)].mean(axis=1) for ids in FEATURES.values()])


def raw(model: KeyTokenModel) -> TokenDecoder:
    """The head without anything done to hidden states but what itself does."""
    return TokenDecoder(model.decoder.weight, replace(model.decoder.preparation, normalize=False))


def assert_same_logits(model: KeyTokenModel, network: transformers.PreTrainedModel) -> None:
    hidden, expected = hidden_and_logits(network)
    assert expected.std() > 0.05
    assert model.vocabulary.features == tuple(FEATURES)
    assert model.dimension == hidden.shape[1]
    # rows of one id are exact, averages of several are rounded to float16
    np.testing.assert_allclose(raw(model).logits(hidden), expected, atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose(raw(model).logits(hidden)[:, 1:], expected[:, 1:], atol=1e-5, rtol=1e-4)


def save_pickled(network: transformers.PreTrainedModel, folder: Path, *, shards: int = 1) -> Path:
    """A checkpoint as old ones are: tensors pickled by torch."""
    network.config.save_pretrained(save_tokenizer(folder))
    state = network.state_dict()
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    files = {name: f"pytorch_model-{i % shards + 1:05}-of-{shards:05}.bin" for i, name in enumerate(state)}
    for file in set(files.values()):
        torch.save({name: tensor for name, tensor in state.items() if files[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": files}))
    return folder


@pytest.mark.parametrize("name", CAUSAL)
def test_logits_are_the_language_models_own(tmp_path: Path, name: str):
    network = network_of(CAUSAL[name])
    network.save_pretrained(save_tokenizer(tmp_path))
    assert_same_logits(from_language_model(tmp_path), network)


@pytest.mark.parametrize("name", MASKED)
def test_logits_are_the_masked_language_models_own(tmp_path: Path, name: str):
    network = network_of(MASKED[name])
    network.save_pretrained(save_tokenizer(tmp_path))
    model = from_masked_lm(tmp_path)
    assert_same_logits(model, network)
    hidden, _ = hidden_and_logits(network)
    np.testing.assert_array_equal(model.decoder.logits(hidden), raw(model).logits(hidden))
    assert model.source == "masked-language-model"


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("name", ["opt, tied", "gpt-neo, tied", "gpt-neox", "bert", "roberta"])
def test_checkpoints_that_torch_has_saved_are_read(tmp_path: Path, name: str, shards: int):
    network = network_of((CAUSAL | MASKED)[name])
    save_pickled(network, tmp_path, shards=shards)
    assert_same_logits((from_masked_lm if name in MASKED else from_language_model)(tmp_path), network)


def test_a_bare_model_that_torch_has_saved_is_read(tmp_path: Path):
    """As SGPT is: half precision, without the head, which is tied."""
    network = network_of(CAUSAL["gpt-neo, tied"])
    save_pickled(network, tmp_path)
    state = {name: tensor.half() for name, tensor in network.base_model.state_dict().items()}
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert_same_logits(from_language_model(tmp_path), network)


def test_safetensors_are_read_where_there_are_both(tmp_path: Path):
    network, other = network_of(CAUSAL["llama"]), network_of(CAUSAL["llama"], seed=1)
    save_pickled(other, tmp_path, shards=2)
    network.save_pretrained(tmp_path)
    assert_same_logits(from_language_model(tmp_path), network)


class Harmful:
    """Pickled, this is code that makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, legacy: bool):
    save_pickled(network_of(CAUSAL["llama"]), tmp_path)
    marker = tmp_path / "marker"
    content = {"lm_head.weight": torch.ones(V, D), "x": Harmful(marker)}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointError, match="without running code"):
        from_language_model(tmp_path)
    assert not marker.exists()


def test_a_file_of_torch_that_cannot_be_mapped_is_refused(tmp_path: Path):
    network = network_of(CAUSAL["llama"])
    save_pickled(network, tmp_path)
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin.* map into memory.*save it in safetensors"):
        from_language_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "without running code"),
        (pickle.dumps({"lm_head.weight": [1]}), "without running code"),
        ([torch.ones(V, D)], "does not hold tensors by their names"),
        ({"lm_head.weight": torch.ones(V, D, dtype=torch.int8)}, r"'lm_head\.weight'.*int8.* a matrix of floats"),
        ({"lm_head.weight": torch.ones(V)}, r"'lm_head\.weight'.* a matrix of floats"),
        ({"lm_head.weight": "text"}, r"'lm_head\.weight'.*str.* a matrix of floats"),
        ({}, "neither an LM head nor word embeddings"),
    ],
)
def test_files_of_torch_with_other_content_are_refused(tmp_path: Path, content: Any, message: str):
    save_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    file = tmp_path / "pytorch_model.bin"
    file.write_bytes(content) if isinstance(content, bytes) else torch.save(content, file)
    with pytest.raises(CheckpointError, match=message):
        from_language_model(tmp_path)


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Missing())
from keytok_haystack import CheckpointError, from_language_model
try:
    from_language_model(sys.argv[2])
except CheckpointError as error:
    print(error)
"""


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_without_the_package_that_reads_an_old_format_the_extra_is_named(tmp_path: Path, package: str):
    save_pickled(network_of(CAUSAL["llama"]), tmp_path)
    if package == "transformers":
        (tmp_path / "tokenizer.json").unlink()
        (tmp_path / "vocab.json").write_text("{}")
    command = [sys.executable, "-c", WITHOUT, package, str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout.endswith('pip install "keytok-haystack[transformers]"\n'), done
    assert f"needs {package}:" in done.stdout


def test_an_old_tokenizer_is_converted(tmp_path: Path):
    """As OPT's: byte-level pairs in two files, and no tokenizer.json."""
    network = network_of(CAUSAL["opt, tied"])
    save_pickled(network, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    ids = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "l": 4, "i": 5, "li": 6, "\u0120": 7, "\u0120li": 8}
    (tmp_path / "vocab.json").write_text(json.dumps(ids))
    specials = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(specials))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nl i\n\u0120 li\n")
    model = from_language_model(tmp_path)
    assert model.vocabulary.features == ("l", "i", "li")
    weight = network.get_output_embeddings().weight.detach().numpy()
    np.testing.assert_array_equal(model.decoder.weight[:2], weight[4:6])
    np.testing.assert_allclose(model.decoder.weight[2], weight[[6, 8]].mean(axis=0), rtol=2**-10, atol=2**-24)
    assert model.vocabulary.literal_counts(["li lil"]).rows.toarray().tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("file", ["vocab.json", "tokenizer.model"])
def test_a_tokenizer_that_cannot_be_converted_is_refused(tmp_path: Path, file: str):
    save_pickled(network_of(CAUSAL["llama"]), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / file).write_text("noise")
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json.* cannot be converted|cannot be used"):
        from_language_model(tmp_path)


def test_code_that_comes_with_a_tokenizer_is_not_run(tmp_path: Path):
    save_pickled(network_of(CAUSAL["llama"]), tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(TOKENS)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\nclass Own: pass\n")
    code = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(code))
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json.* cannot be converted"):
        from_language_model(tmp_path)
    assert not (tmp_path / "marker").exists()


Q = {"target_modules": ["q_proj"]}
ADAPTERS = {
    "nothing of the head": Q,
    "head": {"target_modules": ["lm_head"]},
    "embeddings": {"target_modules": ["embed_tokens"]},
    "both": {"target_modules": ["lm_head", "embed_tokens"]},
    "both, tied": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "rank-stabilized": {"target_modules": ["lm_head"], "use_rslora": True},
    "by patterns": {"target_modules": ["lm_head"], "alpha_pattern": {"l._head": 7}, "rank_pattern": {"lm_head": 3}},
    "whole head": {**Q, "modules_to_save": ["lm_head"]},
    "whole embeddings": {**Q, "modules_to_save": ["embed_tokens"]},
    "all linear": {"target_modules": ["lm_head", "q_proj", "up_proj"], "lora_alpha": 1},
}


def adapted(network: transformers.PreTrainedModel, base: Path, folder: Path, **settings: Any) -> peft.PeftModel:
    """Save a model and a random adapter of it."""
    network.save_pretrained(save_tokenizer(base))
    network.name_or_path = network.config._name_or_path = str(base)
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tied weights
        model = peft.get_peft_model(network, peft.LoraConfig(**{"r": 2, "lora_alpha": 5, **settings}))
        for parameter in model.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter)
        model.save_pretrained(folder)
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_merged_as_peft_merges_it(tmp_path: Path, name: str, tied: bool):
    network = network_of(CAUSAL["llama, tied" if tied else "llama"])
    before = network.get_output_embeddings().weight.detach().numpy().copy()
    base, folder = tmp_path / "base", tmp_path / "adapter"
    merged = adapted(network, base, folder, **ADAPTERS[name]).merge_and_unload()
    after = merged.get_output_embeddings().weight.detach().numpy()
    unchanged = name == "nothing of the head" or name == "whole embeddings" or ("embeddings" in name and not tied)
    assert np.array_equal(before, after) == (unchanged or (name == "both, tied" and not tied))
    assert not (folder / "tokenizer.json").exists()
    model = from_language_model(folder)
    for feature, row in zip(model.vocabulary.features, model.decoder.weight, strict=True):
        np.testing.assert_allclose(row, folded(after)[feature], rtol=2**-10, atol=1e-5)
    if tied and name not in ("embeddings", "whole embeddings"):
        return  # what is merged into the head is then in the embeddings, too, which the adapter did not mean
    words = merged.get_input_embeddings().weight.detach().numpy()
    for row, exact in zip(from_word_embeddings(folder).decoder.weight, folded(words).values(), strict=True):
        np.testing.assert_allclose(row, exact, rtol=2**-10, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_of_a_masked_language_model_is_merged(tmp_path: Path):
    network = network_of(MASKED["bert"])
    base, folder = tmp_path / "base", tmp_path / "adapter"
    modules = {"target_modules": ["word_embeddings", "transform.dense", "query"]}
    merged = adapted(network, base, folder, **modules).merge_and_unload()
    hidden, expected = hidden_and_logits(merged)
    np.testing.assert_allclose(from_masked_lm(folder).decoder.logits(hidden), expected, rtol=2e-3, atol=5e-3)


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_as_torch_saves_it_with_a_tokenizer_of_its_own(tmp_path: Path):
    network = network_of(CAUSAL["llama"])
    base, folder = tmp_path / "base", tmp_path / "adapter"
    merged = adapted(network, base, folder, target_modules=["lm_head"]).merge_and_unload()
    tensors = load_file(folder / "adapter_model.safetensors")
    torch.save({name: torch.tensor(t) for name, t in tensors.items()}, folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    (base / "tokenizer.json").unlink()
    tokenizer.add_tokens(["drag"])
    tokenizer.save(str(folder / "tokenizer.json"))
    model = from_language_model(folder)
    assert model.vocabulary.features == (*FEATURES, "drag")
    drag = merged.get_output_embeddings().weight.detach().numpy()[len(TOKENS)]
    np.testing.assert_allclose(model.decoder.weight[-1], drag, rtol=2**-10, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "settings", [{"target_modules": ["lm_head"], "use_dora": True}, {**Q, "trainable_token_indices": [1, 2]}], ids=str
)
def test_an_adapter_that_cannot_be_merged_is_refused(tmp_path: Path, settings: dict[str, Any]):
    network = network_of(CAUSAL["llama, tied"])
    adapted(network, tmp_path / "base", tmp_path / "adapter", **settings)
    with pytest.raises(CheckpointError, match=r"more than a plain LoRA.*merge_and_unload"):
        from_language_model(tmp_path / "adapter")


@pytest.mark.parametrize("base", [None, "itself", "no-such-folder"])
def test_an_adapter_of_no_model_is_refused(tmp_path: Path, base: str | None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    name = "adapter" if base == "itself" else base
    save_checkpoint(tmp_path / "adapter", {}, some__weight=np.ones((V, D), dtype=np.float32))
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": name}))
    with pytest.raises(CheckpointError, match=r"does not name the model|'no-such-folder'"):
        from_language_model("adapter", local_files_only=True)


def test_only_the_file_that_holds_the_head_is_read(tmp_path: Path):
    network = network_of(CAUSAL["llama"])
    network.save_pretrained(save_tokenizer(tmp_path), max_shard_size="1KB")
    files = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    for file in set(files.values()) - {files["lm_head.weight"]}:
        (tmp_path / file).unlink()
    assert_same_logits(from_language_model(tmp_path), network)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_head_that_is_read_in_several_blocks(tmp_path: Path, dtype: type):
    """Four rows fit into a block: ids of one feature lie in different ones."""
    head = np.random.default_rng(0).normal(size=(V, 1 << 17)).astype(dtype)
    model = from_language_model(save_checkpoint(tmp_path, {}, lm_head__weight=head))
    for ids, row in zip(FEATURES.values(), model.decoder.weight, strict=True):
        expected = head[list(ids)].astype(np.float32).mean(axis=0)
        np.testing.assert_allclose(row, expected.astype(np.float16), rtol=2**-9, atol=2**-23)


def test_decoders_that_differ_in_preparation_share_their_matrix(tmp_path: Path):
    network = network_of(CAUSAL["llama"])
    network.save_pretrained(save_tokenizer(tmp_path))
    read = from_language_model(tmp_path)
    hidden, _ = hidden_and_logits(network)
    model = calibrate(read, hidden)
    assert np.shares_memory(model.decoder.weight, read.decoder.weight)


def test_a_decoder_does_not_round_the_matrix_that_it_is_given():
    given = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    kept = given.copy()
    decoder = TokenDecoder(given, Preparation())
    np.testing.assert_array_equal(given, kept)
    np.testing.assert_array_equal(decoder.weight, given.astype(np.float16).astype(np.float32))


@pytest.fixture(scope="module")
def bert() -> transformers.PreTrainedModel:
    """Wide enough for means over dimensions to be what they are expected to be; a layer norm like trained ones."""
    sizes = {**SIZES, "hidden_size": 256, "intermediate_size": 32}
    torch.manual_seed(3)
    network = transformers.BertForMaskedLM(transformers.BertConfig(**sizes)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape).mul(0.05).half())
        for name, parameter in network.named_parameters():
            if name.endswith("LayerNorm.weight"):
                parameter.add_(0.8)
    return network


@pytest.fixture(scope="module")
def bert_folder(bert: transformers.PreTrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tokenizer(tmp_path_factory.mktemp("bert"))
    bert.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def states(bert: transformers.PreTrainedModel) -> np.ndarray:
    return hidden_and_logits(bert)[0]


def test_the_norm_of_a_masked_head_is_that_of_hidden_states(bert_folder: Path, states: np.ndarray):
    norm = from_masked_lm(bert_folder).decoder.preparation.transform.norm
    np.testing.assert_allclose(np.linalg.norm(states, axis=1), norm, rtol=0.05)


def test_calibrating_keeps_a_masked_heads_transform(
    bert: transformers.PreTrainedModel, bert_folder: Path, states: np.ndarray
):
    """After the first component is removed, states have their usual norm, go through the head, and are centred."""
    read = from_masked_lm(bert_folder)
    model = calibrate(read, states)
    u1 = np.linalg.svd(states.astype(np.float64))[2][0]
    without = states - np.outer(states @ u1, u1)
    without *= read.decoder.preparation.transform.norm / np.linalg.norm(without, axis=1, keepdims=True)
    with torch.no_grad():
        logits = bert.cls.predictions(torch.tensor(without, dtype=torch.float32)).numpy()
    logits -= logits.mean(axis=0)
    expected = np.column_stack([logits[:, list(ids)].mean(axis=1) for ids in FEATURES.values()])
    np.testing.assert_allclose(model.decoder.logits(states), expected, atol=2e-3)
    np.testing.assert_allclose(model.decoder.logits(model.spectrum.adjust(states)), expected, atol=2e-3)


def test_a_masked_head_reads_unit_vectors_as_the_hidden_states_that_they_point_along(
    bert_folder: Path, states: np.ndarray
):
    model = calibrate(from_masked_lm(bert_folder), states)
    units = states / np.linalg.norm(states, axis=1, keepdims=True)
    np.testing.assert_allclose(model.decoder.logits(units), model.decoder.logits(states), atol=1e-4)
    of_units = calibrate(from_masked_lm(bert_folder), units, preparation=Preparation())
    read = from_masked_lm(bert_folder).decoder.logits(states)
    np.testing.assert_allclose(of_units.decoder.logits(units), read - read.mean(axis=0), atol=0.02 * read.std())


def test_a_masked_head_can_be_given_hidden_states_as_they_are(bert_folder: Path, states: np.ndarray):
    read = from_masked_lm(bert_folder)
    model = calibrate(read, states, preparation=Preparation(normalize=False))
    logits = read.decoder.logits(states)
    np.testing.assert_allclose(model.decoder.logits(states), logits - logits.mean(axis=0), atol=1e-5)


def test_a_masked_heads_model_is_saved_whole(bert_folder: Path, states: np.ndarray, tmp_path: Path):
    texts = ["wing", "wing lift", "Wave", "3.5", *["lift"] * (len(states) - 4)]
    model = calibrate(from_masked_lm(bert_folder), states, texts)
    model.save(tmp_path / "model")
    loaded = KeyTokenModel.load(tmp_path / "model")
    assert loaded.fingerprint == model.fingerprint
    assert (loaded.source, loaded.dimension) == ("masked-language-model", 256)
    for encode in ("encode_documents", "encode_queries"):
        np.testing.assert_array_equal(
            getattr(loaded, encode)(states, texts).rows.toarray(), getattr(model, encode)(states, texts).rows.toarray()
        )
    transform = loaded.decoder.preparation.transform
    assert isinstance(transform, HeadTransform)
    for name, value in vars(model.decoder.preparation.transform).items():
        np.testing.assert_array_equal(getattr(transform, name), value)


CHANGES = [
    *({name: 2.0} for name in ("weight", "bias", "gain", "offset")),
    {"activation": "relu"},
    {"epsilon": 1e-3},
    {"norm": 1.0},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_fingerprint_covers_the_transform(bert_folder: Path, change: dict[str, Any]):
    model = from_masked_lm(bert_folder)
    transform = model.decoder.preparation.transform
    changed = {n: getattr(transform, n) * np.float32(v) if n in transform.arrays else v for n, v in change.items()}
    if "offset" in changed or "bias" in changed:
        changed = {name: value + np.float32(1) for name, value in changed.items()}
    preparation = replace(model.decoder.preparation, transform=replace(transform, **changed))
    other = replace(model, decoder=TokenDecoder(model.decoder.weight, preparation))
    assert other.fingerprint != model.fingerprint


def test_an_unknown_activation_is_refused(tmp_path: Path):
    network = network_of(MASKED["bert"])
    network.save_pretrained(save_tokenizer(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_act": "quick_gelu"}))
    with pytest.raises(CheckpointError, match=r"'quick_gelu' is not one of gelu, "):
        from_masked_lm(tmp_path)


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert", "modernbert"])
def test_an_encoder_saved_without_its_head_is_refused(tmp_path: Path, name: str):
    network = network_of(MASKED[name])
    network.base_model.save_pretrained(save_tokenizer(tmp_path))
    with pytest.raises(CheckpointError, match=r"no masked-language-model head.*Name the model.*from_word_embeddings"):
        from_masked_lm(tmp_path)
    with pytest.raises(CheckpointError, match=r"encoder, which has no LM head.*from_masked_lm.*from_word_embeddings"):
        from_language_model(tmp_path)
    words = network.get_input_embeddings().weight.detach().numpy()
    for row, exact in zip(from_word_embeddings(tmp_path).decoder.weight, folded(words).values(), strict=True):
        np.testing.assert_allclose(row, exact, rtol=2**-10, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
def test_a_masked_head_is_not_taken_for_an_lm_head(tmp_path: Path, name: str):
    network_of(MASKED[name]).save_pretrained(save_tokenizer(tmp_path))
    with pytest.raises(CheckpointError, match=r"encoder, which has no LM head.*from_masked_lm"):
        from_language_model(tmp_path)


def test_an_lm_head_is_not_taken_for_a_masked_one(tmp_path: Path):
    network_of(CAUSAL["llama"]).save_pretrained(save_tokenizer(tmp_path))
    with pytest.raises(CheckpointError, match=r"for a causal language model, `from_language_model`"):
        from_masked_lm(tmp_path)


def test_a_masked_head_that_lacks_a_part_is_refused(tmp_path: Path):
    network_of(MASKED["bert"]).save_pretrained(save_tokenizer(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["cls.predictions.transform.LayerNorm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks 'cls\.predictions\.transform\.LayerNorm\.weight'"):
        from_masked_lm(tmp_path)


def test_the_names_of_berts_first_checkpoints_are_known(tmp_path: Path):
    network = network_of(MASKED["bert"])
    network.save_pretrained(save_tokenizer(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in tensors.items():
        ending = ".".join(name.split(".")[-2:])
        renamed[name.replace(ending, old.get(ending, ending))] = tensor
    assert renamed.keys() != tensors.keys()
    save_file(renamed, tmp_path / "model.safetensors")
    assert_same_logits(from_masked_lm(tmp_path), network)


def test_a_head_and_a_layer_before_it_that_do_not_fit_are_refused(tmp_path: Path):
    network_of(MASKED["bert, untied"]).save_pretrained(save_tokenizer(tmp_path))
    tensors = load_file(tmp_path / "model.safetensors")
    name = "cls.predictions.decoder.weight"
    save_file(tensors | {name: np.ones((V, D + 1), dtype=np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{D + 1} columns.*{D}"):
        from_masked_lm(tmp_path)


def test_embeddings_of_another_width_than_the_head_are_refused(tmp_path: Path):
    network = network_of(CAUSAL["opt, projected"])
    network.save_pretrained(save_tokenizer(tmp_path))
    head = from_language_model(tmp_path)
    with pytest.raises(EmbeddingError, match=r"head has 4 dimensions, but the embeddings 8.*backbone.*fit a decoder"):
        calibrate(head, np.ones((3, 8)))
    vocabulary = TokenizerVocabulary.from_tokenizer(tmp_path)
    embeddings = np.random.default_rng(0).normal(size=(20, 8))
    with pytest.raises(ValueError, match=r"head has 4 dimensions, but the embeddings 8.*backbone.*without a head"):
        fit(embeddings, ["wing lift", "wave lift"] * 10, vocabulary, head=head.decoder)


def test_a_masked_head_is_refused_as_a_part_of_a_fitted_decoder(bert_folder: Path, states: np.ndarray):
    head = from_masked_lm(bert_folder)
    texts = ["wing lift", "wave lift"] * (len(states) // 2)
    with pytest.raises(ValueError, match="masked-language-model head transforms embeddings"):
        fit(states, texts, head.vocabulary, head=head.decoder)


def tokenizer_of(size: int, *, added: int = 0) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens([f"added{i}" for i in range(added)])
    return tokenizer


@pytest.mark.parametrize(
    ("rows", "ids", "added", "fits"),
    [
        (100, 100, 0, True),
        (100, 101, 0, False),  # a token of the tokenizer's own without a row
        (100, 100, 3, True),  # tokens that were added for another purpose
        (1000, 500, 0, True),  # padding, as far as can be told
        (51_200, 50_257, 38, True),  # Phi-2
        (102_400, 100_000, 15, True),  # DeepSeek-LLM
        (152_064, 151_643, 22, True),  # Qwen2 7B
        (50_257, 30_522, 0, False),  # the tokenizer of BERT with the head of GPT-2
        (128_256, 32_000, 0, False),  # the tokenizer of Llama 2 with the head of Llama 3
    ],
)
@pytest.mark.parametrize("source", [from_language_model, from_word_embeddings])
def test_a_tokenizer_that_is_not_the_heads_is_refused(
    tmp_path: Path, source: Any, rows: int, ids: int, added: int, fits: bool
):
    folder = save_checkpoint(tmp_path, {}, embed_tokens__weight=np.ones((rows, 2), dtype=np.float16))
    tokenizer_of(ids, added=added).save(str(folder / "tokenizer.json"))
    if fits:
        assert len(source(folder).decoder) == min(rows, ids + added) - (1 if rows else 0)
    else:
        with pytest.raises(CheckpointError, match=rf"{ids:,} ids, but the head {rows:,} rows.*Put the tokenizer"):
            source(folder)
