# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Tiny checkpoints: a tokenizer of eight tokens, and sizes of models that take milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

TOKENS = ("[UNK]", "lift", "Lift", "▁lift", "wing", ",", "Wave", "3.5")
FEATURES = {"lift": (1, 2, 3), "wing": (4,), "wave": (6,), "3.5": (7,)}  # the ids that each feature folds
V, D = 11, 8  # the matrix has rows that no token uses, as padded vocabularies do

SIZES = {
    "vocab_size": V,
    "hidden_size": D,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GPT2_SIZES = {"vocab_size": V, "n_embd": D, "n_layer": 1, "n_head": 2, "n_positions": 16}


def save_tokenizer(folder: Path, *, own: int = len(TOKENS)) -> Path:
    """Write a tokenizer; all but its `own` tokens were added to it later."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(TOKENS[:own])}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["[UNK]"])
    tokenizer.add_tokens(list(TOKENS[own:]))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def save_checkpoint(folder: Path, config: dict[str, Any], **tensors: np.ndarray) -> Path:
    """A checkpoint without transformers: tensor names have `__` for dots."""
    save_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name.replace("__", "."): tensor for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def folded(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """The rows of the ids of each feature, averaged, in float64."""
    return {feature: matrix.astype(np.float64)[list(ids)].mean(axis=0) for feature, ids in FEATURES.items()}
