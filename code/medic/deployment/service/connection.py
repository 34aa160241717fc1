"""One HTTP connection: uvicorn's alone would wait for ever for a header's end, and close on newcomers at its own."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 15.0
"""Within which a client has sent the whole header of a request, or is cut off."""

ASKING_SECONDS = 2.0
"""How long a client that has connected and asked nothing yet may still ask when the service ends."""


class PatientProtocol(H11Protocol):
    """uvicorn's protocol on h11, which bounds a header's length; this bounds its duration too, and hears newcomers."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has come."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Something of its header or body has come."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has gone."""
        self._stop()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The service ends. uvicorn would close the connection of a client whose first request is on its way."""
        if self.cycle is None:
            self.loop.call_later(ASKING_SECONDS, self._close)
        else:
            super().shutdown()

    def _close(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _watch(self) -> None:
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
