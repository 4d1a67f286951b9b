# SPDX-FileCopyrightText: 2026 keytok-haystack contributors
#
# SPDX-License-Identifier: Apache-2.0
from keytok_haystack.utils.sampling import evenly_spaced_rows


def test_evenly_spaced_rows():
    assert evenly_spaced_rows(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert evenly_spaced_rows(101, 3).tolist() == [0, 50, 100]
    assert len(evenly_spaced_rows(1000, 400)) == 400
