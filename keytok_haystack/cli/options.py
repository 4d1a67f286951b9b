# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Options of several commands."""

from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.engines import Engine

EmbedderOption = Annotated[
    str | None,
    typer.Option(
        help="Embedding model: a sentence-transformers model, hub id or path, or a preset, NAME or NAME:CHECKPOINT."
    ),
]
MaxTokensOption = Annotated[
    int | None,
    typer.Option(help="Maximum length of a preset's input in tokens, prompt included.", min=1, show_default=False),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        help="Language of the texts, such as english, or none: no stemming, no stop words. Default: detected.",
        show_default=False,
    ),
]
TextFieldOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text-field",
        help="Field or column of the file with texts. Can be repeated: values are joined by spaces. Default: title, if "
        "there is one, and text or content.",
        show_default=False,
    ),
]
IdFieldOption = Annotated[
    str | None,
    typer.Option(
        "--id-field",
        help="Field or column of the file with ids, to refuse ids with two texts, and to count repetitions. Default: "
        "ids are not read.",
        show_default=False,
    ),
]
EngineOption = Annotated[Engine, typer.Option(help="Search engine.")]
UrlOption = Annotated[str, typer.Option(help="Address of the server.")]
OptionalUrlOption = Annotated[str | None, typer.Option(help="Address of the engine. Default: http://localhost:9200.")]
CaCertOption = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of the certificate authorities to trust for https. Default: the system's.",
        show_default=False,
    ),
]
InsecureFlag = Annotated[
    bool, typer.Option("--insecure", help="Do not verify the server's https certificate: anyone may read what is sent.")
]
IndexOption = Annotated[str, typer.Option(help="Name of one existing index, alias or data stream.")]
EmbeddingFieldOption = Annotated[str, typer.Option(help="Field of the index with the dense vectors.")]
ContentFieldOption = Annotated[str, typer.Option(help="Field of the index with the texts.")]
KeepVersionsFlag = Annotated[
    bool,
    typer.Option(
        "--keep-versions",
        help="Write documents under the versions that they have, where an outside system sets them.",
    ),
]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking, as scripts need it.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]


def address_of(engine: Engine | None, url: str | None) -> str:
    """
    Return the address of an engine that need not be named.

    :raises ValueError: There is an address, but no engine.
    """
    if engine is None and url is not None:
        msg = "--url needs an --engine: opensearch or elasticsearch."
        raise ValueError(msg)
    return url or "http://localhost:9200"
