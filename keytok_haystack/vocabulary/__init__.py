# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""From texts to features: tokenizers, the surface forms of their tokens, and the vocabulary that they make."""

from keytok_haystack.vocabulary.tokenizers import WHITE_SPACE, is_readable, load_tokenizer
from keytok_haystack.vocabulary.vocabulary import Vocabulary

__all__ = ["WHITE_SPACE", "Vocabulary", "is_readable", "load_tokenizer"]
