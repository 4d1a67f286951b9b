# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""Files and folders while others read them, write them, or are killed."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keytok_haystack import KeyTokenModel
from keytok_haystack.utils import files as files_module
from keytok_haystack.utils.files import replaced_file, sole_writer

KILLED = """
import sys
from pathlib import Path
from keytok_haystack.utils.files import replaced_folder

with replaced_folder(Path(sys.argv[1])) as new:
    (new / "half").write_text("half")
    print("here", flush=True)
    sys.stdin.read()
"""


def killed_writer(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    return process


def litter(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if each.name.startswith(".")]


def test_what_killed_writers_leave_is_removed_and_what_others_write_is_not(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(files_module, "_LITTER_AGE", 0.0)
    dead, alive = killed_writer(tmp_path / "model"), killed_writer(tmp_path / "another")
    try:
        dead.send_signal(signal.SIGKILL)
        dead.communicate()
        assert len(litter(tmp_path)) == 2
        with replaced_file(tmp_path / "file") as new:
            new.write_text("whole")
        assert len(litter(tmp_path)) == 1
        assert alive.stdin is not None
        alive.stdin.close()
        alive.wait(30)
    finally:
        alive.kill()
        alive.wait()
    assert litter(tmp_path) == []
    assert (tmp_path / "another" / "half").read_text() == "half"
    assert (tmp_path / "file").read_text() == "whole"


def test_a_new_place_is_not_taken_for_litter(tmp_path: Path):
    place = tmp_path / ".keytok-new"
    place.mkdir()
    with replaced_file(tmp_path / "file") as new:
        new.write_text("whole")
    assert place.is_dir()


@pytest.mark.skipif(sys.platform != "linux", reason="Elsewhere there is a moment in between.")
def test_readers_find_a_model_at_any_moment(small_model: KeyTokenModel, tmp_path: Path):
    models = [small_model, small_model.with_weighting(k_document=5)]
    path = tmp_path / "model"
    models[0].save(path)
    expected = {model.fingerprint for model in models}
    done, found, errors = threading.Event(), [], []

    def read() -> None:
        while not done.is_set():
            try:
                found.append(KeyTokenModel.load(path).fingerprint)
            except Exception as error:
                errors.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for i in range(60):
        models[i % 2].save(path)
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert set(found) == expected
    assert litter(tmp_path) == []


def test_a_second_writer_is_told(tmp_path: Path):
    path = tmp_path / "deep" / "model"
    with sole_writer(path), pytest.raises(FileExistsError, match="Another process"), sole_writer(path):
        pass
    assert list(tmp_path.iterdir()) == []
    with sole_writer(path), sole_writer(path.with_name("another")):
        path.touch()
    assert list(tmp_path.rglob("*")) == [path.parent, path]


def test_the_command_tells_the_second_writer_before_any_work(tmp_path: Path, keytok, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("texts.jsonl").write_text('{"text": "shock"}\n')
    with sole_writer(Path("model")):
        code, out, err = keytok("fit", "texts.jsonl", "--output", "model", "--embedder", "no/such")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Another process is about to write" in err
    assert [each.name for each in tmp_path.iterdir()] == ["texts.jsonl"]
