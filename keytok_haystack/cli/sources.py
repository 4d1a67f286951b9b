# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Sources of the commands that search: texts in files, or the index of an engine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keytok_haystack.cli.options import address_of
from keytok_haystack.engines import Engine
from keytok_haystack.utils.extras import needs, needs_engine

if TYPE_CHECKING:
    from keytok_haystack.explore import Workbench  # imports Haystack

SourceArgument = Annotated[
    str, typer.Argument(help="Texts, a folder in BEIR's layout or a file, or with --engine the name of an index.")
]
ExploredModelOption = Annotated[
    Path, typer.Option(help="Path of the key-token model; for an index, the one that its documents were written with.")
]
ExploredEngineOption = Annotated[
    Engine | None, typer.Option(help="Search engine with the index. Default: texts are indexed in memory.")
]


def workbench(
    source: str,
    model: Path,
    *,
    engine: Engine | None,
    url: str | None,
    embedder: str | None,
    text_field: list[str] | None,
    id_field: str | None,
    ca_cert: Path | None,
    verify: bool,
    top_k: int,
    progress_bar: bool = True,
) -> "Workbench":
    """
    Load a model and open a source.

    :raises ValueError: Options do not go together, or something cannot be read.
    """
    address = address_of(engine, url)
    if engine is not None and (text_field or id_field):
        msg = "--text-field and --id-field are for texts in files: leave them out with --engine."
        raise ValueError(msg)
    from keytok_haystack.cli.inputs import embedder_of  # noqa: PLC0415  # numpy takes half a second
    from keytok_haystack.encoders import CachedEmbedder  # noqa: PLC0415
    from keytok_haystack.evaluation import TextFields  # noqa: PLC0415
    from keytok_haystack.model import KeyTokenModel  # noqa: PLC0415

    loaded = KeyTokenModel.load(model)
    encoder = CachedEmbedder(embedder_of(loaded, embedder), progress_bar=progress_bar)
    with needs("sentence-transformers", "Searching needs an embedder of queries"):
        from keytok_haystack.explore import Workbench, engine_source, text_source  # noqa: PLC0415

    if engine is None:
        found = text_source(Path(source), loaded, encoder, TextFields(text_field or (), id_field))
    else:
        with needs_engine(engine):
            found = engine_source(engine, address, source, ca_cert=ca_cert, verify=verify)
    return Workbench(model, loaded, found, encoder, top_k)
