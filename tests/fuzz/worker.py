# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""A process that damages artefacts and uses them, in little memory, and tells what has become of each."""

import logging
import os
import random
import resource
import shutil
import time
import traceback
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.mutations import mutate
from fuzz.originals import KINDS, is_one_sentence

MEMORY = 1 << 30  # bytes, beyond what the process has before the first file


class Result(NamedTuple):
    """
    What has become of a case.

    :param outcome: "used", or the type of the error by which it was refused.
    :param failure: What went wrong, if it should not.
    :param seconds: Time that using it took.
    """

    kind: str
    damage: str
    outcome: str
    failure: str
    seconds: float


def serve(originals: Path, place: Path, connection: Connection) -> None:
    """Take seeds and numbers of cases, and answer with their results."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # panics of Rust are told of
    logging.disable()
    warnings.simplefilter("ignore")
    for kind, (_, use, _) in KINDS.items():  # whatever is imported or made once
        use(originals / kind)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send(None)
    while True:
        connection.send(_run(originals, place, *connection.recv()))


def _run(originals: Path, place: Path, seed: int, number: int) -> Result:
    chance = random.Random(f"{seed}-{number}")
    kind = list(KINDS)[number % len(KINDS)]
    _, use, allowed = KINDS[kind]
    folder = place / "artefact"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(originals / kind, folder)
    damage = mutate(folder, chance)
    outcome, failure = "used", ""
    started = time.process_time()
    try:
        use(folder)
    except BaseException as error:
        outcome = type(error).__name__
        if type(error) not in allowed or not is_one_sentence(error):
            failure = "".join(traceback.format_exception(error))[-3000:]
    return Result(kind, damage, outcome, failure, time.process_time() - started)


class Watched:
    """A worker that is replaced when it hangs or dies."""

    def __init__(self, context: Any, originals: Path, place: Path, seed: int) -> None:
        self._start = lambda: self._started(context, originals, place)
        self._seed = seed
        self._process, self._connection = self._start()

    def run(self, number: int, seconds: float) -> Result:
        """
        Run a case; what ends the process fails, and what takes longer.

        Its own time counts, so that others on the machine do not; only of what waits for something, that on the wall.
        """
        self._connection.send((self._seed, number))
        kind = list(KINDS)[number % len(KINDS)]
        try:
            if self._answers(seconds):
                answer: Result = self._connection.recv()
                return answer
            failure = f"It takes more than {seconds} s."
        except (EOFError, ConnectionResetError):
            self._process.join()
            failure = f"The process has died: {self._process.exitcode}."
        self._process.kill()
        self._process, self._connection = self._start()
        return Result(kind, "", "failure", failure, seconds)

    def _answers(self, seconds: float) -> bool:
        """Return whether an answer comes in that time."""
        if self._connection.poll(seconds / 10):  # nearly always
            return True
        own, wall = self._own_seconds() + 0.9 * seconds, time.monotonic() + 12 * seconds
        while self._own_seconds() < own and time.monotonic() < wall:
            if self._connection.poll(seconds / 10):
                return True
        return False

    def _own_seconds(self) -> float:
        times = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")  # in user and in system mode

    def close(self) -> None:
        self._process.kill()

    @staticmethod
    def _started(context: Any, originals: Path, place: Path) -> tuple[Any, Connection]:
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(originals, place, theirs), daemon=True)
        process.start()
        theirs.close()
        ours.recv()
        return process, ours
