# SPDX-License-Identifier: Apache-2.0
"""What can go wrong between a client and its server: the server said no, or there was no answer."""

from __future__ import annotations


class Error(Exception):
    """Either of the two below. A mistake of the caller is a ValueError or TypeError instead, and a file that cannot be read an OSError."""


class ServerError(Error):
    """The server answered, with another status than 200 (docs/http-api.md, Statuses).

    status       HTTP's, such as 503
    reason       HTTP's words for it
    message      what the server says was wrong
    retry_after  seconds after which asking again may help; None where the server does not say
    request_id   of the request, where it had one
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None, request_id: str | None = None) -> None:
        super().__init__(status, reason, message, retry_after, request_id)
        self.status, self.reason, self.message, self.retry_after, self.request_id = status, reason, message, retry_after, request_id

    def __str__(self) -> str:
        return f"{self.status} {self.reason}: {self.message}"


class NetworkError(Error):
    """No answer, or none that can be read: not connected, not trusted, cut short, not in time, not xnord. The cause is in `__cause__`.

    timed_out  the server was silent for longer than the client's time-out; it may still be at work on the request
    """

    def __init__(self, message: str, timed_out: bool = False) -> None:
        super().__init__(message, timed_out)
        self.message, self.timed_out = message, timed_out

    def __str__(self) -> str:
        return self.message
