# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from keytok_haystack.utils.sampling import evenly_spaced_rows, sampled


def test_evenly_spaced_rows():
    assert evenly_spaced_rows(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced_rows(101, 3).tolist() == [0, 50, 100]
    assert len(evenly_spaced_rows(1000, 400)) == 400


@given(n=st.integers(0, 200), size=st.integers(1, 60))
def test_a_sample_of_a_stream_is_in_its_order(n, size):
    things, rows, length = sampled(iter(range(n)), size)
    assert length == n
    assert len(things) == min(n, size)
    assert things == sorted(set(things)) == rows.tolist()
    assert things == sampled(range(n), size)[0]


def test_every_part_of_a_stream_is_sampled():
    """Each tenth of the stream gives a tenth of the sample, give or take four standard deviations."""
    _, rows, _ = sampled(range(100_000), 10_000)
    counts = np.histogram(rows, bins=10, range=(0, 100_000))[0]
    assert np.abs(counts - 1000).max() < 4 * 30
