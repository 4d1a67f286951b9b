# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from keytok_haystack.cli.options import CaCertOption, EngineOption, InsecureFlag
from keytok_haystack.cli.terminal import print_json, terminal
from keytok_haystack.engines import index_definition
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.utils.extras import needs_engine


def mapping_command(
    model: Annotated[Path, typer.Argument(help="Path of the key-token model that documents are written with.")],
    engine: EngineOption,
    field: Annotated[str, typer.Option(help="Field of the key tokens.")] = "key_tokens",
    dense: Annotated[bool, typer.Option(help="Whether the index has the dense vectors, too.")] = True,
    graph: Annotated[
        bool,
        typer.Option(
            help="Whether dense vectors have a graph (HNSW). A search by key tokens that adds their cosines needs none."
        ),
    ] = True,
    lean: Annotated[
        bool,
        typer.Option(
            "--lean",
            help="Keep the documents of a new index without their key tokens, which saves three quarters of what these "
            "take. Partial updates lose them, except on Elasticsearch 9.2 or later.",
        ),
    ] = False,
    create: Annotated[
        bool, typer.Option("--create", help="Create the index, or add the field to an index that exists.")
    ] = False,
    template: Annotated[
        bool,
        typer.Option("--template", help="Also add the field to the index template of an alias or data stream."),
    ] = False,
    url: Annotated[str | None, typer.Option(help="Address of the server, whose version decides some settings.")] = None,
    index: Annotated[str | None, typer.Option(help="Name of the index, alias or data stream.")] = None,
    ca_cert: CaCertOption = None,
    insecure: InsecureFlag = False,
) -> None:
    """Print the settings and mappings of an index for key tokens, or create it, on OpenSearch or Elasticsearch."""
    loaded = KeyTokenModel.load(model)
    dimension = loaded.dimension if dense else None
    if create and not (url and index):
        msg = "--create needs the --url of the server and the name of the --index."
        raise ValueError(msg)
    if (index or template) and not create:
        msg = "--index and --template go with --create."
        raise ValueError(msg)
    if not url:
        print_json(index_definition(engine, dimension, loaded, field=field, graph=graph, lean=lean))
        return
    with needs_engine(engine):
        from keytok_haystack.engines.connection import connected, document_store  # noqa: PLC0415
        from keytok_haystack.live_index import create_index  # noqa: PLC0415

        store = document_store(engine, url, index or "*", ca_cert=ca_cert, verify=not insecure)
    if not index:
        with connected(store) as connection:
            version = connection.version
        print_json(index_definition(engine, dimension, loaded, field=field, graph=graph, lean=lean, version=version))
        return
    created = create_index(store, loaded, field=field, dense=dense, graph=graph, lean=lean, template=template)
    message = {
        "created": f"Created the index '{index}' with the field '{field}' for the model {loaded.fingerprint}.",
        "extended": f"Added the field '{field}' for the model {loaded.fingerprint} to the index '{index}'.",
        "marked": f"Recorded in the index '{index}' that its field '{field}' is for the model {loaded.fingerprint}.",
        "kept": f"The index '{index}' already has the field '{field}' for the model {loaded.fingerprint}.",
    }[created.change]
    if created.template:
        message += f" The index template '{created.template}' has it, too."
    if created.warning:
        message += f" {created.warning}"
    if lean and created.change != "created":
        message += f" How '{index}' keeps its documents can only be chosen for a new index, so --lean changes nothing."
    if created.leaves_vectors_out:
        message += (
            f" But '{index}' leaves vectors out of _source (index.mapping.exclude_source_vectors), which only a new "
            "index can change: the hits of other retrievers come without key tokens and cannot be explained."
        )
    terminal().print(Text(message), soft_wrap=True)
