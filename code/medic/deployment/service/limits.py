"""How much the service takes on, and what counts it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from medic.errors import MedicError


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Refused(MedicError):
    """More than the service takes on; asked again a little later, it may be answered.

    Attributes:
        status: the HTTP status: 429 where the asker has too much under way, 503 where all together have.
        reason: one word for programs.
    """

    def __init__(self, message: str, status: int, reason: str):
        super().__init__(message)
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """What the service takes on.

    Attributes:
        upload: bytes of one request's body.
        json: bytes of a body that is JSON. Numbers as text take many times their size in memory, and reading them
            keeps everybody waiting; the binary form of the protocol has the larger limit.
        silence: seconds that a client may send nothing within its upload.
        sending: seconds that an upload may take in all.
        computing: seconds that a worker may take for one request.
        queueing: seconds that a request may wait for a worker; longer than a worker takes to start.
        workers: processes that compute, one request each at a time.
        waiting: requests that may wait beside those being computed; more are answered 503 at once.
        per_client: requests of one address that may be under way; more are answered 429 at once.
        memory: bytes of all bodies under way together; more are answered 503.
    """

    upload: int = 32 << 20
    json: int = 8 << 20
    silence: float = 15.0
    sending: float = 120.0
    computing: float = 30.0
    queueing: float = 60.0
    workers: int = field(default_factory=cores)
    waiting: int = 32
    per_client: int = 24
    memory: int = 256 << 20


class RequestCounter:
    """Counts what is under way, of everybody and of each client."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._clients: Counter[str] = Counter()
        self._bytes = 0

    @property
    def under_way(self) -> int:
        """Requests that are in."""
        return self._clients.total()

    @contextmanager
    def enter(self, client: str) -> Iterator[None]:
        """Let a request of this client in for as long as the block runs.

        Raises:
            Refused: too much is under way.
        """
        if self._clients[client] >= self._limits.per_client:
            raise Refused(
                f"{self._limits.per_client} requests of yours are under way; wait for their answers", 429, "too_many"
            )
        if self.under_way >= self._limits.workers + self._limits.waiting:
            raise busy()
        self._clients[client] += 1
        try:
            yield
        finally:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]

    def hold(self, count: int) -> None:
        """Count so many bytes more of a body that is held in memory.

        Raises:
            Refused: all bodies together would take too much.
        """
        if self._bytes + count > self._limits.memory:
            raise busy()
        self._bytes += count

    def release(self, count: int) -> None:
        """Count so many bytes less."""
        self._bytes -= count


def busy() -> Refused:
    """The error for whoever comes while all places are taken."""
    return Refused("the service is busy; try again in a second", 503, "busy")
