# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How SparseRetriever searches a document store: one adapter module for each kind of store."""

from haystack_integrations.components.retrievers.keytok.adapters.protocol import (
    SparseQuery,
    StoreAdapter,
    adapter_for,
)

__all__ = ["SparseQuery", "StoreAdapter", "adapter_for"]
