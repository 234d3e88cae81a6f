# SPDX-License-Identifier: Apache-2.0
"""Progress: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sized
from typing import Any

from tqdm import tqdm

LOG_INTERVAL_S = 30.0


class Progress:
    """Iterate over `items` with a bar; `note(text)` is shown behind it."""

    def __init__(self, items: Any, title: str, unit: str = "images", scale: int = 1) -> None:
        self.items, self.title, self.unit, self.scale = items, title, unit, scale
        self.text = ""
        self.bar: tqdm | None = None

    def note(self, text: str) -> None:
        self.text = text
        if self.bar is not None:
            self.bar.set_postfix_str(text, refresh=False)

    def __iter__(self) -> Iterator[Any]:
        total = len(self.items) * self.scale if isinstance(self.items, Sized) else None
        if sys.stderr.isatty():
            with tqdm(desc=self.title, total=total, unit=f" {self.unit}", leave=False, mininterval=0.3) as self.bar:
                for item in self.items:
                    yield item
                    self.bar.update(self.scale)
            return
        started = told = time.monotonic()
        for count, item in enumerate(self.items, 1):
            yield item
            now = time.monotonic()
            if now - told >= LOG_INTERVAL_S:
                told = now
                print(f"{self.title}  {count * self.scale}/{total or '?'} {self.unit}, {count * self.scale / (now - started):.0f} a second  {self.text}", file=sys.stderr,
                      flush=True)
