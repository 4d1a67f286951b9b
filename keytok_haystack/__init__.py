# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Sparse vectors over readable tokens, from any dense embedding."""

from typing import TYPE_CHECKING

from keytok_haystack.utils.lazy import imported_on_access

if TYPE_CHECKING:
    from keytok_haystack.alignment_measures import Alignment, alignment, tokens_kept
    from keytok_haystack.decoder import TokenDecoder
    from keytok_haystack.decoders import (
        calibrate,
        fit,
        from_language_model,
        from_masked_lm,
        from_word_embeddings,
        refine,
    )
    from keytok_haystack.decoders.checkpoints import CheckpointError
    from keytok_haystack.embedding_space import Preparation, Spectrum, embed_filter
    from keytok_haystack.explanation import Explanation, explain
    from keytok_haystack.inverted_index import InvertedIndex
    from keytok_haystack.model import KeyTokenModel
    from keytok_haystack.model_folder import ModelFolderError
    from keytok_haystack.pipelines import pipeline_yaml
    from keytok_haystack.sparse_vectors.token_rows import TokenRows
    from keytok_haystack.utils.checks import EmbeddingError
    from keytok_haystack.vocabulary import TokenizerVocabulary, Vocabulary, WordVocabulary
    from keytok_haystack.weighting import Weighting

__all__ = [
    "Alignment",
    "CheckpointError",
    "EmbeddingError",
    "Explanation",
    "InvertedIndex",
    "KeyTokenModel",
    "ModelFolderError",
    "Preparation",
    "Spectrum",
    "TokenDecoder",
    "TokenRows",
    "TokenizerVocabulary",
    "Vocabulary",
    "Weighting",
    "WordVocabulary",
    "alignment",
    "calibrate",
    "embed_filter",
    "explain",
    "fit",
    "from_language_model",
    "from_masked_lm",
    "from_word_embeddings",
    "pipeline_yaml",
    "refine",
    "tokens_kept",
]

_MODULES = {
    "Alignment": "alignment_measures",
    "CheckpointError": "decoders.checkpoints",
    "EmbeddingError": "utils.checks",
    "Explanation": "explanation",
    "InvertedIndex": "inverted_index",
    "KeyTokenModel": "model",
    "ModelFolderError": "model_folder",
    "Preparation": "embedding_space",
    "Spectrum": "embedding_space",
    "TokenDecoder": "decoder",
    "TokenRows": "sparse_vectors.token_rows",
    "TokenizerVocabulary": "vocabulary",
    "Vocabulary": "vocabulary",
    "Weighting": "weighting",
    "WordVocabulary": "vocabulary",
    "alignment": "alignment_measures",
    "calibrate": "decoders",
    "embed_filter": "embedding_space",
    "explain": "explanation",
    "fit": "decoders",
    "from_language_model": "decoders",
    "from_masked_lm": "decoders",
    "from_word_embeddings": "decoders",
    "pipeline_yaml": "pipelines",
    "refine": "decoders",
    "tokens_kept": "alignment_measures",
}
"""Modules of the names; none is imported before it is needed, since numpy and SciPy take most of a second."""

__getattr__ = imported_on_access(__name__, _MODULES)
