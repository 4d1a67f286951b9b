# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Run embedders, with a cache.

`LanguageModelEncoder` is in `keytok_haystack.encoders.language_model`, which imports torch and transformers.
"""

from typing import TYPE_CHECKING

from keytok_haystack.utils.lazy import imported_on_access

if TYPE_CHECKING:
    from keytok_haystack.encoders.embedding import CachedEmbedder, Embedded, embed, load_encoder
    from keytok_haystack.encoders.heads import head_of, head_source
    from keytok_haystack.encoders.presets import PRESETS, Preset, find_preset, overview

__all__ = [
    "PRESETS",
    "CachedEmbedder",
    "Embedded",
    "Preset",
    "embed",
    "find_preset",
    "head_of",
    "head_source",
    "load_encoder",
    "overview",
]

_MODULES = {
    "CachedEmbedder": "embedding",
    "Embedded": "embedding",
    "PRESETS": "presets",
    "Preset": "presets",
    "embed": "embedding",
    "find_preset": "presets",
    "head_of": "heads",
    "head_source": "heads",
    "load_encoder": "embedding",
    "overview": "presets",
}
"""Modules of the names: a list of presets waits for no arrays."""

__getattr__ = imported_on_access(__name__, _MODULES)
