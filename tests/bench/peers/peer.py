# SPDX-License-Identifier: Apache-2.0
"""One peer as a process that tests/bench/peers/run asks for measurements: it says `ready` with its version, and for each line with a number of
seconds answers one JSON array, the nanoseconds of thread CPU time of each run of its model in that time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable


def serve(name: str, run: Callable[[], object]) -> None:
    for _ in range(3):
        run()
    print(json.dumps({"ready": name}), flush=True)
    for line in sys.stdin:
        end, times = time.monotonic() + float(line), []
        while not times or time.monotonic() < end:
            start = time.thread_time_ns()
            run()
            times.append(time.thread_time_ns() - start)
        print(json.dumps(times), flush=True)
