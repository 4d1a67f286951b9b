# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from haystack_integrations.components.embedders.keytok.language_model_embedder import LanguageModelEmbedder
from haystack_integrations.components.embedders.keytok.pc1_adjuster import PC1Adjuster
from haystack_integrations.components.embedders.keytok.sparse_embedder import KeyTokenSparseEmbedder
from haystack_integrations.components.embedders.keytok.sparse_embedding_converter import SparseEmbeddingConverter

__all__ = ["KeyTokenSparseEmbedder", "LanguageModelEmbedder", "PC1Adjuster", "SparseEmbeddingConverter"]
