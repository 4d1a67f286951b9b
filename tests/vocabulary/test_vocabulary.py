# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import json
from base64 import b64encode
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from keytok_haystack import KeyTokenModel, Preparation, TokenDecoder, TokenizerVocabulary, Vocabulary
from keytok_haystack.cli.display import with_whole_words
from keytok_haystack.sparse_vectors.rank_features import unescape_feature
from keytok_haystack.vocabulary import TokenizerError

MULTILINGUAL = [
    "The shock wave and the Boundary layer: lift, drag and heat transfer at Mach 3.5!",
    "Élan vital, café crème, naïveté, Ångström, coördinate, façade, ÜBER über",
    "東京は日本の首都です。 中文分词没有空格。 한국어 문장입니다",
    "rocket 🚀 and family 👩‍👩‍👧 and thumbs 👍🏽, ☂ ™ ½",
] * 3


@pytest.fixture(scope="module")
def wordpiece(embedder: str) -> Vocabulary:
    return TokenizerVocabulary.from_tokenizer(embedder)


@pytest.fixture(scope="module")
def wordpiece_tokenizer(embedder: str) -> Tokenizer:
    """The same tokenizer, without the truncation and padding that its file asks for."""
    tokenizer = Tokenizer.from_file(str(Path(embedder) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it, trained on a few sentences."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(MULTILINGUAL, trainer)
    return tokenizer


def sentencepiece_unigram() -> Tokenizer:
    """A Unigram model with byte fallback, as XLM-R, T5 and Gemma have it."""
    pieces = [
        "▁lift",
        "▁Lift",
        "lift",
        "▁",
        "ing",
        "▁wing",
        "▁3",
        ".",
        "▁,",
        "▁東京",
        "東京",
        "▁🚀",
        "l",
        "i",
        "f",
        "t",
    ]
    vocab = [("<unk>", 0.0), ("<s>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    vocab += [(piece, -1.0 - i) for i, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens(["<unk>", "<s>"])
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """A BPE model with byte fallback and no pre-tokenizer, as Llama 2 and Mistral have it."""
    pieces = ["▁", "l", "i", "f", "t", "L", "▁l", "if", "▁lif", "▁lift", "▁L", "▁Lif", "▁Lift", "lif", "lift"]
    names = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [("▁", "l"), ("i", "f"), ("▁l", "if"), ("▁lif", "t"), ("▁", "L"), ("▁L", "if"), ("▁Lif", "t")]
    merges += [("l", "if"), ("lif", "t")]
    tokenizer = Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, merges, unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>"])
    return tokenizer


def word_end_bpe() -> Tokenizer:
    """BPE whose tokens at the end of a word end in `</w>`, as GPT-1 and CLIP have it."""
    names = ["<unk>", "l", "i", "f", "t", "t</w>", "if", "lif", "lift", "lift</w>", "L", "Lif", "Lift</w>", ",</w>"]
    merges = [("i", "f"), ("l", "if"), ("lif", "t"), ("lif", "t</w>"), ("L", "if"), ("Lif", "t</w>")]
    tokenizer = Tokenizer(
        models.BPE({name: i for i, name in enumerate(names)}, merges, unk_token="<unk>", end_of_word_suffix="</w>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    tokenizer.add_special_tokens(["<unk>"])
    return tokenizer


def word_level(*words: str, special: tuple[str, ...] = ("[UNK]",)) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, **{w: i for i, w in enumerate(words, 1)}}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def feature_of(tokenizer: Tokenizer, token: str) -> str | None:
    vocabulary = TokenizerVocabulary.from_tokenizer(tokenizer)
    feature = vocabulary.feature_of_id[tokenizer.token_to_id(token)]
    return vocabulary.features[feature] if feature >= 0 else None


def brute_force_counts(vocabulary: Vocabulary, tokenizer: Tokenizer, text: str) -> dict[str, int]:
    features = (vocabulary.feature_of_id[i] for i in tokenizer.encode(text, add_special_tokens=False).ids)
    return dict(Counter(vocabulary.features[feature] for feature in features if feature >= 0))


def counts(vocabulary: Vocabulary, text: str) -> dict[str, int]:
    row = vocabulary.literal_counts([text]).known
    return {vocabulary.features[i]: int(n) for i, n in zip(row.indices, row.data, strict=True)}


@pytest.mark.parametrize(
    ("token", "feature"),
    [
        ("wing", "wing"),
        ("##ing", "##ing"),
        ("ing", "ing"),
        ("3", "3"),
        ("##3", "##3"),
        ("東", "東"),
        ("°", "°"),
        ("½", "½"),
        (",", None),
        ("##,", None),
        ("+", None),
        ("[CLS]", None),
        ("[PAD]", None),
        ("[UNK]", None),
        ("[MASK]", None),
        ("[unused42]", None),
    ],
)
def test_features_of_wordpiece(wordpiece_tokenizer: Tokenizer, token: str, feature: str | None):
    assert feature_of(wordpiece_tokenizer, token) == feature


@pytest.mark.parametrize(
    ("token", "feature"),
    [
        ("▁lift", "lift"),
        ("▁Lift", "lift"),
        ("lift", "lift"),
        ("ing", "ing"),
        ("▁東京", "東京"),
        ("東京", "東京"),
        ("▁🚀", "🚀"),
        ("▁3", "3"),
        ("▁", None),
        (".", None),
        ("▁,", None),
        ("<0x41>", None),
        ("<0xC3>", None),
        ("<unk>", None),
        ("<s>", None),
    ],
)
def test_features_of_a_unigram_model_with_byte_fallback(token: str, feature: str | None):
    assert feature_of(sentencepiece_unigram(), token) == feature


@pytest.mark.parametrize(
    ("token", "feature"), [("▁Lift", "lift"), ("lift", "lift"), ("▁", None), ("<0x4C>", None), ("▁L", "l"), ("l", "l")]
)
def test_features_of_a_sentencepiece_bpe(token: str, feature: str | None):
    assert feature_of(sentencepiece_bpe(), token) == feature


@pytest.mark.parametrize(
    ("token", "feature"),
    [("lift</w>", "lift"), ("Lift</w>", "lift"), ("lift", "lift"), ("t</w>", "t"), (",</w>", None), ("<unk>", None)],
)
def test_features_of_a_bpe_with_a_word_end_suffix(token: str, feature: str | None):
    assert feature_of(word_end_bpe(), token) == feature


def test_features_of_byte_level_bpe_are_what_its_own_decoder_spells(byte_level: Tokenizer):
    vocabulary = TokenizerVocabulary.from_tokenizer(byte_level)
    readable, fragments = 0, 0
    for token, token_id in byte_level.get_vocab().items():
        spelled = byte_level.decoder.decode([token]).strip()  # broken characters come out as U+FFFD
        feature = vocabulary.feature_of_id[token_id]
        if "\ufffd" in spelled:
            fragments += 1
            assert feature == -1, token
        elif any(character.isalnum() for character in spelled) and token != "<|endoftext|>":
            readable += 1
            assert vocabulary.features[feature] == spelled.casefold(), token
    assert readable > 100
    assert fragments > 64


@pytest.mark.parametrize("fragment", ["Ġ", "Ċ", "!", "ł", "ðŁ", "Ã", "<|endoftext|>"])
def test_spaces_punctuation_and_fragments_of_characters_are_no_features(byte_level: Tokenizer, fragment: str):
    token_id = byte_level.token_to_id(fragment)
    assert token_id is not None
    assert TokenizerVocabulary.from_tokenizer(byte_level).feature_of_id[token_id] == -1


def test_byte_level_spellings_are_read_by_hand():
    spellings = {
        "Ġlift": "lift",
        "Lift": "lift",
        "cafÃ©": "café",
        "ĠÃī": "é",
        "æĿ±": "東",
        "ðŁļĢ": "🚀",
        "Ã": None,
        "ðŁļ": None,
    }
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(spellings)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.ByteLevel()
    assert {token: feature_of(tokenizer, token) for token in spellings} == spellings


def test_byte_level_inside_a_sequence_of_steps_is_recognised():
    tokenizer = Tokenizer(models.BPE({"Ġlift": 0, "cafÃ©": 1}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    assert TokenizerVocabulary.from_tokenizer(tokenizer).features == ("lift", "café")


def test_added_tokens_of_a_byte_level_tokenizer_are_spelled_plainly(byte_level: Tokenizer):
    tokenizer = Tokenizer.from_str(byte_level.to_str())
    tokenizer.add_tokens(["Überschall", "東京タワー"])
    assert feature_of(tokenizer, "Überschall") == "überschall"
    assert feature_of(tokenizer, "東京タワー") == "東京タワー"
    assert counts(TokenizerVocabulary.from_tokenizer(tokenizer), "東京タワー") == {"東京タワー": 1}


@pytest.mark.parametrize(
    "placeholder",
    ["[unused0]", "<unused12>", "<extra_id_3>", "<pad>", "[PAD]", "<|reserved_special_token_7|>", "<unk>", "<0x0A>"],
)
def test_placeholders_have_no_feature_even_if_they_are_not_marked_as_special(placeholder: str):
    tokenizer = word_level("lift", placeholder)
    assert TokenizerVocabulary.from_tokenizer(tokenizer).features == ("lift",)


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel({"oov": 0, "lift": 1}, unk_token="oov"),
        models.WordPiece({"oov": 0, "lift": 1}, unk_token="oov"),
        models.BPE({"oov": 0, "lift": 1}, [], unk_token="oov", ignore_merges=True),
        models.Unigram([("oov", 0.0), ("lift", -1.0)], unk_id=0),
    ],
    ids=["WordLevel", "WordPiece", "BPE", "Unigram"],
)
def test_the_token_for_unknown_words_has_no_feature_even_if_it_is_not_marked_as_special(model: models.Model):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert 0 in tokenizer.encode("lift drag").ids
    vocabulary = TokenizerVocabulary.from_tokenizer(tokenizer)
    assert counts(vocabulary, "lift drag") == {"lift": 1}
    assert vocabulary.features == ("lift",)


@pytest.mark.parametrize("word", ["unused", "reserved", "pad", "unk", "<b>bold", "0x0A", "[1]"])
def test_words_that_resemble_placeholders_are_features(word: str):
    assert feature_of(word_level(word), word) == word.casefold()


def test_ids_that_differ_in_case_share_a_feature_that_counts_them_together():
    vocabulary = TokenizerVocabulary.from_tokenizer(word_level("Lift", "LIFT", "lift", "wing"))
    assert vocabulary.features == ("lift", "wing")
    assert counts(vocabulary, "Lift lift LIFT wing lift") == {"lift": 4, "wing": 1}


def test_wordpiece_continuations_stay_apart_from_words(wordpiece: Vocabulary):
    assert counts(wordpiece, "aeroelastic ic") == {"aero": 1, "##ela": 1, "##stic": 1, "ic": 1}


@pytest.mark.parametrize(
    "tokenizer", [sentencepiece_unigram(), sentencepiece_bpe(), word_end_bpe()], ids=["unigram", "bpe", "word end"]
)
def test_words_count_the_same_with_and_without_capital_letters(tokenizer: Tokenizer):
    vocabulary = TokenizerVocabulary.from_tokenizer(tokenizer)
    assert counts(vocabulary, "lift Lift lift") == {"lift": 3}


@pytest.mark.parametrize("tokenizer", [sentencepiece_unigram(), sentencepiece_bpe()], ids=["unigram", "bpe"])
def test_characters_that_fall_back_to_bytes_are_not_counted(tokenizer: Tokenizer):
    assert tokenizer.encode("lift Ω").tokens[-2:] == ["<0xCE>", "<0xA9>"]
    assert counts(TokenizerVocabulary.from_tokenizer(tokenizer), "lift Ω") == {"lift": 1}


def test_keys_are_unique_have_no_dots_and_can_be_unescaped(wordpiece: Vocabulary, small_vocabulary: Vocabulary):
    for vocabulary in (wordpiece, small_vocabulary):
        assert len(vocabulary) == len(vocabulary.keys) == len(set(vocabulary.keys)) == len(set(vocabulary.features))
        assert not any("." in key for key in vocabulary.keys)
        assert tuple(map(unescape_feature, vocabulary.keys)) == vocabulary.features
    assert {"3%2E5", "100%25"} <= set(small_vocabulary.keys)


def test_each_feature_belongs_to_a_token_and_each_word_to_a_feature(wordpiece: Vocabulary):
    np.testing.assert_array_equal(
        np.unique(wordpiece.feature_of_id[wordpiece.feature_of_id >= 0]), np.arange(len(wordpiece))
    )
    assert len(wordpiece.feature_of_id) == 30522
    assert 27_000 < len(wordpiece) < 30_522 - 994  # the 994 unused tokens are none


@given(st.text(max_size=60))
def test_literal_counts_of_any_text_are_those_of_its_tokens(
    wordpiece: Vocabulary, wordpiece_tokenizer: Tokenizer, text: str
):
    assert counts(wordpiece, text) == brute_force_counts(wordpiece, wordpiece_tokenizer, text)


@pytest.mark.parametrize("text", [*MULTILINGUAL[:4], "<|endoftext|>lift", "Ġ lift \n\t lift"])
def test_literal_counts_of_byte_level_bpe_are_those_of_its_tokens(byte_level: Tokenizer, text: str):
    vocabulary = TokenizerVocabulary.from_tokenizer(byte_level)
    expected = brute_force_counts(vocabulary, byte_level, text)
    assert expected
    assert counts(vocabulary, text) == expected


def test_rows_of_literal_counts_are_in_the_order_of_the_texts(small_vocabulary: Vocabulary, small_texts: list[str]):
    expected = [[text.split().count(feature) for feature in small_vocabulary.features] for text in small_texts]
    literal = small_vocabulary.literal_counts(text for text in small_texts).rows
    assert literal.dtype == np.float32
    np.testing.assert_array_equal(literal.toarray(), expected)


def test_special_tokens_that_a_template_adds_or_a_text_spells_out_are_not_counted(wordpiece: Vocabulary):
    assert counts(wordpiece, "wing") == {"wing": 1}
    assert counts(wordpiece, "[CLS] wing [SEP] [MASK]") == {"wing": 1}
    tokenizer = word_level("lift", special=("[UNK]", "[CLS]"))
    tokenizer.post_processor = processors.TemplateProcessing(single="lift $A lift", special_tokens=[("lift", 1)])
    assert counts(TokenizerVocabulary.from_tokenizer(tokenizer), "lift") == {"lift": 1}


def test_truncation_and_padding_of_the_tokenizer_are_ignored(tmp_path: Path):
    tokenizer = word_level("lift", "wing")
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=16, pad_id=2, pad_token="wing")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for source in (tokenizer, tmp_path):
        assert counts(TokenizerVocabulary.from_tokenizer(source), "lift " * 10) == {"lift": 10}
    assert tokenizer.truncation is not None, "the caller's tokenizer has been changed"
    assert tokenizer.padding is not None, "the caller's tokenizer has been changed"


def test_texts_longer_than_the_embedder_reads_are_counted_whole(embedder: str, wordpiece: Vocabulary):
    truncation = json.loads((Path(embedder) / "tokenizer.json").read_text(encoding="utf-8"))["truncation"]
    assert truncation["max_length"] < 1000
    assert counts(wordpiece, "wing " * 1000) == {"wing": 1000}


@pytest.mark.parametrize("text", ["", " ", "\n\t", "., !", "\u200b"])
def test_texts_without_words_have_no_features(wordpiece: Vocabulary, text: str):
    assert wordpiece.literal_counts(["wing", text, "lift"]).rows.sum(axis=1).tolist() == [1, 0, 1]


def test_no_texts_give_no_rows(small_vocabulary: Vocabulary):
    assert small_vocabulary.literal_counts([]).rows.shape == (0, 12)


@pytest.mark.parametrize("text", [None, 3, b"lift", ["lift"], ("lift", "wing"), float("nan")])
def test_a_text_that_is_no_string_is_refused_with_its_position(small_vocabulary: Vocabulary, text: object):
    with pytest.raises(TypeError, match=f"text 1 is of type {type(text).__name__}"):
        small_vocabulary.literal_counts(["lift", text])


def test_a_text_with_half_a_surrogate_pair_is_refused_with_its_position(small_vocabulary: Vocabulary):
    text = json.loads(r'"lift \ud83d"')  # what JSON gives for an emoji that was cut in two
    with pytest.raises((TypeError, ValueError), match=r"(?i)text 1 "):
        small_vocabulary.literal_counts(["lift", text])


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("the shock wave, ", {"the": 62_500, "shock": 62_500, "wave": 62_500}),
        ("東", {"東": 10**6}),
        ("x", {}),  # WordPiece gives up on words of more than 100 characters
    ],
    ids=["words", "characters", "one word"],
)
def test_a_document_of_a_million_characters_is_counted(wordpiece: Vocabulary, unit: str, expected: dict[str, int]):
    assert counts(wordpiece, unit * (10**6 // len(unit))) == expected


def test_a_word_of_a_million_characters_is_counted_by_byte_level_bpe(byte_level: Tokenizer):
    vocabulary = TokenizerVocabulary.from_tokenizer(byte_level)
    expected = brute_force_counts(vocabulary, byte_level, "shock" * 200_000)
    assert sum(expected.values()) >= 200_000
    assert counts(vocabulary, "shock" * 200_000) == expected


@given(st.permutations(range(12)))
def test_a_reordered_vocabulary_counts_the_same_features_in_its_own_order(
    small_vocabulary: Vocabulary, small_texts: list[str], order: list[int]
):
    reordered = small_vocabulary.reordered(np.array(order))
    assert reordered.features == tuple(small_vocabulary.features[i] for i in order)
    texts = [*small_texts, "", "unheard-of Wing"]
    found = reordered.literal_counts(texts).rows
    np.testing.assert_array_equal(found.toarray(), small_vocabulary.literal_counts(texts).rows.toarray()[:, order])
    assert found.has_canonical_format


def test_ids_that_share_a_feature_still_do_when_it_is_reordered(wordpiece: Vocabulary):
    order = np.random.default_rng(0).permutation(len(wordpiece))
    reordered = wordpiece.reordered(order)
    for token_id, feature in enumerate(wordpiece.feature_of_id.tolist()):
        moved = reordered.feature_of_id[token_id]
        assert (moved == -1) if feature == -1 else (reordered.features[moved] == wordpiece.features[feature])
    for text in MULTILINGUAL[:4]:
        assert counts(reordered, text) == counts(wordpiece, text)
    back = reordered.reordered(np.argsort(order))
    assert back.features == wordpiece.features
    np.testing.assert_array_equal(back.feature_of_id, wordpiece.feature_of_id)


@given(st.lists(st.integers(0, 11), unique=True))
def test_some_features_can_lead_all_others(small_vocabulary: Vocabulary, first: list[int]):
    order = small_vocabulary.order_with_first(np.array(first, dtype=np.int64))
    others = [i for i in range(12) if i not in first]
    assert order.tolist() == first + others
    assert set(small_vocabulary.reordered(order).features) == set(small_vocabulary.features)


def test_a_tokenizer_its_file_and_its_folder_give_the_same_vocabulary(tmp_path: Path):
    tokenizer = sentencepiece_unigram()
    file = tmp_path / "tokenizer.json"
    tokenizer.save(str(file))
    expected = TokenizerVocabulary.from_tokenizer(tokenizer)
    for source in (file, str(file), tmp_path, str(tmp_path)):
        vocabulary = TokenizerVocabulary.from_tokenizer(source)
        assert vocabulary.features == expected.features
        assert counts(vocabulary, "lift wing 3.") == counts(expected, "lift wing 3.") == {"lift": 1, "wing": 1, "3": 1}


def test_the_serialized_tokenizer_gives_the_same_vocabulary(small_vocabulary: Vocabulary, small_texts: list[str]):
    again = TokenizerVocabulary.from_tokenizer(Tokenizer.from_str(small_vocabulary.settings["tokenizer"]))
    assert again.features == small_vocabulary.features
    assert (again.literal_counts(small_texts).rows != small_vocabulary.literal_counts(small_texts).rows).nnz == 0


@pytest.mark.parametrize("name", ["missing", "missing/tokenizer.json", "."])
def test_a_missing_tokenizer_is_named(tmp_path: Path, name: str):
    with pytest.raises(FileNotFoundError, match=r"No tokenizer at '.*(missing|tokenizer\.json)'"):
        TokenizerVocabulary.from_tokenizer(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"not json", b"\xff\xfe\x00", b'{"model": {"type": "Magic"}}'])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is not a tokenizer that the `tokenizers` package can read"):
        TokenizerVocabulary.from_tokenizer(file)


def test_a_tokenizer_without_readable_tokens_is_refused():
    with pytest.raises(ValueError, match="no features"):
        TokenizerVocabulary.from_tokenizer(word_level(",", "!", "<pad>"))


def test_without_folding_each_id_is_a_feature_spelled_as_its_characters(byte_level: Tokenizer):
    vocabulary = TokenizerVocabulary.from_tokenizer(byte_level, fold=False)
    assert len(vocabulary) == byte_level.get_vocab_size()
    assert len(set(vocabulary.features)) == len(vocabulary)
    partial = 0
    for i, feature in enumerate(vocabulary.features):
        characters = byte_level.decode([i], skip_special_tokens=False)
        if "\ufffd" in characters:
            partial += 1
            assert bytes.fromhex(feature.removeprefix("<0x").removesuffix(">"))
        else:
            shown = feature.replace("␣", " ").replace("⏎", "\n").replace("␍", "\r").replace("⇥", "\t")
            assert shown == characters
    assert partial, "the test has seen bytes that are no whole character"


def test_without_folding_a_text_has_the_tokens_that_the_tokenizer_gives_it(byte_level: Tokenizer):
    vocabulary = TokenizerVocabulary.from_tokenizer(byte_level, fold=False)
    text = MULTILINGUAL[0]
    expected = Counter(byte_level.encode(text, add_special_tokens=False).ids)
    (row,) = vocabulary.literal_counts([text]).rows.toarray()
    assert {i: int(row[i]) for i in np.flatnonzero(row)} == expected


def test_without_folding_pieces_word_pieces_and_missing_ids_are_spelled():
    vocabulary = TokenizerVocabulary.from_tokenizer(sentencepiece_unigram(), fold=False)
    assert {"␣lift", "␣Lift", "lift"} <= set(vocabulary.features)
    gaps = Tokenizer(models.WordPiece({"[UNK]": 0, "lift": 2, "##ing": 3, ",": 5}, unk_token="[UNK]"))
    assert TokenizerVocabulary.from_tokenizer(gaps, fold=False).features == (
        "[UNK]",
        "<1>",
        "lift",
        "##ing",
        "<4>",
        ",",
    )


def test_pieces_of_a_text_are_shown_as_the_first_word_that_they_are_a_piece_of(embedder: str):
    vocabulary = TokenizerVocabulary.from_tokenizer(embedder)
    words = vocabulary.words_of_pieces("Hypersonic flow; hyper-active GIT, tokenization")
    assert words == {"hyper": "hypersonic", "##sonic": "hypersonic", "gi": "git", "##t": "git"} | {
        "token": "tokenization",
        "##ization": "tokenization",
    }
    assert vocabulary.words_of_pieces("") == {}


def test_a_head_s_key_tokens_are_shown_in_whole_words(embedder: str):
    model = KeyTokenModel(
        TokenizerVocabulary.from_tokenizer(embedder), TokenDecoder(np.ones((1, 2)), Preparation()), source="head"
    )
    tokens = {"##sonic": 1.0, "wind": 0.75, "hyper": 0.5, "flow": 0.25, "##t": 0.125}
    shown = with_whole_words(model, "hypersonic flow", tokens)
    assert list(shown.items()) == [("hypersonic", 1.0), ("wind", 0.75), ("flow", 0.25), ("##t", 0.125)]


def rewritten(tmp_path: Path, **changes: Any) -> Path:
    """The file of a small tokenizer with other parts."""
    spec = json.loads(Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a")).to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec | changes))
    return tmp_path / "tokenizer.json"


def split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
HARMFUL = {
    "exploding": {"pre_tokenizer": split("(a+)+[xy]")},
    "exploding within": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split("a"), split("(a|a)*x")]}},
    "exploding normalizer": {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a*)*x"}, "content": ""}},
    "growing": {"normalizer": {"type": "Sequence", "normalizers": [REPLACE] * 40}},
    "long": {"normalizer": {"type": "Prepend", "prepend": "a" * 10**6}},
    "repeating": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 1000,
            "pair": [],
            "special_tokens": {},
        }
    },
    "large ids": {"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 2**32 - 1}, "unk_token": "a"}},
    "panicking": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
}


@pytest.mark.parametrize("changes", HARMFUL.values(), ids=HARMFUL.keys())
def test_a_tokenizer_that_would_do_harm_is_refused(tmp_path: Path, changes: dict[str, Any]):
    with pytest.raises(TokenizerError) as raised:
        TokenizerVocabulary.from_tokenizer(rewritten(tmp_path, **changes))
    assert len(str(raised.value).splitlines()) == 1


def test_rules_of_real_tokenizers_are_not_refused(tmp_path: Path):
    exaone = r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s+(?!\S)|\s+"
    file = rewritten(tmp_path, pre_tokenizer=split(exaone), normalizer=REPLACE)
    assert TokenizerVocabulary.from_tokenizer(file).features == ("b",)  # a is for unknown words


def test_a_tokenizer_that_fails_at_a_text_says_so(tmp_path: Path):
    file = rewritten(tmp_path, model={"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "absent"})
    vocabulary = TokenizerVocabulary.from_tokenizer(file)
    with pytest.raises(TokenizerError, match=r"The tokenizer fails.*Missing \[UNK\]"):
        vocabulary.literal_counts(["c"])


def test_a_tokenizer_that_panics_at_a_text_says_so(tmp_path: Path):
    """A map of characters whose index is out of its bounds."""
    broken = b64encode((400).to_bytes(4, "little") + b"\xff" * 400 + b"x\0").decode()
    file = rewritten(tmp_path, normalizer={"type": "Precompiled", "precompiled_charsmap": broken})
    vocabulary = TokenizerVocabulary.from_tokenizer(file)
    with pytest.raises(TokenizerError, match=r"The tokenizer fails.*index out of bounds"):
        vocabulary.literal_counts(["ﬁ"])


def test_a_tokenizer_whose_tokens_share_ids_is_refused(tmp_path: Path):
    """It can be read, but which of two tokens is written is chance, and merges of the other are then of no token."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = list(pairwise(letters))
    ids = {token: i for i, token in enumerate([*letters, *map("".join, pairs)])}
    bpe = json.loads(Tokenizer(models.BPE(ids, pairs)).to_str())["model"]
    assert TokenizerVocabulary.from_tokenizer(rewritten(tmp_path, model=bpe)).features
    others = {letter.upper(): ids["".join(pair)] for letter, pair in zip(letters, pairs, strict=False)}
    with pytest.raises(TokenizerError, match="The tokenizer fails"):
        TokenizerVocabulary.from_tokenizer(rewritten(tmp_path, model=bpe | {"vocab": ids | others}), fold=False)
