# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001 (letters of other alphabets are meant)
import json
import time
import unicodedata
from itertools import pairwise
from urllib.request import Request, urlopen

import pytest
import regex
import Stemmer
from hypothesis import example, given
from hypothesis import strategies as st

from keytok_haystack.vocabulary import Analysis

PLAIN = Analysis()
ENGLISH = Analysis("english")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The shock-wave, the shock wave", "the shock wave the shock wave"),
        ("X-15, x-15", "15 x-15 15 x-15"),
        ("GPT-4", "gpt 4 gpt-4"),
        ("a value of 3.5, or 1,000.", "value of 3.5 or 1,000"),
        ("3.5.1 and 1,000,000.00", "3.5.1 and 1,000,000.00"),
        ("12:30 costs $5.", "12 30 costs"),
        ("the U.S., U.S.A. and i.e.", "the u.s u.s.a and i.e"),
        ("C++, c++; (C#) F#.", "c++ c++ c# f#"),
        ("foo_bar __init__ HTTP_2_PORT", "foo bar foo_bar init http port http_2_port"),
        ("git-rebase", "git rebase"),
        ("an e-mail, an X-ray", "an mail e-mail an ray x-ray"),
        ("state-of-the-art", "state of the art"),
        ("https://www.example.com/a-page?id=7#top", "https www example com page a-page id top"),
        ("jane.doe@example.com", "jane doe example com"),
        ("don't, we\u2019ll", "don we ll"),
        ("l'avion d\u2019Air France", "avion air france"),
        ("rock 'n' roll", "rock roll"),
        ("1960s 2nd H2O 5G", "1960s 2nd h2o 5g"),
        ("2024-05-06", "2024 05 06 2024-05-06"),
    ],
)
def test_words_of_a_text_with_compounds_behind_their_parts(text: str, words: str):
    single = {"4"}  # of one letter or digit, and so left out
    assert PLAIN.words(text) == [word for word in words.split() if word not in single]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ﬁle ﬂow eﬀect", "file flow effect"),
        ("aero\u00addynamics", "aerodynamics"),
        ("Straße STRASSE straẞe", "strasse strasse strasse"),
        ("naïve", "nai\u0308ve"),
        ("ｗｉｎｇ ３．５", "wing 3.5"),
        ("ΣΊΣΥΦΟΣ", "σίσυφοσ"),
        ("CO₂ m²", "co2 m2"),
        ("ŁÓDŹ", "łódź"),
        ("ﷲ", "الله"),
        ("x\u2010ray", "x\u2011ray"),
    ],
)
def test_spellings_of_the_same_word_are_one(one: str, other: str):
    assert PLAIN.words(one) == PLAIN.words(other) != []


@pytest.mark.parametrize("hyphen", ["\u2010", "\u2011", "\ufe63", "\uff0d"], ids=unicodedata.name)
@pytest.mark.parametrize("word", ["x{}15", "e{}mail", "foo_bar{}2"])
def test_a_compound_is_the_same_with_any_hyphen(hyphen: str, word: str):
    assert PLAIN.words(word.format(hyphen)) == PLAIN.words(word.format("-"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी में लिखिए", ["हिन्दी", "में", "लिखिए"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("العَرَبِيّة", ["العَرَبِيّة"]),
        ("עִבְרִית", ["עִבְרִית"]),
        ("Ελληνική γλώσσα", ["ελληνική", "γλώσσα"]),
    ],
)
def test_vowel_signs_and_other_marks_belong_to_their_words(text: str, words: list[str]):
    assert PLAIN.words(text) == [unicodedata.normalize("NFKC", word) for word in words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it\u00b4s", ["it"]),
        ("\u00a8Überschall", ["überschall"]),
        ("\u02dc57", ["57"]),
        ("\u0301\u0301 wing", ["wing"]),
    ],
    ids=["acute", "diaeresis", "tilde", "marks"],
)
def test_marks_that_stand_alone_belong_to_no_word(text: str, words: list[str]):
    """Compatibility makes a space and a mark of accents that are written alone, such as in place of an apostrophe."""
    assert PLAIN.words(text) == words


def pairs(text: str) -> list[str]:
    return [text[i : i + 2] for i in range(len(text) - 1)] or [text]


CJK = [
    "東京は日本の首都",
    "衝撃波",
    "データ",
    "スーパーコンピューター",
    "飞机在风洞中试验",
    "충격파",
    "비행기는",
    "人々",
    "波",
    "の",
    "물",
]


@pytest.mark.parametrize("text", CJK)
def test_scripts_without_spaces_are_overlapping_pairs_and_a_character_alone_stays(text: str):
    assert PLAIN.words(text) == pairs(text)
    assert PLAIN.words(f"{text}。 {text}") == pairs(text) * 2


@pytest.mark.parametrize("kind", ["opensearch-knn"])  # the node of Elasticsearch has no such analyzer
def test_scripts_without_spaces_are_as_lucenes_cjk_analyzer_has_them(kind: str, make_store):
    for text in [
        *(text for text in CJK if "々" not in text),
        "ﾃﾞｰﾀ",
        "１２３",
        "東京tower",
        "24時間",
        "あいうえおabcかきくけこ",
        "한글과 english 혼용",
    ]:
        body = json.dumps({"analyzer": "cjk", "text": text}, ensure_ascii=False)
        asked = Request(f"{make_store.url(kind)}/_analyze", body.encode(), {"Content-Type": "application/json"})
        with urlopen(asked, timeout=60) as answer:
            tokens = [entry["token"] for entry in json.loads(answer.read())["tokens"]]
        assert PLAIN.words(text) == tokens, text


@pytest.mark.parametrize(
    ("text", "graphemes"),
    [
        ("คลื่นกระแทก", ["ค", "ลื่", "น", "ก", "ร", "ะ", "แ", "ท", "ก"]),
        ("ပြည်", ["ပြ", "ည်"]),
        ("か\u3099き", ["が", "き"]),
    ],
)
def test_pairs_are_of_whole_characters_with_their_marks(text: str, graphemes: list[str]):
    folded = regex.findall(r"\X", unicodedata.normalize("NFKC", text))
    assert PLAIN.words(text) == [first + second for first, second in pairwise(folded)]
    assert len(PLAIN.words(text)) <= len(graphemes) - 1
    assert all(word in unicodedata.normalize("NFKC", text) for word in PLAIN.words(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("東京タワーtokyo", [*pairs("東京タワー"), "tokyo"]),
        ("24時間", ["24", "時間"]),
        ("foo_東京", ["foo", "東京"]),
        ("東京-大阪", ["東京", "大阪"]),
        ("3.5万", ["3.5", "万"]),
    ],
)
def test_words_beside_scripts_without_spaces_are_words(text: str, words: list[str]):
    assert PLAIN.words(text) == words


@pytest.mark.parametrize("length", [63, 64, 65, 1000])
@pytest.mark.parametrize("unit", ["x", "é", "д", "7"])
def test_words_end_after_64_characters(unit: str, length: int):
    assert PLAIN.words(f"wing {unit * length} lift") == ["wing", unit * min(length, 64), "lift"]


def test_compounds_end_after_64_characters_too():
    assert PLAIN.words("a-" + "x" * 100) == ["x" * 64, "a-" + "x" * 62]


@pytest.mark.parametrize(
    "text", ["R", "C", "a 4 b", "\u00df"[:0], "", " \n\t", "., !", "_", "__", "-", "🚀 → ∑", "\u200b"]
)
def test_letters_and_digits_alone_and_signs_are_no_words(text: str):
    assert PLAIN.words(text) == []


def test_letters_that_are_words_stay():
    analysis = Analysis(letters=frozenset("cr"))
    assert analysis.words("R and C, a C-section; c.") == ["r", "and", "c", "c", "section", "c-section", "c"]


def test_stop_words_of_the_language_are_left_out_in_any_spelling():
    assert ENGLISH.words("The shock AND the wave were not in their wing") == ["shock", "wave", "wing"]
    assert Analysis("german").words("Für die Tragfläche über dem Meer") == ["tragfläche", "meer"]
    assert ENGLISH.words("The and of it is") == []
    own = Analysis("english", stop_words=frozenset({"Wing", "GROẞ"}))
    assert own.words("the wing groß gross") == ["the"]


def test_words_are_not_stop_words_because_of_their_stem():
    assert "doings" in ENGLISH.words("doings")
    assert ENGLISH.normal_form("doing") == ENGLISH.normal_form("doings")


@pytest.mark.parametrize("language", ["english", "german", "french", "russian", "hindi", "arabic"])
def test_the_normal_form_of_a_word_is_its_stem(language: str):
    analysis, stemmer = Analysis(language), Stemmer.Stemmer(language)
    words = [
        "structures",
        "waves",
        "naïveté",
        "häuser",
        "flügel",
        "chevaux",
        "волнами",
        "структуры",
        "लड़कियाँ",
        "الطائرات",
        "running",
    ]
    for word in (each for text in words for each in analysis.words(text)):
        assert analysis.normal_form(word) == stemmer.stemWord(word)


def test_a_word_with_other_characters_than_letters_is_its_own_normal_form():
    for word in ("x-rays", "foo_bars", "3.5", "1960s", "c++", "u.s", "h2os"):
        assert ENGLISH.normal_form(word) == word
    for word in ("waves", "3.5", "x-rays"):
        assert PLAIN.normal_form(word) == word


def test_a_language_without_a_stemmer_is_refused():
    with pytest.raises(ValueError, match="no stemmer for the language 'klingon'"):
        Analysis("klingon")


def test_settings_are_json_and_give_the_same_analysis():
    analysis = Analysis("german", letters=frozenset("cr"))
    settings = json.loads(json.dumps(analysis.settings))
    again = Analysis.from_settings(settings)
    assert again.settings == analysis.settings == settings
    text = "Die Überschall-Strömung um den Flügel in C und R, an der Straße"
    assert again.words(text) == analysis.words(text)
    assert "c" in analysis.words(text)


texts = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]), st.sampled_from("ab1_-.,'+# éßİ東の한ไ\u0301\u00ad\u200d\u2011")
    ),
    max_size=40,
)


@given(texts)
def test_any_text_has_words_that_are_found_again(text: str):
    words = PLAIN.words(text)
    for word in words:
        assert word
        assert not any(character.isspace() for character in word)
        assert word == word.casefold()
        assert ENGLISH.normal_form(word)


@given(texts)
def test_case_and_compatibility_make_no_difference(text: str):
    assert PLAIN.words(unicodedata.normalize("NFKC", text)) == PLAIN.words(text)
    if text.isascii():
        assert PLAIN.words(text.upper()) == PLAIN.words(text)


@given(texts, texts)
def test_the_words_of_two_paragraphs_are_those_of_each(one: str, other: str):
    assert PLAIN.words(f"{one}\n\n{other}") == PLAIN.words(one) + PLAIN.words(other)


@given(texts)
@example("\u0301\u0301")
@example("❤\ufe0f\u200d🔥")
def test_words_have_a_letter_a_digit_or_a_sign_that_can_be_seen(text: str):
    for word in PLAIN.words(text):
        assert regex.search(r"[\p{L}\p{N}]", word), ascii(word)


@pytest.mark.parametrize("unit", ["a", "1,", "a.b.", "a-", "_", "a_", "c++", "\u0301", "x'", "\u00ad", ".", "é", "a1-"])
def test_a_million_characters_are_read_in_seconds(unit: str):
    started = time.process_time()
    PLAIN.words(unit * (10**6 // len(unit)))
    assert time.process_time() - started < 10
