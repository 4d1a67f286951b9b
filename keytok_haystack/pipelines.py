# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""The pipelines that come with the project, adapted to a user's own models and addresses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from keytok_haystack.utils.resources import resource


def pipeline_yaml(
    name: str | Path,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    model: str | Path | None = None,
    document_store: Mapping[str, Any] | None = None,
) -> str:
    """
    Return a pipeline as YAML, with some of its components' parameters replaced.

    Haystack substitutes no variables in YAML, so paths and addresses are literal there. This replaces them:

    ```python
    from haystack import Pipeline
    from keytok_haystack import pipeline_yaml

    embedder = {"text_embedder": {"model": "BAAI/bge-small-en-v1.5"}}
    pipeline = Pipeline.loads(pipeline_yaml("query.in_memory", embedder, model="models/mine"))

    store = {"hosts": "https://search.example.com:9200", "index": "articles"}
    pipeline = Pipeline.loads(pipeline_yaml("query.opensearch", embedder, model="models/mine", document_store=store))
    ```

    :param name: A pipeline of this project, such as "query.in_memory", or the path of a YAML file.
    :param overrides: For each component, the init parameters to replace; `"retriever": {"document_store.index": "x"}`
        reaches into a nested component.
    :param model: The key-token model, for every component that has one.
    :param document_store: Init parameters to replace in the document store of every component that has one.
    :raises FileNotFoundError: There is no such pipeline.
    :raises KeyError: The pipeline has no such component, or a nested component does not exist.
    """
    path = Path(name)
    if path.suffix not in (".yml", ".yaml"):
        path = resource("pipelines") / f"{name}.yml"
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    for component in definition["components"].values():
        parameters = component["init_parameters"]
        if model is not None and ".keytok." in component["type"] and "model" in parameters:
            parameters["model"] = str(model)
        if document_store and "document_store" in parameters:
            parameters["document_store"]["init_parameters"].update(document_store)
    for component, parameters in (overrides or {}).items():
        if component not in definition["components"]:
            msg = f"'{path.name}' has no component '{component}', only {', '.join(definition['components'])}."
            raise KeyError(msg)
        for dotted, value in parameters.items():
            _replace(definition["components"][component], dotted, value, f"'{component}' of '{path.name}'")
    return str(yaml.safe_dump(definition, sort_keys=False))


def _replace(component: dict[str, Any], dotted: str, value: Any, where: str) -> None:
    *parents, last = dotted.split(".")
    target = component["init_parameters"]
    try:
        for parent in parents:
            target = target[parent]["init_parameters"]
    except (KeyError, TypeError) as error:
        msg = f"There is no nested component '{'.'.join(parents)}' in {where}."
        raise KeyError(msg) from error
    target[last] = str(value) if isinstance(value, Path) else value
