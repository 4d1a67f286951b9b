# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The part of a network that is trained: its last layers, all of their weights or low-rank changes of the matrices."""

import re
import warnings
from typing import Any, cast

import torch
from peft import LoraConfig, get_peft_model
from transformers.pytorch_utils import Conv1D

from keytok_haystack.training.errors import TrainingError
from keytok_haystack.training.settings import Settings

_NUMBER = re.compile(r"(?:^|\.)(\d+)\.")


def make_trainable(network: Any, settings: Settings) -> Any:
    """
    Select the parameters of a network to train, those of its last layers, and freeze the others.

    Nothing has to flow back through what is before these layers, and a head that is tied to the word embeddings keeps
    its meaning.

    :param network: Network, changed in place.
    :param settings: Settings with a method and a share of layers (`resolve`).
    :returns: The network itself, or LoRA around it.
    :raises TrainingError: No part of the network has the number of a layer in its name.
    """
    count = int(network.config.get_text_config().num_hidden_layers)
    first = min(count - 1, round(count * (1 - cast("float", settings.layers))))
    network.requires_grad_(requires_grad=False)
    if settings.method == "full":
        chosen = [parameter for name, parameter in network.named_parameters() if _layer(name) >= first]
        for parameter in chosen:
            parameter.requires_grad = True
        if not chosen:
            raise TrainingError(_NO_LAYERS)
        return network
    matrices = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and _layer(name) >= first
    ]
    if not matrices:
        raise TrainingError(_NO_LAYERS)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # peft uses a renamed function
        adapted = get_peft_model(
            network, LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules=matrices)
        )
    adapted.peft_config["default"].base_model_name_or_path = None  # else peft asks the hub for it at each checkpoint
    return adapted


def _layer(name: str) -> int:
    """Return the number of the layer that a part of a model belongs to by its name; -1 outside the layers."""
    number = _NUMBER.search(name)
    return -1 if number is None else int(number[1])


_NO_LAYERS = "None of the model's parts has the number of a layer in its name, so there is nothing to train."
