# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json

import pytest
from tokenizers import Tokenizer, models

from keytok_haystack.vocabulary import TokenizerVocabulary
from keytok_haystack.vocabulary.tokenizers import TokenizerError, load_tokenizer


@pytest.mark.parametrize("kind", ["WordLevel", "WordPiece"])
def test_ids_far_beyond_the_number_of_tokens_are_refused(kind, tmp_path):
    """`tokenizers` writes a table of all ids up to the largest, and a process that it does not fit into is ended."""
    spec = json.loads(Tokenizer(models.WordLevel({"[UNK]": 0, "shock": 1}, unk_token="[UNK]")).to_str())
    spec["model"] = {
        "type": kind,
        "vocab": {"[UNK]": 0, "shock": 2**31},
        "unk_token": "[UNK]",
        **({"continuing_subword_prefix": "##", "max_input_chars_per_word": 100} if kind == "WordPiece" else {}),
    }
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(spec), encoding="utf-8")
    for read in (load_tokenizer, TokenizerVocabulary.from_tokenizer):
        with pytest.raises(TokenizerError, match="go up to 2,147,483,648, but it has only 2 tokens"):
            read(file)
