# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
"""
Whatever a file holds, it is used, or refused in one sentence, in seconds and little memory.

More files, from another seed, or once more what has failed:

    KEYTOK_FUZZ_FILES=100000 KEYTOK_FUZZ_SEED=7 python -m pytest tests/fuzz -s
    KEYTOK_FUZZ_SEED=7 KEYTOK_FUZZ_CASE=4711 python -m pytest tests/fuzz -s
"""

import multiprocessing
import os
import time
from collections import Counter
from pathlib import Path

from fuzz.originals import KINDS, save_originals
from fuzz.worker import Watched

FILES = int(os.environ.get("KEYTOK_FUZZ_FILES", "360"))
SEED = int(os.environ.get("KEYTOK_FUZZ_SEED", "0"))
CASE = os.environ.get("KEYTOK_FUZZ_CASE")

LONGEST = 5.0  # seconds
_ENOUGH = 20  # failures to report


def test_damaged_and_hostile_files_are_used_or_refused_in_one_sentence(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("RUST_BACKTRACE", "0")
    save_originals(tmp_path / "originals")
    counts: Counter[tuple[str, str]] = Counter()
    failures: list[str] = []
    slowest = (0.0, 0)
    worker = Watched(multiprocessing.get_context("spawn"), tmp_path / "originals", tmp_path, SEED)
    started = time.monotonic()
    try:
        for number in range(FILES) if CASE is None else [int(CASE)]:
            kind, damage, outcome, failure, taken = worker.run(number, LONGEST)
            slowest = max(slowest, (taken, number))
            counts[kind, outcome] += 1
            if failure:
                failures.append(f"KEYTOK_FUZZ_SEED={SEED} KEYTOK_FUZZ_CASE={number}: {kind}: {damage}\n{failure}")
                print(failures[-1], flush=True)
            if len(failures) == _ENOUGH:
                break
            if counts.total() % 10_000 == 0:
                print(f"{counts.total():,} files", flush=True)
    finally:
        worker.close()
    seconds = time.monotonic() - started
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind}: {outcome}: {count:,}")
    print(f"{counts.total():,} files in {seconds:.0f} s, the slowest ({slowest[1]}) in {slowest[0]:.2f} s")
    assert not failures, f"{len(failures)} failures, the first: {failures[0]}"
    if CASE is None:
        refused = {kind for kind, outcome in counts if outcome != "used"}
        assert refused == KINDS.keys() - {"cache"}  # which embeds anew; all have been used before they were damaged
