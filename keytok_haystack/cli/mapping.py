# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

import json
from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.cli.options import EngineOption
from keytok_haystack.engines import index_definition
from keytok_haystack.model import KeyTokenModel


def mapping_command(
    model: Annotated[Path, typer.Argument(help="The key-token model that documents are written with.")],
    engine: EngineOption,
    field: Annotated[str, typer.Option(help="The field of the key tokens.")] = "key_tokens",
    dense: Annotated[bool, typer.Option(help="Whether the index holds the dense vectors, too.")] = True,
    create: Annotated[
        bool, typer.Option("--create", help="Create the index, or add the field to an index that exists.")
    ] = False,
    url: Annotated[str | None, typer.Option(help="The server's address; its version decides some settings.")] = None,
    index: Annotated[str | None, typer.Option(help="The name of the index to create.")] = None,
) -> None:
    """Print what an index for key tokens needs, or create it: settings and mappings for OpenSearch or Elasticsearch."""
    loaded = KeyTokenModel.load(model)
    dimension = loaded.dimension if dense else None
    if create and not (url and index):
        msg = "--create needs the --url of the server and the name of the --index."
        raise ValueError(msg)
    if index and not create:
        msg = "--index goes with --create."
        raise ValueError(msg)
    if not url:
        typer.echo(json.dumps(index_definition(engine, dimension, loaded, field=field), indent=2))
        return
    from keytok_haystack.engines.connection import connected, document_store  # noqa: PLC0415  # needs an extra
    from keytok_haystack.live_index import create_index  # noqa: PLC0415  # needs an extra

    with connected(document_store(engine, url, index or "*")) as connection:
        definition = index_definition(engine, dimension, loaded, field=field, version=connection.version)
        if not index:
            typer.echo(json.dumps(definition, indent=2))
            return
        done = create_index(connection, definition, field, loaded.fingerprint)
        note = ""
        if connection.adapter.leaves_vectors_out(connection.client, index):
            note = (
                f" But '{index}' leaves vectors out of _source (index.mapping.exclude_source_vectors), which only a "
                "new index can change: the hits of other retrievers come without key tokens and cannot be explained."
            )
    typer.echo(
        {
            "created": f"Created the index '{index}' with the field '{field}' for the model {loaded.fingerprint}.",
            "extended": f"Added the field '{field}' for the model {loaded.fingerprint} to the index '{index}'.",
            "marked": f"Noted in the index '{index}' that its field '{field}' is for the model {loaded.fingerprint}.",
            "kept": f"The index '{index}' already has the field '{field}' for the model {loaded.fingerprint}.",
        }[done]
        + note
    )
