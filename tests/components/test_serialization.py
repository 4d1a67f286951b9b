# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Pipelines that are stored as YAML keep every setting of every component."""

import inspect
from typing import Any

import pytest
import yaml
from haystack import Pipeline
from haystack.components.embedders import MockTextEmbedder
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice, Secret
from haystack_integrations.components.embedders import keytok as embedders
from haystack_integrations.components.retrievers import keytok as retrievers

FILTERS = {"field": "meta.part", "operator": "==", "value": 1}
SEARCH = {
    "document_store": InMemoryDocumentStore(index="serialization"),
    "filters": FILTERS,
    "top_k": 3,
    "filter_policy": "merge",
    "model": "folder",
    "dense_weight": 0.25,
    "bm25_weight": 0.5,
    "first_phase": 0.75,
    "rescored": 20,
    "nearest": 4,
    "field": "tokens",
    "content_field": "body",
    "timeout": 7.0,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "KeyTokenSparseEmbedder": {
        "model": "folder",
        "top_k": 3,
        "query_top_k": 2,
        "field": "tokens",
        "return_sparse_embedding": True,
        "batch_size": 7,
        "progress_bar": False,
        "raise_on_failure": False,
    },
    "LanguageModelEmbedder": {
        "model": "gritlm-7b",
        "instruction": "Find",
        "device": ComponentDevice.from_str("cuda:3"),
        "dtype": "bfloat16",
        "token": Secret.from_env_var("OWN_TOKEN"),
        "max_tokens": 64,
        "batch_tokens": 512,
        "meta_fields_to_embed": ["title"],
        "embedding_separator": " | ",
        "progress_bar": False,
    },
    "PC1Adjuster": {
        "model": "folder",
        "strength": 0.5,
        "n_components": 2,
        "method": "shift",
        "raise_on_failure": False,
    },
    "SparseEmbeddingConverter": {"field": "tokens"},
    "KeyTokenExplainer": {"top_k": None, "strip": False, "field": "tokens"},
    "KeyTokenHybridRetriever": {**SEARCH, "embedder": MockTextEmbedder(embedding=[0.5, 1.0])},
    "SparseRetriever": {**SEARCH, "return_key_tokens": True},
    "EditableQueryRetriever": {
        "retriever": retrievers.SparseRetriever(**SEARCH),
        "text_embedder": MockTextEmbedder(embedding=[0.5, 1.0]),
    },
}


@pytest.mark.parametrize("name", [*embedders.__all__, *retrievers.__all__])
def test_every_setting_survives(name):
    kind = getattr(embedders, name, None) or getattr(retrievers, name)
    settings = SETTINGS[name]
    parameters = {key: each for key, each in inspect.signature(kind.__init__).parameters.items() if key != "self"}
    assert settings.keys() == parameters.keys()
    assert all(settings[key] != each.default for key, each in parameters.items()), "each can be told from the default"
    pipeline = Pipeline()
    pipeline.add_component("component", kind(**settings))
    stored = pipeline.dumps()
    kept = yaml.safe_load(stored)["components"]["component"]["init_parameters"]
    assert kept == {key: value.to_dict() if hasattr(value, "to_dict") else value for key, value in settings.items()}
    assert Pipeline.loads(stored).dumps() == stored
