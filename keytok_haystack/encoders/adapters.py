# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""PEFT adapters: small changes of a language model's weights, kept beside it."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from keytok_haystack.utils.artefacts import one_line, read_object
from keytok_haystack.utils.extras import needs
from keytok_haystack.utils.patterns import check_patterns

_PREFIX = "base_model.model."
_MODULE_NAME = 100  # characters, about


def base_of(checkpoint: str, token: str | None = None) -> str | None:
    """
    Return the model that an adapter was made for; None for a checkpoint that is not an adapter.

    :raises ValueError: The adapter does not name its model.
    """
    config = find_adapter_config_file(checkpoint, token=token)
    if config is None:
        return None
    base = read_object(Path(config)).get("base_model_name_or_path")
    if not isinstance(base, str):
        msg = "it is an adapter that does not name the model that it adapts: add it to adapter_config.json."
        raise ValueError(msg)  # noqa: TRY004  # bad input, not a bug
    return base


def _check_patterns(settings: dict[str, Any]) -> None:
    """Refuse settings of an adapter that PEFT would run as patterns of module names, and that may take any time."""
    patterns: list[Any] = [settings.get("target_modules"), settings.get("exclude_modules")]
    patterns += [pattern for name in ("rank_pattern", "alpha_pattern") for pattern in settings.get(name) or ()]
    listed = settings.get("layers_pattern")
    patterns += listed if isinstance(listed, list) else [listed]
    check_patterns(patterns, _MODULE_NAME)


def with_adapter(model: PreTrainedModel, adapter: str, token: str | None = None) -> PreTrainedModel:
    """
    Merge an adapter into a model without a head.

    An adapter may have been made for the model with its head; its changes of the head are left out.

    :raises ValueError: The adapter cannot be read, or is not for this model.
    :raises ModuleNotFoundError: peft is not installed.
    """
    with needs("transformers", f"'{adapter}' is a PEFT adapter, which needs an extra"):
        from peft import PeftConfig, PeftModel, load_peft_weights, set_peft_model_state_dict  # noqa: PLC0415

    part = model.base_model_prefix
    try:
        weights = load_peft_weights(adapter, device="cpu", token=token)
        weights = {name: tensor for name, tensor in weights.items() if ".lm_head." not in name}
        headed = any(name.startswith(f"{_PREFIX}{part}.") for name in weights)
        adaptable: Any = _Headless(part, model) if headed else model
        if (config := find_adapter_config_file(adapter, token=token)) is not None:
            _check_patterns(read_object(Path(config)))
        adapted = PeftModel(adaptable, PeftConfig.from_pretrained(adapter, token=token))
        result: Any = set_peft_model_state_dict(adapted, weights)
    except Exception as error:  # of many types, by what is wrong with its files
        msg = f"The adapter '{adapter}' cannot be merged into its model: {one_line(error)}"
        raise ValueError(msg) from error
    missing = [name for name in result.missing_keys if "lora_" in name and ".lm_head." not in name]
    if result.unexpected_keys or missing:
        msg = (
            f"The adapter '{adapter}' does not fit its model: {(result.unexpected_keys or missing)[0]} is not in both."
        )
        raise ValueError(msg)
    merged: Any = adapted.merge_and_unload()
    return getattr(merged, part) if headed else merged  # type: ignore[no-any-return]


class _Headless(torch.nn.Module):
    """A model as a part of the one with a head, in which its parameters have other names."""

    def __init__(self, part: str, model: PreTrainedModel) -> None:
        super().__init__()
        self.config = model.config
        self.add_module(part, model)
