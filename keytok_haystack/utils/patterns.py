# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""How long a regular expression that others have written could take, found out without running it."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from keytok_haystack.utils.artefacts import ArtefactError, one_line

_FEW = 8  # repetitions that count as so many ways to match; more count as any number
_LARGEST = 10_000  # steps of a pattern, repetitions counted, and ways to match it without its unlimited repetitions
_MOST_STEPS, _LARGEST_DEGREE = 1e8, 8  # about a second's
_STEPS_TO_PARSE = 1000  # that reading a character here takes
_DEEPEST = 50  # groups in groups
_QUANTIFIER = re.compile(r"[*+?]|\{(\d*)(,?)(\d*)\}")
_GROUP = re.compile(r"\?(:|=|!|<=|<!|>|[ims]*(?:-[ims]+)?:|P?<[A-Za-z_]\w*>)?")
_PLAIN_ESCAPE = re.compile(
    r"\\(?:[pP]\{\^?[\w =-]*\}|[^0-9cCMgkKQERXpPxu]|x[0-9A-Fa-f]{2}|x\{[0-9A-Fa-f]+\}|u[0-9A-Fa-f]{4})"
)
_LITERAL = re.compile(r"[^\\.^$|?*+()\[\]{}]")


@dataclass(frozen=True)
class _Cost:
    """
    What a part of a pattern may cost.

    :param degree: Degree of the polynomial in the length of the text by which a match of the part may be retried, if
        what follows can fail.
    :param inner: The same if nothing can fail after the part.
    :param ways: Number of other ways to match it.
    :param steps: Number of its steps, repetitions counted.
    :param is_fixed: Whether there is but one way to match it, and that is of one length.
    :param may_be_empty: Whether it matches the empty string, so that it cannot fail.
    """

    degree: float = 0
    inner: float = 0
    ways: float = 1
    steps: int = 1
    is_fixed: bool = True
    may_be_empty: bool = False


def check_patterns(patterns: Iterable[object], length: int) -> None:
    """
    Refuse regular expressions that could take more than about a second.

    :param patterns: The expressions; what is no string is none.
    :param length: Number of characters of the texts that they are matched with.
    :raises ArtefactError: They could take longer, or any time.
    """
    steps = 0.0
    for pattern in patterns:
        if isinstance(pattern, str):
            degree = backtracking(pattern)
            steps += math.inf if degree > _LARGEST_DEGREE else _STEPS_TO_PARSE * len(pattern) + length ** (1 + degree)
            if steps > _MOST_STEPS:
                msg = f"its regular expression {one_line(repr(pattern))} could take any time"
                raise ArtefactError(msg)


def backtracking(pattern: str) -> float:
    """
    Return the degree of the polynomial that bounds how often a backtracking engine retries a match from one position.

    0 is linear in the length of the text, as for `\\w+`; `\\s+x` is of degree 1, since each shorter run of white space
    is tried, too. What can take exponential time, such as `(a+)+x`, is infinite, as is what is not understood here:
    repetitions of what has several ways to match, references to groups, and more than 10,000 steps.

    :param pattern: A pattern in the syntax that Oniguruma and `re` have in common.
    """
    if len(pattern) > _LARGEST:
        return math.inf
    try:
        parser = _Parser(pattern)
        cost = parser.alternatives(0)
        if parser.position < len(pattern):
            return math.inf
    except (ValueError, TypeError, IndexError, OverflowError):
        return math.inf
    return cost.inner if cost.ways <= _LARGEST and cost.steps <= _LARGEST else math.inf


class _Parser:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.position = 0

    def alternatives(self, depth: int) -> _Cost:
        """Read alternatives up to the end of their group."""
        if depth > _DEEPEST:
            raise ValueError
        start = self.position
        branches = [self._sequence(depth)]
        while self._next("|"):
            branches.append(self._sequence(depth))
        if len(branches) == 1:
            return branches[0]
        letters = self._pattern[start : self.position].split("|")
        # one of some letters is a class in other words
        is_class = all(map(_LITERAL.fullmatch, letters)) and len(set(letters)) == len(letters)
        return _Cost(
            max(each.degree for each in branches),
            max(each.inner for each in branches),
            1 if is_class else sum(each.ways for each in branches),
            sum(each.steps for each in branches),
            is_class,
            any(each.may_be_empty for each in branches),
        )

    def _sequence(self, depth: int) -> _Cost:
        parts: list[_Cost] = []
        while self.position < len(self._pattern) and self._pattern[self.position] not in "|)":
            parts.append(self._repeated(self._atom(depth)))
        degree = inner = 0.0
        can_fail = False
        for part in reversed(parts):
            degree += part.degree
            inner += part.degree if can_fail else part.inner
            can_fail = can_fail or not part.may_be_empty
        return _Cost(
            degree,
            inner,
            math.prod(part.ways for part in parts),
            sum(part.steps for part in parts),
            all(part.is_fixed for part in parts),
            all(part.may_be_empty for part in parts),
        )

    def _atom(self, depth: int) -> _Cost:
        pattern, start = self._pattern, self.position
        if self._next("("):
            opening = _GROUP.match(pattern, self.position)
            if opening is not None:
                if opening[1] is None:
                    raise ValueError
                self.position = opening.end()
            group = self.alternatives(depth + 1)
            if not self._next(")"):
                raise ValueError
            kind = opening[1] if opening is not None else ""
            if kind in ("=", "!", "<=", "<!", ">"):  # what is inside is not retried when something fails behind it
                return _Cost(group.inner, group.inner, group.ways, group.steps, group.is_fixed)
            return group
        if self._next("["):
            self._class(depth)
            return _Cost()
        if pattern[start] == "\\":
            escape = _PLAIN_ESCAPE.match(pattern, start)
            if escape is None:
                raise ValueError
            self.position = escape.end()
            return _Cost()
        if pattern[start] in "*+?{":
            raise ValueError
        self.position += 1
        return _Cost(may_be_empty=pattern[start] == "^")

    def _class(self, depth: int) -> None:
        """Read a class of characters, which in Oniguruma can be made of others."""
        if depth > _DEEPEST:
            raise ValueError
        self._next("^")
        if self._next("]"):  # empty, or a letter: engines differ
            raise ValueError
        while not self._next("]"):
            if self._pattern[self.position] == "\\":
                escape = _PLAIN_ESCAPE.match(self._pattern, self.position)
                if escape is None:
                    raise ValueError
                self.position = escape.end()
            elif self._next("["):
                self._class(depth + 1)
            else:
                self.position += 1

    def _repeated(self, atom: _Cost) -> _Cost:
        """Read the quantifiers of a part."""
        while (quantifier := _QUANTIFIER.match(self._pattern, self.position)) is not None:
            self.position = quantifier.end()
            least, most = _bounds(quantifier)
            is_possessive = quantifier[1] is None and self._next("+")
            if not is_possessive:
                self._next("?")  # lazy
            atom = _quantified(atom, least, most, is_possessive=is_possessive)
        return atom

    def _next(self, character: str) -> bool:
        """Go beyond a character, if it is the next one."""
        is_next = self._pattern.startswith(character, self.position)
        self.position += is_next
        return is_next


def _bounds(quantifier: re.Match[str]) -> tuple[int, float]:
    if quantifier[1] is None:
        return {"*": (0, math.inf), "+": (1, math.inf), "?": (0, 1)}[quantifier[0]]
    least = int(quantifier[1] or 0)
    if not quantifier[1] and not quantifier[3]:
        raise ValueError
    return least, int(quantifier[3]) if quantifier[3] else math.inf if quantifier[2] else least


def _power(ways: float, times: int) -> float:
    return math.inf if ways > 1 and times * math.log(ways) > math.log(_LARGEST) else ways**times


def _quantified(atom: _Cost, least: int, most: float, *, is_possessive: bool) -> _Cost:
    if most < least:
        raise ValueError
    steps = atom.steps * max(1, least if math.isinf(most) else int(most))
    if steps > _LARGEST:
        raise ValueError
    may_be_empty = atom.may_be_empty or least == 0
    if most - least <= _FEW:
        times = int(most)
        return _Cost(
            atom.degree * times,
            atom.degree * max(0, times - 1) + atom.inner,
            _power(atom.ways, times) * (most - least + 1),
            steps,
            atom.is_fixed and least == most,
            may_be_empty,
        )
    if not atom.is_fixed or atom.may_be_empty:
        return _Cost(math.inf, math.inf, steps=steps)
    degree = 0 if is_possessive else 1
    return _Cost(degree, 0, 1, steps, is_fixed=False, may_be_empty=may_be_empty)
