# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import pytest
from haystack.document_stores.in_memory import InMemoryDocumentStore
from helpers.retrieval import store_of


@pytest.fixture
def store() -> InMemoryDocumentStore:
    """Four documents, one of them without key tokens."""
    return store_of(
        {
            "shocking": {"shock": 1.0, "wave": 0.3},
            "wavy": {"wave": 0.9, "flow": 0.2},
            "hot": {"heat": 0.7, "transfer": 0.6},
            "empty": {},
        }
    )
