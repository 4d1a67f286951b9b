# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The embedder that a training starts from."""

from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from keytok_haystack.encoders import find_preset
from keytok_haystack.encoders.gguf import unpacked

_CAUSAL = "prompt-eol"


def base_embedder(model: str) -> str:
    """
    Return the embedder that a model is trained as: presets as they are, other language models with "prompt-eol".

    :param model: Preset, `NAME` or `NAME:CHECKPOINT`, or the path or hub id of a causal language model.
    :raises ValueError: The model is an encoder without a preset, or the preset has no checkpoint and none is named.
    """
    if find_preset(model) is not None:
        return model
    try:
        kind = AutoConfig.from_pretrained(unpacked(model), trust_remote_code=False).model_type
    except (OSError, ValueError):  # an adapter, or nothing that can be loaded, which is reported on loading
        kind = None
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        msg = f"'{model}' is an encoder: say how it pools, as in 'contriever:{model}' for the mean over its tokens."
        raise ValueError(msg)
    return f"{_CAUSAL}:{model}"
