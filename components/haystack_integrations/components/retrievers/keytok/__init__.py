# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from haystack_integrations.components.retrievers.keytok.editable_query_retriever import EditableQueryRetriever
from haystack_integrations.components.retrievers.keytok.explainer import KeyTokenExplainer
from haystack_integrations.components.retrievers.keytok.hybrid_retriever import KeyTokenHybridRetriever
from haystack_integrations.components.retrievers.keytok.sparse_retriever import SparseRetriever

__all__ = ["EditableQueryRetriever", "KeyTokenExplainer", "KeyTokenHybridRetriever", "SparseRetriever"]
