# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0

from pathlib import Path
from typing import Annotated

import typer

from keytok_haystack.cli.display import token_table
from keytok_haystack.cli.inputs import embedder_of
from keytok_haystack.cli.options import EmbedderOption, JsonFlag
from keytok_haystack.cli.terminal import print_json, terminal
from keytok_haystack.encoders import embed
from keytok_haystack.model import KeyTokenModel
from keytok_haystack.sparse_vectors.rank_features import unescape_feature


def tokens_command(
    model: Annotated[Path, typer.Argument(help="Folder of a key-token model.")],
    texts: Annotated[list[str], typer.Argument(help="Texts to read.")],
    embedder: EmbedderOption = None,
    top: Annotated[int, typer.Option(help="Maximum number of tokens to show.", min=1)] = 16,
    as_json: JsonFlag = False,
) -> None:
    """Show the key tokens of texts: what their embeddings say, in words."""
    loaded = KeyTokenModel.load(model)
    embedded = embed(texts, embedder_of(loaded, embedder), progress_bar=False)
    if as_json:
        weights = loaded.encode_documents(embedded.embeddings, top_k=top)
        rows = [
            {"text": text, "key_tokens": {unescape_feature(key): weight for key, weight in tokens.items()}}
            for text, tokens in zip(texts, loaded.document_tokens(weights), strict=True)
        ]
        print_json(rows)
        return
    terminal().print(token_table(loaded, texts, embedded.embeddings, top))
