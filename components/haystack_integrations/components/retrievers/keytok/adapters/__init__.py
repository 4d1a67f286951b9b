# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How SparseRetriever searches a document store: one adapter module for each kind of store."""

from haystack_integrations.components.retrievers.keytok.adapters.store import (
    SparseQuery,
    StoreAdapter,
    adapter_class,
    adapter_for,
    store_retrievers,
)

__all__ = ["SparseQuery", "StoreAdapter", "adapter_class", "adapter_for", "store_retrievers"]
