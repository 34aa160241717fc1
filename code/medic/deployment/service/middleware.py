"""Around every request: who asks, how much comes, and afterwards what became of it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
import uuid
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from medic.deployment.service.telemetry import REJECTED, REQUESTS, SECONDS
from medic.errors import ImageError, MedicError

if TYPE_CHECKING:
    from medic.deployment.service.app import Service

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

IMAGE_STATUS = {"empty": 422, "truncated": 422, "unreadable": 422, "unsupported": 415, "too_large": 413}
"""The HTTP status for each reason why bytes are no image."""

REASONS = {400: "malformed", 401: "token", 404: "unknown", 405: "method", 413: "too_large", 415: "unsupported"}
REASONS |= {422: "unreadable", 503: "busy"}
"""One word for programs, where the error has none of its own."""

RETRY = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}

UPLOAD, JSON = 32 << 20, 8 << 20
"""Bytes of one request's body, and of one that is JSON: numbers as text take many times their size in memory."""

WAITING = 32
"""Requests that one worker takes on at a time."""

SKIP_BYTES, SKIP_SECONDS = 4 << 20, 5.0
"""Up to how large a body, and how long, is still read of a request that is refused already."""

LOG = logging.getLogger("medic")


def refusal(error: Exception) -> tuple[int, dict]:
    """Return the HTTP status for an error, and what is said of it: a sentence, and a word for programs.

    It is counted or, where nobody foresaw it, logged without the request's content.
    """
    match error:
        case ImageError():
            status, reason, sentence = IMAGE_STATUS[error.reason], error.reason, str(error)
        case MedicError():
            status, reason, sentence = 400, "malformed", str(error)
        case HTTPException():
            status, sentence = error.status_code, error.detail
            reason = REASONS.get(status, "refused")
        case _:
            LOG.error("a request failed", exc_info=error)
            status, reason, sentence = 500, "failed", "the service failed; its log says more"
    if status in (400, 413, 415, 422):
        REJECTED.labels(reason).inc()
    return status, {"error": sentence, "reason": reason}


def register_errors(app: Any) -> None:
    """Let an application answer each of its errors with a sentence and a word, as JSON."""

    async def answer(request: Any, error: Exception) -> JSONResponse:
        if isinstance(error, HTTPException) and error.detail == HTTPStatus(error.status_code).phrase:
            here = f"{request.method} {request.url.path[:200]} is not answered here; see GET / for what is"
            error = HTTPException(error.status_code, here)
        status, content = refusal(error)
        request.scope["medic"]["reason"] = content["reason"]
        return JSONResponse(content, status, RETRY.get(status))

    for kind in (HTTPException, MedicError, Exception):
        app.add_exception_handler(kind, answer)


def has_token(authorization: str, token: str | None) -> bool:
    """Whether an ``Authorization`` header carries the token; takes the same time wherever they differ."""
    scheme, _, given = authorization.partition(" ")
    return token is None or (scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode()))


class Middleware:
    """Around an ASGI application: token, counted bodies, headers, metrics, one line of log a request."""

    def __init__(self, app: Any, service: Service):
        self._app = app
        self._service = service

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start, facts = time.perf_counter(), {"id": uuid.uuid4().hex[:12], "status": 0, "bytes": 0}
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        complete = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
        as_json = scope["path"].endswith("/infer") and "inference-header-content-length" not in headers
        most = JSON if as_json else UPLOAD

        def check_length(length: int) -> None:
            if length > most:
                binary = " or, with tensors, in the protocol's binary form" if as_json else ""
                raise HTTPException(413, f"the upload has over {most:,} bytes; send a smaller file{binary}")

        async def count() -> dict:
            nonlocal complete
            message = await receive()
            facts["bytes"] += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            check_length(facts["bytes"])
            return message

        async def answer(message: dict) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
                more = {**HEADERS, "x-request-id": facts["id"]}
                # An answer before the whole body came leaves bytes in the connection that are no request.
                if self._service.draining or not complete:
                    more["connection"] = "close"
                message["headers"] = [*message["headers"], *((n.encode(), v.encode()) for n, v in more.items())]
            await send(message)

        self._service.under_way += 1
        try:
            _check(scope, headers, self._service)
            # The length that a client declares is believed only where it is already too much.
            check_length(int(headers.get("content-length", 0)))
            # Uvicorn sends no body to HEAD.
            method = "GET" if scope["method"] == "HEAD" else scope["method"]
            await self._app({**scope, "method": method, "medic": facts}, count, answer)
        except ClientDisconnect:  # nobody is there to be answered
            facts["reason"] = "gone"
        except Exception as error:
            if not facts["status"]:  # else it has been answered, and noted
                status, content = refusal(error)
                facts["reason"] = content["reason"]
                await _skip(receive, complete)
                await JSONResponse(content, status, RETRY.get(status))(scope, receive, answer)
        finally:
            self._service.under_way -= 1
            _note(scope["path"], facts, time.perf_counter() - start)


def _check(scope: dict, headers: dict[str, str], service: Service) -> None:
    if scope["path"] not in OPEN and not has_token(headers.get("authorization", ""), service.config.token):
        raise HTTPException(401, "this service asks for a token; send it as 'Authorization: Bearer TOKEN'")
    if scope["method"] == "POST" and service.under_way > WAITING:
        raise HTTPException(503, "the service is busy; try again in a second")
    if packed := headers.get("content-encoding", "").replace("identity", ""):
        raise HTTPException(415, f"content encoding {packed[:40]!r} is not read here; send the body as it is")


async def _skip(receive: Callable, complete: bool) -> None:
    """Read a short body to its end, or many clients would not read the answer that refuses it."""
    skipped = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SKIP_SECONDS):
            while not complete and skipped <= SKIP_BYTES:
                message = await receive()
                skipped += len(message.get("body", b""))
                complete = not message.get("more_body", False)


def _note(path: str, facts: dict, seconds: float) -> None:
    """Count the request and write its line."""
    if path in ("/", "/predict", "/explain", "/card", "/metrics"):
        route = path  # a few names, however many paths are asked for
    else:
        route = "/v2 infer" if path.endswith("/infer") else "other"
    REQUESTS.labels(route, facts["status"]).inc()
    SECONDS.labels(route).observe(seconds)
    if path not in QUIET or facts["status"] != 200:
        LOG.info("request", extra={"facts": {**facts, "route": route, "milliseconds": round(1e3 * seconds, 1)}})
