# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from typing import Annotated

import typer

from keytok_haystack.engines import Engine

EmbedderOption = Annotated[
    str | None,
    typer.Option(
        help="A sentence-transformers model, hub id or path; or a preset, NAME or NAME:CHECKPOINT (keytok presets)."
    ),
]
MaxTokensOption = Annotated[
    int | None, typer.Option(help="How long a preset's input may be, prompt included.", min=1, show_default=False)
]
EngineOption = Annotated[Engine, typer.Option(help="The search engine.")]
UrlOption = Annotated[str, typer.Option(help="The server's address.")]
IndexOption = Annotated[str, typer.Option(help="The name of an index that exists, or of an alias.")]
EmbeddingFieldOption = Annotated[str, typer.Option(help="The index's field of dense vectors.")]
ContentFieldOption = Annotated[str, typer.Option(help="The index's field of texts.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of text for people.")]
