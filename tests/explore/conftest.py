# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from keytok_haystack import KeyTokenModel
from keytok_haystack.encoders import CachedEmbedder, Embedded
from keytok_haystack.explore import Workbench, text_source
from keytok_haystack.utils.resources import resource


@pytest.fixture(scope="session")
def bench(
    cranfield_model: KeyTokenModel, cranfield_model_folder: Path, cranfield_documents: Embedded, embedder: str
) -> Workbench:
    """Cranfield, indexed in memory, each document with a year; its embeddings are in the cache already."""
    cached = CachedEmbedder(embedder, progress_bar=False)
    source = text_source(resource("examples/cranfield"), cranfield_model, cached)
    for document in source.store.storage.values():
        document.meta["year"] = 1950 + int(document.id) % 20
    return Workbench(cranfield_model_folder, cranfield_model, source, cached)
