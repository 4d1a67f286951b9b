# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""From texts to features: words and their analysis, and the tokens of language models."""

from keytok_haystack.vocabulary.analysis import Analysis
from keytok_haystack.vocabulary.languages import NO_LANGUAGE, check_language, detect_language
from keytok_haystack.vocabulary.tokenizers import (
    WHITE_SPACE,
    TokenizerError,
    check_tokenizer,
    copied_tokenizer,
    is_readable,
    load_tokenizer,
    parsed_tokenizer,
)
from keytok_haystack.vocabulary.tokens import TokenizerVocabulary
from keytok_haystack.vocabulary.vocabulary import Vocabulary
from keytok_haystack.vocabulary.words import WordVocabulary

__all__ = [
    "NO_LANGUAGE",
    "WHITE_SPACE",
    "Analysis",
    "TokenizerError",
    "TokenizerVocabulary",
    "Vocabulary",
    "WordVocabulary",
    "check_language",
    "check_tokenizer",
    "copied_tokenizer",
    "detect_language",
    "is_readable",
    "load_tokenizer",
    "parsed_tokenizer",
]
