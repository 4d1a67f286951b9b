# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Sources of decoders: fitted to a corpus (`fit`), or read from a checkpoint (`from_language_model`) and calibrated.

`refine` improves either.
"""

from keytok_haystack.decoders.calibration import calibrate
from keytok_haystack.decoders.fit import REGULARIZATION, fit
from keytok_haystack.decoders.heads import from_language_model, from_masked_lm, from_word_embeddings
from keytok_haystack.decoders.refine import refine

__all__ = [
    "REGULARIZATION",
    "calibrate",
    "fit",
    "from_language_model",
    "from_masked_lm",
    "from_word_embeddings",
    "refine",
]
