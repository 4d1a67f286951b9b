# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.cli.display import token_table
from keytok_haystack.cli.inputs import embedder_of, ready_made
from keytok_haystack.cli.options import EmbedderOption, JsonFlag
from keytok_haystack.cli.terminal import print_json, terminal
from keytok_haystack.confidence import as_floats
from keytok_haystack.encoders import embed
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import unescape_feature


def tokens_command(
    model: Annotated[Path, typer.Argument(help="Folder of a key-token model.")],
    texts: Annotated[list[str], typer.Argument(help="Texts to read.")],
    embedder: EmbedderOption = None,
    embeddings: Annotated[
        Path | None, typer.Option(help="Ready-made embeddings of the texts, shape (n, d) in .npy format.")
    ] = None,
    top: Annotated[int, typer.Option(help="Maximum number of tokens to show.", min=1)] = 16,
    as_json: JsonFlag = False,
) -> None:
    """Show the key tokens of texts, as they are stored: their own words, and what their embeddings say."""
    loaded = KeyTokenModel.load(model)
    if embeddings is not None:
        if embedder is not None:
            msg = "--embeddings are ready-made: leave --embedder out."
            raise ValueError(msg)
        embedded = ready_made(embeddings, len(texts))
    else:
        embedded = embed(texts, embedder_of(loaded, embedder), progress_bar=False)
    if not as_json:
        terminal().print(token_table(loaded, texts, embedded.embeddings, top))
        return
    weights = loaded.encode_documents(embedded.embeddings, texts, top_k=top)
    rows = [
        {
            "text": text,
            "confidence": confidence,
            "key_tokens": {unescape_feature(key): weight for key, weight in tokens.items()},
            "literal": [unescape_feature(key) for key in loaded.literal_tokens(text) if key in tokens],
        }
        for text, confidence, tokens in zip(
            texts, as_floats(weights.confidences, len(texts)), loaded.document_tokens(weights), strict=True
        )
    ]
    print_json(rows)
