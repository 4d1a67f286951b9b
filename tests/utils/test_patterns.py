# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import math
import subprocess
import sys
import time

import pytest

from keytok_haystack.utils.artefacts import ArtefactError
from keytok_haystack.utils.patterns import backtracking, check_patterns

OF_TOKENIZERS = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",  # GPT-2
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{M}]*[\p{Ll}\p{M}]+(?i:'s|'t|'re)?| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)",  # possessive
    r"[\p{Han}]+|[\p{Lu}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{M}&&[^\p{Han}]]+",  # classes of classes
    r"\d{1,3}(?=(?:\d{3})*\b)",
    r"(?=(\d{3})+(?!\d))",
    r"(IMGIMG)((A|B|C|D){1,4})Z",
    r" ?[^(\s|[.,!?])]+",  # BLOOM
    r" {2,}",
    r"[0-9][0-9][0-9]",
    r"\r\n|\r|\n",
    r"<\|begin\|>|<\|end\|>",
]
EXPLODING = [
    (r"(a+)+x", "a"),
    (r"(?:a|a)*x", "a"),
    (r"(?:a|aa)+x", "a"),
    (r"(?:a?a?)*x", "a"),
    (r"(?:a?){25}a{25}x", "a"),
    (r"(?:\w+\s?)*x", "a"),
    (r"(?:a{1,3}){1,40}x", "a"),
    (r"((a|b)|(a|c))+x", "a"),
]


@pytest.mark.parametrize("pattern", OF_TOKENIZERS)
def test_patterns_of_real_tokenizers_take_at_most_quadratic_time(pattern: str):
    assert backtracking(pattern) <= 1


@pytest.mark.parametrize(("pattern", "unit"), EXPLODING)
def test_patterns_that_explode_are_infinite(pattern: str, unit: str):
    """Python's own engine really finds no end of them."""
    assert backtracking(pattern) == math.inf
    code = f"import re; re.match({pattern.replace('x', '[xyz]')!r}, {unit * 60 + '-y'!r})"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-S", "-c", code], check=True, timeout=0.7)


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a)\\1", "(?R)", "(?P>name)", "(?(1)a|b)", "(", ")", "[", "[]", "a**b", "*", "\\Qa", "(?x) (a", "\\", "x{"),
        *(
            "(?<a",
            "(" * 100 + ")" * 100,
            "a{9999}{9999}",
            "(a{1000}){1000}",
            "x{5,2}",
            "[[a]",
            "\\p{L",
            "(?#(",
            "\\C-(a",
        ),
    ],
)
def test_what_is_not_understood_is_infinite(pattern: str):
    assert backtracking(pattern) == math.inf


@pytest.mark.parametrize(
    ("pattern", "degree"),
    [
        ("", 0),
        (r"\w+", 0),
        (r"\w+x?", 0),
        (r"\w+x", 1),
        (r"\w+?x", 1),
        (r"\w++x", 0),
        (r"(?>\w+)x", 0),
        (r"\w*\w*", 0),
        (r"\w*\w*x", 2),
        (r"(?:\w*|\d*\d*)x", 2),
        (r"\w*(?=\d*\d*x)", 3),
        (r".*\.layers\.1\..*_proj", 2),
        (r"\w{3,5}x", 0),
        (r"\w{3,50}x", 1),
        ("x*" * 10 + "y", 10),
    ],
)
def test_the_degree_is_that_of_the_number_of_places_to_try_again(pattern: str, degree: int):
    assert backtracking(pattern) == degree


def test_finding_out_takes_no_time():
    started = time.monotonic()
    for pattern in (
        "(" * 10**5,
        "a?" * 10**5,
        "(a|b)" * 10**5,
        "[" * 10**5,
        "a{2}" * 10**5,
        "a{9}" + "{9}" * 999,
        "(a|b){999999999}",
    ):
        assert backtracking(pattern) == math.inf
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("patterns", "length"),
    [
        ([r"\w*\w*x"], 1000),
        ([r"\w+x"] * 1000, 1000),
        (["(a+)+x"], 1),
        ([r"\w*" * 5 + "x"], 100),
        (["x" * 10_000] * 10_000, 10),
    ],
    ids=["cubic", "many", "exploding", "of degree 6", "long"],
)
def test_patterns_that_could_take_long_are_refused(patterns: list[str], length: int):
    with pytest.raises(ArtefactError, match="could take any time"):
        check_patterns(patterns, length)


def test_patterns_that_take_no_time_are_not_refused():
    check_patterns([*OF_TOKENIZERS, None, {}], 1000)
    check_patterns([r".*\.layers\.1\..*_proj", r"^(?!.*visual).*(?:q_proj|k_proj)$"], 100)
