"""Around every request: who asks, how much comes and how slowly, and afterwards what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from medic.deployment.service.limits import Limits, Refused, RequestCounter
from medic.deployment.service.telemetry import REQUESTS, SECONDS, UNDER_WAY

OPEN = ("/", "/page.js", "/page.css", "/v2/health/live", "/v2/health/ready")
"""Paths that need no token: the page asks for it, and whoever watches over the service has none."""

QUIET = ("/v2/health/live", "/v2/health/ready", "/metrics")
"""Paths that are asked for every few seconds; the log leaves them out while they succeed."""

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
LINGER_BYTES = 4 << 20
LINGER_SECONDS = 5.0
"""Up to how large a body, and how long, is still read of a request that is refused already."""
LOG = logging.getLogger("medic")


def same_token(given: str | bytes, token: str) -> bool:
    """Whether an ``Authorization`` header carries the token; takes the same time wherever they differ."""
    given = given if isinstance(given, bytes) else given.encode()
    return hmac.compare_digest(given, b"Bearer " + token.encode())


class RequestLimits:
    """An ASGI middleware: token, limits, counted bytes, silence, headers, metrics, one line of log.

    Args:
        app: the application inside.
        limits: what the service takes on.
        counter: counts what is under way.
        token: what has to be shown; None asks nobody.
        state: ``state["draining"]`` true ends each connection with its next answer.
    """

    def __init__(self, app: Any, limits: Limits, counter: RequestCounter, token: str | None, state: dict):
        self._app = app
        self._limits = limits
        self._counter = counter
        self._token = token
        self._state = state

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive, send, self._limits, self._counter, self._state)
        UNDER_WAY.inc()
        try:
            with contextlib.ExitStack() as passed:
                try:
                    self._check_token(scope["path"], request.headers)
                    request.check_length()
                    if scope["method"] == "POST":
                        passed.enter_context(self._counter.enter(scope["client"][0] if scope["client"] else ""))
                except (HTTPException, Refused) as error:
                    await request.refuse(error)
                    return
                await self._app(scope, request.receive, request.send)
        except ClientDisconnect:  # nobody is there to be answered
            request.facts["reason"] = "gone"
        except Exception as error:  # nobody foresaw it: the log has it, without the request's content
            LOG.error("request %s failed", request.id, exc_info=error)
            await request.fail()
        finally:
            UNDER_WAY.dec()
            self._counter.release(request.held)
            request.note()

    def _check_token(self, path: str, headers: dict[bytes, bytes]) -> None:
        if self._token is None or path in OPEN or same_token(headers.get(b"authorization", b""), self._token):
            return
        raise HTTPException(
            401,
            "this service asks for a token; send it as the header 'Authorization: Bearer TOKEN'",
            {"WWW-Authenticate": "Bearer"},
        )


class _Request:
    """One request on its way: its body counted as it comes, its answer measured as it goes."""

    def __init__(
        self, scope: dict, receive: Callable, send: Callable, limits: Limits, counter: RequestCounter, state: dict
    ):
        self._scope, self._receive, self._send = scope, receive, send
        self._limits, self._counter, self._state = limits, counter, state
        self._start = time.perf_counter()
        self._route = route(scope["path"])
        self._received, self._complete, self._status = 0, False, 0
        self.headers = dict(scope["headers"])
        self.id = uuid.uuid4().hex[:12]
        self.held = 0
        scope["medic"] = self.facts = {}
        # Numbers as text are the one thing that grows in memory.
        self._as_json = self._route == "/v2 infer" and b"inference-header-content-length" not in self.headers
        self._most = min(limits.upload, limits.json) if self._as_json else limits.upload
        declared = self.headers.get(b"content-length", b"0")
        self._declared = int(declared[:20]) if declared.isdigit() else 0

    def check_length(self) -> None:
        """The length that a client declares is believed only where it is already too much."""
        if self._declared > self._most:
            raise self._too_large()

    async def refuse(self, error: HTTPException | Refused) -> None:
        """Answer at once. A short body is read to its end before, or many clients would not read the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while 0 < self._declared <= LINGER_BYTES and not self._complete and self._received <= LINGER_BYTES:
                    message = await self._receive()
                    self._received += len(message.get("body", b""))
                    self._complete = not message.get("more_body", False)
        status, content, headers = refusal(error)
        self.facts["reason"] = content["reason"]
        await JSONResponse(content, status, headers)(self._scope, self._receive, self.send)

    async def fail(self) -> None:
        """Answer 500, unless an answer has begun."""
        self.facts["reason"] = "failed"
        if not self._status:
            content = {"error": "the service failed; its log says more", "reason": "failed"}
            await JSONResponse(content, 500)(self._scope, self._receive, self.send)

    async def receive(self) -> dict:
        """The next part of the body."""
        if self._complete:
            return await self._receive()
        left = self._limits.sending - (time.perf_counter() - self._start)
        try:
            message = await asyncio.wait_for(self._receive(), min(self._limits.silence, max(left, 0)))
        except TimeoutError:
            raise HTTPException(
                408,
                f"nothing came for {self._limits.silence:g} seconds, or the upload took over "
                f"{self._limits.sending:g}; send it again",
            ) from None
        count = len(message.get("body", b""))
        self._received += count
        self._complete = not message.get("more_body", False)
        if self._received > self._most:
            raise self._too_large()
        self._counter.hold(count)
        self.held += count
        return message

    async def send(self, message: dict) -> None:
        """The next part of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            more = {**HEADERS, "x-request-id": self.id}
            # An answer before the whole body came leaves bytes in the connection that are no request.
            sends = self._declared or b"transfer-encoding" in self.headers
            if self._state.get("draining") or (sends and not self._complete):
                more["connection"] = "close"
            plain = [(name.encode(), value.encode()) for name, value in more.items()]
            message = {**message, "headers": [*message["headers"], *plain]}
        await self._send(message)

    def note(self) -> None:
        """Count the request and write its line."""
        seconds = time.perf_counter() - self._start
        REQUESTS.labels(self._route, self._status).inc()
        SECONDS.labels(self._route).observe(seconds)
        if self._scope["path"] in QUIET and self._status == 200:
            return
        facts = {
            "id": self.id,
            "route": self._route,
            "method": self._scope["method"] if self._scope["method"] in ("GET", "POST") else "other",
            "status": self._status,
            "milliseconds": round(1e3 * seconds, 1),
            "bytes": self._received,
            **self.facts,
        }
        LOG.info("request", extra={"facts": facts})

    def _too_large(self) -> HTTPException:
        binary = " or, with tensors, in the protocol's binary form" if self._as_json else ""
        return HTTPException(413, f"the upload has over {self._most:,} bytes; send a smaller file{binary}")


REASONS = {
    400: "malformed",
    401: "token",
    404: "unknown",
    405: "method",
    408: "silent",
    413: "too_large",
    415: "unsupported",
    422: "unreadable",
    500: "failed",
}
"""One word for programs, where the error has none of its own."""


def refusal(error: HTTPException | Refused) -> tuple[int, dict, dict | None]:
    """The answer for an error: its status, a sentence and a word, and the headers that belong to it."""
    if isinstance(error, Refused):
        return error.status, {"error": str(error), "reason": error.reason}, {"Retry-After": "1"}
    content = {"error": error.detail, "reason": REASONS.get(error.status_code, "refused")}
    return error.status_code, content, error.headers


def route(path: str) -> str:
    """A few names, however many paths are asked for."""
    if path in ("/", "/predict", "/explain", "/card", "/metrics"):
        return path
    return "/v2 infer" if path.startswith("/v2/") and path.endswith("/infer") else "other"
