# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""What texts, ids, tokens and servers say is shown, and not obeyed."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from keytok_haystack.cli.index_display import show_report
from keytok_haystack.cli.terminal import WarningHandler, print_json, terminal, warn
from keytok_haystack.live_index import Failure, RewriteReport
from keytok_haystack.utils.visible import visible

CLEAR = "\x1b[2J\x1b]0;owned\x07 \x9b31m \r\x08\x7f"
CONTROLS = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0))} - {"\n", "\t"}


@given(st.text())
def test_no_control_character_is_left(text: str):
    shown = visible(text)
    assert len(shown) == len(text)
    assert not CONTROLS & {*shown}
    assert [a for a in text if a not in CONTROLS] == [b for a, b in zip(text, shown, strict=True) if a not in CONTROLS]


def test_nothing_that_is_printed_is_obeyed(capsys):
    table = Table("id", title=Text(CLEAR))
    table.add_row(Text(f"a{CLEAR}b"))
    terminal().print(table, Text(CLEAR), "[bold]bold[/bold]", soft_wrap=True)
    warn(CLEAR)
    print_json({CLEAR: CLEAR})
    WarningHandler().emit(logging.makeLogRecord({"msg": CLEAR}))
    report = RewriteReport(1, 0, 0, 0, 1, [Failure(CLEAR, CLEAR)], [CLEAR], 1.0)
    show_report(report, CLEAR, CLEAR, CLEAR, as_json=False)
    show_report(report, CLEAR, CLEAR, CLEAR, as_json=True)
    captured = capsys.readouterr()
    for written in (captured.out, captured.err):
        assert "␛[2J" in written
        assert not CONTROLS & {*written}
    assert "bold" in captured.out
    assert "[bold]" not in captured.out


def test_colours_are_still_obeyed(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = terminal()
    with console.capture() as captured:
        console.print(Text(f"a{CLEAR}", style="bold"))
    assert captured.get().startswith("\x1b[1ma␛[2J")


def test_json_is_what_was_given(capsys):
    data = {"text": f"größer {CLEAR} 🚀", "n": [1, 2.5, None]}
    print_json(data)
    assert json.loads(capsys.readouterr().out) == data


@pytest.mark.parametrize("command", [("tokens", f"no{CLEAR}", "shock"), ("evaluate", f"no{CLEAR}"), (f"no{CLEAR}",)])
def test_errors_are_not_obeyed(command, keytok):
    code, out, err = keytok(*command)
    assert code == 2
    assert not CONTROLS & {*(out + err)}


def test_texts_and_their_tokens_are_not_obeyed(keytok, embedder, cranfield_model_folder):
    text = f"shock{CLEAR}wave [/INST] [bold]flow"
    code, out, err = keytok("tokens", cranfield_model_folder, text, "--embedder", embedder)
    assert (code, err) == (0, "")
    assert "[/INST] [bold]flow" in out
    assert not CONTROLS & {*out}
    code, out, err = keytok("tokens", cranfield_model_folder, text, "--embedder", embedder, "--json")
    assert json.loads(out)[0]["text"] == text
    assert not CONTROLS & {*out}
