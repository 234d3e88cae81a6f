# SPDX-License-Identifier: Apache-2.0
"""Which tests pytest-xdist keeps in one process (--dist loadgroup, tests/run): those of a file, as they share servers or mind the time, but for files that only compute. These come last, when
every processor that is free takes one of their tests: then they fill what the others leave, and are no neighbours of tests that mind the time."""

from __future__ import annotations

import pytest

COMPUTING = ("test_witnesses.py", "test_interpreters.py", "test_xrt_networks.py", "test_emulated.py")  # the longest first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: COMPUTING.index(item.path.name) + 1 if item.path.name in COMPUTING else 0)
    for item in items:
        if item.path.name not in COMPUTING:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
