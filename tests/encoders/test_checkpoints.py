# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are no folder of one model: PEFT adapters and GGUF files."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import peft
import pytest
import torch
import transformers
from helpers.tiny_models import ARCHITECTURES, TEXTS, save_tiny

from keytok_haystack import Preparation, TokenDecoder
from keytok_haystack.encoders import PRESETS, head_of
from keytok_haystack.encoders.gguf import unpacked
from keytok_haystack.encoders.language_model import LanguageModelEncoder

ALL = {"target_modules": "all-linear"}
EOL = 'This sentence : "{}" means in one word:"'


def save_adapter(folder: Path, base: Path, *, headed: bool, seed: int = 0, **settings: Any) -> peft.PeftModel:
    """Write a random LoRA for a model, with its head or without, and return the two."""
    auto = transformers.AutoModelForCausalLM if headed else transformers.AutoModel
    torch.manual_seed(seed)
    adapted = peft.get_peft_model(auto.from_pretrained(base), peft.LoraConfig(r=4, lora_alpha=8, **settings))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.3)
    adapted.save_pretrained(folder)
    return adapted.eval()


def last_states(network: torch.nn.Module, folder: Path) -> np.ndarray:
    """The last hidden state of each text's PromptEOL."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = [tokenizer(EOL.format(text), return_tensors="pt") for text in TEXTS]
        return np.stack(
            [network(**each, output_hidden_states=True).hidden_states[-1][0, -1].numpy() for each in inputs]
        )


def assert_embeds_as(encoder: LanguageModelEncoder, network: torch.nn.Module, folder: Path) -> None:
    expected = last_states(network, folder)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-4)
    unadapted = last_states(transformers.AutoModel.from_pretrained(folder), folder)
    assert np.abs(expected - unadapted).max() > 0.1


@pytest.mark.parametrize("headed", [True, False], ids=["headed", "bare"])
@pytest.mark.parametrize("architecture", ["llama", "opt", "gpt-neo", "mistral-instruct"])
def test_an_adapter_finds_its_base_and_is_merged(
    tiny: Callable[[str], Path], tmp_path: Path, architecture: str, headed: bool
):
    """It names parameters as the model did that it was made for, with its head or without."""
    base = tiny(architecture)
    adapted = save_adapter(tmp_path, base, headed=headed, **ALL)
    part = f"base_model.model.{'transformer' if architecture == 'gpt-neo' else 'model'}."
    assert all(name.startswith(part) == headed for name in peft.load_peft_weights(str(tmp_path)))
    encoder = LanguageModelEncoder(f"prompt-eol:{tmp_path}")
    assert_embeds_as(encoder, adapted, base)
    assert_embeds_as(encoder, adapted.merge_and_unload(), base)


@pytest.mark.parametrize(
    "settings",
    [
        {
            "target_modules": ["q_proj", "v_proj"],
            "use_rslora": True,
            "alpha_pattern": {"model.layers.1.self_attn.q_proj": 2},
        },
        {"target_modules": r".*\.layers\.1\..*_proj"},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"], "task_type": "CAUSAL_LM"},
        {"target_modules": ["down_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "use_dora": True},
    ],
    ids=["rslora", "pattern", "saved embeddings", "head", "saved head", "dora"],
)
def test_adapters_of_many_kinds_are_merged(tiny: Callable[[str], Path], tmp_path: Path, settings: dict[str, Any]):
    adapted = save_adapter(tmp_path, tiny("llama"), headed=True, **settings)
    assert_embeds_as(LanguageModelEncoder(f"prompt-eol:{tmp_path}"), adapted, tiny("llama"))


def test_adapters_of_a_preset_are_merged_one_after_the_other(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As LLM2Vec has two; here of different kinds."""
    base = tiny("mistral-instruct")
    save_adapter(tmp_path / "first", base, headed=True, **ALL)
    save_adapter(tmp_path / "second", base, headed=False, seed=1, **ALL)
    expected = transformers.AutoModelForCausalLM.from_pretrained(base)
    expected = peft.PeftModel.from_pretrained(expected, str(tmp_path / "first")).merge_and_unload().model
    once = last_states(expected, base)
    expected = peft.PeftModel.from_pretrained(expected, str(tmp_path / "second")).merge_and_unload()
    assert np.abs(last_states(expected, base) - once).max() > 0.1

    adapters = (str(tmp_path / "first"), str(tmp_path / "second"))
    for name in ("opt-eol-cse", "llm2vec-sup"):
        monkeypatch.setitem(PRESETS, name, replace(PRESETS[name], checkpoint=str(base), adapters=adapters))
    assert_embeds_as(LanguageModelEncoder("opt-eol-cse"), expected, base)

    expected.save_pretrained(tmp_path / "merged")
    transformers.AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "merged")
    merged = LanguageModelEncoder(f"llm2vec-sup:{tmp_path / 'merged'}")
    np.testing.assert_allclose(LanguageModelEncoder("llm2vec-sup").encode(TEXTS), merged.encode(TEXTS), atol=1e-4)


def test_the_head_of_an_adapters_base_decodes_its_embeddings(tiny: Callable[[str], Path], tmp_path: Path):
    adapted = save_adapter(tmp_path, tiny("llama"), headed=True, **ALL)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny("llama"))
    with torch.no_grad():
        predicted = adapted(**tokenizer(EOL.format(TEXTS[0]), return_tensors="pt")).logits[0, -1].numpy()
    embeddings = LanguageModelEncoder(f"prompt-eol:{tmp_path}").encode(TEXTS[:1])
    head = head_of(f"prompt-eol:{tmp_path}", fold=False)
    logits = TokenDecoder(head.decoder.weight, Preparation(normalize=False)).logits(embeddings)[0]
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("▁lift", "▁flow", "▁wave")]
    np.testing.assert_allclose(logits[head.vocabulary.feature_of_id[ids]], predicted[ids], atol=1e-4)


def test_an_adapter_is_one_beside_a_configuration_too(tiny: Callable[[str], Path], tmp_path: Path):
    """As in the repositories of LLM2Vec."""
    adapted = save_adapter(tmp_path, tiny("mistral-instruct"), headed=False, **ALL)
    shutil.copy(tiny("mistral-instruct") / "config.json", tmp_path)
    assert_embeds_as(LanguageModelEncoder(f"prompt-eol:{tmp_path}"), adapted, tiny("mistral-instruct"))


@pytest.mark.parametrize("architecture", ["opt", "qwen3-base", "deeper"])
def test_an_adapter_of_another_model_is_refused(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str
):
    """It has other modules, or modules of other shapes, or more of them."""
    if architecture == "deeper":
        other = Path(shutil.copytree(tiny("llama"), tmp_path / "deeper"))
        config = transformers.AutoConfig.from_pretrained(other, num_hidden_layers=3)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(other)
    else:
        other = tiny(architecture)
    save_adapter(tmp_path / "adapter", other, headed=True, target_modules=["q_proj", "k_proj"])
    if architecture == "opt":  # whose modules have the names of Llama's at the end
        settings = tmp_path / "adapter/adapter_config.json"
        assert "q_proj" in json.loads(settings.read_text())["target_modules"]
    preset = replace(PRESETS["prompt-eol"], checkpoint=str(tiny("llama")), adapters=(str(tmp_path / "adapter"),))
    monkeypatch.setitem(PRESETS, "own", preset)
    with pytest.raises(ValueError, match=f"The adapter '{tmp_path / 'adapter'}' (does not fit|cannot be merged into)"):
        LanguageModelEncoder("own")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"nothing"), "cannot be merged"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "cannot be merged"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "not a language model that can be loaded"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "does not name the model that it adapts"),
        (
            lambda folder: (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/no/where"}'),
            "not a language model that can be loaded",
        ),
    ],
)
def test_an_adapter_that_cannot_be_read_is_refused(
    tiny: Callable[[str], Path], tmp_path: Path, damage: Callable[[Path], object], message: str
):
    save_adapter(tmp_path, tiny("llama"), headed=False, **ALL)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        LanguageModelEncoder(f"prompt-eol:{tmp_path}")


@pytest.mark.parametrize(
    "name", ["target_modules", "exclude_modules", "alpha_pattern", "rank_pattern", "layers_pattern"]
)
def test_an_adapter_whose_patterns_explode_is_refused(tiny: Callable[[str], Path], tmp_path: Path, name: str):
    save_adapter(tmp_path, tiny("llama"), headed=False, **ALL)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    settings[name] = {"(.+)+x": 3} if name in ("alpha_pattern", "rank_pattern") else "(.+)+x"
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"cannot be merged .* could take any time"):
        LanguageModelEncoder(f"prompt-eol:{tmp_path}")


def save_gguf(file: Path, base: Path) -> Path:
    """Write a Llama as a GGUF file, with GPT-2's kind of tokenizer."""
    network = transformers.AutoModelForCausalLM.from_pretrained(base)
    tokenizer = json.loads(ARCHITECTURES["gpt-neo"].tokenizer.to_str())["model"]
    config = network.config
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    tokens = [*tokenizer["vocab"], *(f"<{i}>" for i in range(len(tokenizer["vocab"]), config.vocab_size))]
    writer.add_token_list(tokens)
    writer.add_token_types([3, *[1] * (len(tokens) - 1)])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    names |= {f"model.layers.{i}.{own}": f"blk.{i}.{name}" for i in range(2) for own, name in parts.items()}
    for name, tensor in network.state_dict().items():
        writer.add_tensor(f"{names[name.removesuffix('.weight')]}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def gguf_file(tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KEYTOK_CACHE", str(tmp_path / "cache"))
    return save_gguf(tmp_path / "small.gguf", tiny("llama"))


def test_a_gguf_file_is_converted_once(gguf_file: Path, tmp_path: Path):
    embedder = f"prompt-eol:{gguf_file}"
    embeddings = LanguageModelEncoder(embedder).encode(TEXTS)
    folder = Path(unpacked(str(gguf_file)))
    assert folder.parent == tmp_path / "cache/checkpoints"
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]
    files = {each: each.stat().st_mtime_ns for each in folder.iterdir()}
    np.testing.assert_array_equal(LanguageModelEncoder(embedder).encode(TEXTS), embeddings)
    assert {each: each.stat().st_mtime_ns for each in folder.iterdir()} == files

    own = {"gguf_file": gguf_file.name}
    network = transformers.AutoModelForCausalLM.from_pretrained(gguf_file.parent, **own)
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf_file.parent, **own)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    network.config.save_pretrained(tmp_path / "tokenizer")
    np.testing.assert_allclose(embeddings, last_states(network, tmp_path / "tokenizer"), atol=1e-5)
    assert embeddings.std(axis=0).mean() > 0.1

    head = head_of(embedder, fold=False)
    ids = [tokenizer.convert_tokens_to_ids(token) for token in ("Ġlift", "Ġflow", "Ġwave")]
    rows = head.vocabulary.feature_of_id[ids]
    np.testing.assert_allclose(head.decoder.weight[rows], network.lm_head.weight.detach().numpy()[ids], atol=1e-3)


def test_another_gguf_file_of_the_same_name_is_converted_anew(gguf_file: Path, tmp_path: Path):
    before = LanguageModelEncoder(f"prompt-eol:{gguf_file}").encode(TEXTS)
    gguf_file.unlink()
    save_gguf(gguf_file, save_tiny(tmp_path / "other", "llama", seed=1))
    after = LanguageModelEncoder(f"prompt-eol:{gguf_file}").encode(TEXTS)
    assert np.abs(before - after).max() > 0.1


@pytest.mark.parametrize("kept", [0, 12, 2000, -100])
def test_a_damaged_gguf_file_is_refused_and_leaves_nothing(gguf_file: Path, tmp_path: Path, kept: int):
    gguf_file.write_bytes(gguf_file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=f"'{gguf_file}' cannot be read as a language model: "):
        LanguageModelEncoder(f"prompt-eol:{gguf_file}")
    assert not list(tmp_path.glob("cache/checkpoints/*"))


def test_nothing_that_lies_beside_a_gguf_file_is_run_or_asked_about(gguf_file: Path, capfd: pytest.CaptureFixture):
    """transformers would ask whether to run the code that a tokenizer's settings name, and wait for the answer."""
    folder = gguf_file.parent
    (folder / "own.py").write_text(f"open({str(folder / 'trace')!r}, 'w')\nclass Own: ...\n")
    code = {
        "auto_map": {
            "AutoTokenizer": ["own.Own", "own.Own"],
            "AutoConfig": "own.Own",
            "AutoModelForCausalLM": "own.Own",
        }
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Own", **code}))
    (folder / "config.json").write_text(json.dumps({"model_type": "own", **code}))
    assert LanguageModelEncoder(f"prompt-eol:{gguf_file}").encode(TEXTS).shape[0] == len(TEXTS)
    assert not (folder / "trace").exists()
    assert "code" not in "".join(capfd.readouterr())


REAL = {
    "Paris is the capital of France.": {"paris", "france", "capital"},
    "Cats and dogs are animals that live with people.": {"cats", "dogs", "animals"},
    "Bees make honey from the nectar of flowers.": {"bees", "honey"},
}


@pytest.fixture(scope="module")
def real(smollm2: Path) -> np.ndarray:
    return LanguageModelEncoder(f"prompt-eol:{smollm2}").encode(list(REAL))


@pytest.mark.slow
def test_a_real_language_model_gives_transformers_own_states(smollm2: Path, real: np.ndarray):
    network = transformers.AutoModelForCausalLM.from_pretrained(smollm2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    for text, embedding in zip(REAL, real, strict=True):
        with torch.no_grad():
            output = network(**tokenizer(EOL.format(text), return_tensors="pt"), output_hidden_states=True)
        np.testing.assert_allclose(embedding, output.hidden_states[-1][0, -1].numpy(), atol=2e-3, rtol=1e-3)


@pytest.mark.slow
def test_the_head_of_a_real_language_model_says_what_texts_are_about(smollm2: Path, real: np.ndarray):
    head = head_of(f"prompt-eol:{smollm2}")
    logits = TokenDecoder(head.decoder.weight, Preparation(normalize=False)).logits(real)
    for words, own in zip(REAL.values(), logits, strict=True):
        assert words <= {head.vocabulary.features[i] for i in np.argsort(-own)[:6]}


@pytest.mark.parametrize("name", ["bert", "gpt-neo", "llama"])
def test_a_checkpoint_without_its_tokenizer_is_refused(name: str, tiny: Callable[[str], Path], tmp_path: Path):
    """Of some architectures transformers makes a tokenizer for which every word is unknown."""
    folder = shutil.copytree(tiny(name), tmp_path / name)
    for file in ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model"):
        (folder / file).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"tokenizer|not a language model that can be loaded"):
        LanguageModelEncoder(f"prompt-eol:{folder}")


def test_an_adapters_own_tokenizer_comes_before_its_bases(tiny: Callable[[str], Path], tmp_path: Path):
    base, folder = tiny("llama"), tmp_path / "adapter"
    adapted = save_adapter(folder, base, headed=False, **ALL)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base / file, folder)
    own = json.loads((folder / "tokenizer.json").read_text())
    ids = own["model"]["vocab"]
    ordinary = sorted(ids, key=ids.get)[-2:]
    ids[ordinary[0]], ids[ordinary[1]] = ids[ordinary[1]], ids[ordinary[0]]
    (folder / "tokenizer.json").write_text(json.dumps(own))
    text = " ".join(token.replace("▁", " ").replace("Ġ", " ").strip() for token in ordinary)
    encoder = LanguageModelEncoder(f"prompt-eol:{folder}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        states = adapted(**tokenizer(EOL.format(text), return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(encoder.encode([text])[0], states[0, -1].numpy(), atol=1e-5)
    features = head_of(f"prompt-eol:{folder}", fold=False).vocabulary.features
    plain = head_of(f"prompt-eol:{base}", fold=False).vocabulary.features
    changed = [i for i, (one, other) in enumerate(zip(features, plain, strict=True)) if one != other]
    assert changed == sorted(ids[token] for token in ordinary)


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 cut off"])
def test_a_damaged_bin_file_is_refused(content: bytes, tiny: Callable[[str], Path], tmp_path: Path):
    folder = shutil.copytree(tiny("opt"), tmp_path / "opt")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match="not a language model that can be loaded"):
        LanguageModelEncoder(f"prompt-eol:{folder}")


def test_embeddings_that_overflow_are_refused(tiny: Callable[[str], Path], tmp_path: Path):
    network = transformers.AutoModelForCausalLM.from_pretrained(tiny("llama"))
    with torch.no_grad():
        network.model.norm.weight.fill_(1e38)
    network.save_pretrained(tmp_path)
    for file in tiny("llama").glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    with pytest.raises(ValueError, match=r"text 0 is not finite in torch.float16: use the dtype bfloat16"):
        LanguageModelEncoder(f"prompt-eol:{tmp_path}", dtype="float16").encode(TEXTS)
