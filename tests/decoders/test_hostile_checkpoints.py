# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose makers mean harm, or were careless, are refused in one sentence."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.checkpoints import D, V, save_checkpoint, save_tokenizer
from safetensors.numpy import save_file

from keytok_haystack import CheckpointError, from_language_model, from_masked_lm

HEAD = np.random.default_rng(0).normal(size=(V, D)).astype(np.float32)
A, B = np.ones((2, D), dtype=np.float32), np.ones((V, 2), dtype=np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_a_head_that_float16_does_not_hold_is_refused(tmp_path: Path, value: float):
    head = HEAD.copy()
    head[4, 3] = value
    with pytest.raises(CheckpointError, match=r"lm_head\.weight.* not finite"):
        from_language_model(save_checkpoint(tmp_path, {}, lm_head__weight=head))


def test_a_head_without_columns_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="a matrix of floats is needed"):
        from_language_model(save_checkpoint(tmp_path, {}, lm_head__weight=HEAD[:, :0]))


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b", "..", "", 3, None, ["model.safetensors"]]
)
def test_an_index_that_names_files_elsewhere_is_refused(tmp_path: Path, name: Any):
    save_file({"lm_head.weight": HEAD}, tmp_path / "secret.safetensors")
    folder = save_checkpoint(tmp_path / "model", {}, other=HEAD)
    index = {"weight_map": {"lm_head.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="does not say which file of the checkpoint holds which tensor"):
        from_language_model(folder)


def save_adapter(folder: Path, base: Path | str, a: np.ndarray, b: np.ndarray, **settings: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"base_model_name_or_path": str(base), "lora_alpha": 4, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.lm_head.lora_{}.weight"
    save_file({name.format("A"): a, name.format("B"): b}, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[..., Path]:
    base = save_checkpoint(tmp_path / "base", {}, lm_head__weight=HEAD)

    def save(**changes: Any) -> Path:
        return save_adapter(tmp_path / "adapter", base, **{"a": A, "b": B, **changes})

    return save


@pytest.mark.parametrize(
    ("length", "refused"), [(1, False), (3, False), (20, True), (0, True)], ids=["one", "chain", "long chain", "cycle"]
)
def test_adapters_of_adapters_end_somewhere(tmp_path: Path, length: int, refused: bool):
    base = save_checkpoint(tmp_path / "base", {}, lm_head__weight=HEAD)
    for i in range(max(length, 2)):
        of = base if i == 0 and length else tmp_path / str((i - 1) % max(length, 2))
        save_adapter(tmp_path / str(i), of, A, B)
    if refused:
        with pytest.raises(CheckpointError, match="an adapter of an adapter, and so on without end"):
            from_language_model(tmp_path / str(max(length, 2) - 1))
    else:
        merged = from_language_model(tmp_path / str(length - 1)).decoder.weight
        np.testing.assert_allclose(merged, from_language_model(base).decoder.weight + 4 * length, rtol=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": np.ones((0, D), np.float32), "b": np.ones((V, 0), np.float32)}, "a matrix of floats is needed"),
        ({"a": np.ones((3, D), np.float32)}, "does not fit"),
        ({"a": np.ones((2, 1), np.float32)}, "does not fit"),
        ({"b": np.ones((1, 2), np.float32)}, "does not fit"),
        ({"b": np.ones(V, np.float32)}, "a matrix of floats is needed"),
        ({"a": np.full((2, D), np.nan, np.float32)}, "not finite"),
        ({"lora_alpha": "4"}, "no alpha that can be read"),
        ({"lora_alpha": None}, "no alpha that can be read"),
        ({"lora_alpha": True}, "no alpha that can be read"),
        ({"lora_alpha": float("nan")}, "no alpha that can be read"),
        ({"lora_alpha": 10**400}, "no alpha that can be read"),
        ({"lora_alpha": 1e30}, "not finite"),
        ({"alpha_pattern": ["lm_head"]}, "no alpha that can be read"),
        ({"alpha_pattern": {"lm_head": "x"}}, "no alpha that can be read"),
        ({"alpha_pattern": {"(": 3}}, "no alpha that can be read"),
        ({"alpha_pattern": {"(.+)+x": 3}}, "could take any time"),
    ],
)
def test_an_adapter_that_gives_no_head_is_refused(adapter: Callable[..., Path], changes: dict[str, Any], message: str):
    with pytest.raises(CheckpointError, match=message):
        from_language_model(adapter(**changes))


@pytest.mark.parametrize("config", ["[" * 10**6, '{"a": ' * 10**6, "[]", '"a"', "\x00"])
@pytest.mark.parametrize("file", ["config.json", "adapter_config.json", "model.safetensors.index.json"])
def test_a_description_that_is_no_sane_object_is_refused(tmp_path: Path, file: str, config: str):
    (save_checkpoint(tmp_path, {}, lm_head__weight=HEAD) / file).write_text(config)
    with pytest.raises(CheckpointError, match=f"{file}'? is (nested too deeply|not)"):
        from_language_model(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path: Path):
    folder = save_checkpoint(tmp_path, {}, lm_head__weight=HEAD)
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / file).rename(folder / "kept")
        os.mkfifo(folder / file)
        with pytest.raises(CheckpointError):
            from_language_model(folder)
        (folder / file).unlink()
        (folder / "kept").rename(folder / file)
    assert from_language_model(folder).dimension == D


def test_a_tensor_of_torch_that_repeats_what_is_stored_is_refused_unread(tmp_path: Path):
    save_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    torch.save({"lm_head.weight": torch.ones(1, D).expand(1 << 40, D)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="is larger than the file"):
        from_language_model(tmp_path)


def test_a_compressed_file_of_torch_is_refused_unread(tmp_path: Path):
    save_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 28))
    with pytest.raises(CheckpointError, match="is compressed"):
        from_language_model(tmp_path)


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ({"hidden_act": ["gelu"]}, {}),
        ({"layer_norm_eps": [1]}, {}),
        ({"layer_norm_eps": "x"}, {}),
        ({"layer_norm_eps": -1}, {}),
        ({"layer_norm_eps": 10**400}, {}),
        ({"num_hidden_layers": "1"}, {}),
        ({"num_hidden_layers": [1]}, {}),
        ({}, {"cls__predictions__bias": np.ones(3, np.float32)}),
        ({}, {"cls__predictions__transform__dense__bias": np.ones(3, np.float32)}),
        ({}, {"cls__predictions__transform__LayerNorm__weight": np.full(D, np.nan, np.float32)}),
    ],
)
def test_a_masked_head_that_does_not_fit_together_is_refused(
    tmp_path: Path, config: dict[str, Any], changes: dict[str, np.ndarray]
):
    ones = np.ones(D, np.float32)
    tensors = {
        "cls__predictions__transform__dense__weight": HEAD[:D],
        "cls__predictions__transform__dense__bias": ones,
        "cls__predictions__transform__LayerNorm__weight": ones,
        "encoder__layer__0__output__LayerNorm__weight": ones,
        "cls__predictions__bias": np.ones(V, np.float32),
        "embeddings__word_embeddings__weight": HEAD,
    }
    settings = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "num_hidden_layers": 1}
    assert from_masked_lm(save_checkpoint(tmp_path / "good", settings, **tensors)).dimension == D
    with pytest.raises(CheckpointError):
        from_masked_lm(save_checkpoint(tmp_path / "bad", settings | config, **tensors | changes))
