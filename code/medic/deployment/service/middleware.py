"""Around every request: who asks, how much comes, and afterwards what became of it, as metrics and a line of log.

Neither ever holds an image or its name.
"""

import hmac
import json
import logging
import re
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from medic.deployment.bundle.predictor import http_status
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

REASONS = {400: "malformed", 401: "token", 404: "unknown", 405: "method", 413: "too_large", 415: "unsupported"}
REASONS |= {422: "unreadable", 500: "failed", 503: "busy"}
"""One word for programs, where the error has none of its own."""

RETRY = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}

UPLOAD, JSON = 32 << 20, 8 << 20
"""Bytes of one request's body, and of one that is JSON: numbers as text take many times their size in memory."""

BINARY = "inference-header-content-length"
"""The header by which the Open Inference Protocol says that binary tensors follow the JSON."""

WAITING = 32
"""Requests that one worker takes on at a time."""

LOG = logging.getLogger("medic")

REQUESTS = Counter("medic_requests", "Requests answered, by route and status", ["route", "status"])
SECONDS = Histogram(
    "medic_request_seconds",
    "Seconds from request to answer, by route",
    ["route"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
REJECTED = Counter("medic_inputs_rejected", "Inputs that were refused, by reason", ["reason"])
ANSWERS = Counter("medic_answers", "Images answered, by the class decided (one count for each of several)", ["decided"])
REFERRED = Counter("medic_answers_referred", "Images left to a person, by reason", ["why"])


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:  # the traceback, with no value of a variable
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json() -> None:
    """Send all logging of this process to the standard error output, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOG.setLevel(logging.INFO)


def refusal(error: Exception) -> tuple[int, dict]:
    """Return the HTTP status for an error, and what is said of it: a sentence, and a word for programs.

    It is counted or, where nobody foresaw it, logged without the request's content.
    """
    if isinstance(error, HTTPException):
        status, sentence = error.status_code, error.detail
    elif isinstance(error, MedicError):
        status, sentence = http_status(error), str(error)
    else:
        status, sentence = 500, "the service failed; its log says more"
        LOG.error("a request failed", exc_info=error)
    reason = error.reason if isinstance(error, ImageError) else REASONS.get(status, "refused")
    if status in (400, 413, 415, 422):
        REJECTED.labels(reason).inc()
    return status, {"error": sentence, "reason": reason}


async def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer an error with a sentence and a word, as JSON."""
    if isinstance(error, HTTPException) and error.detail == HTTPStatus(error.status_code).phrase:
        error.detail = f"{request.method} {request.url.path[:200]} is not answered here; see GET / for what is"
    status, content = refusal(error)
    request.scope["medic"]["reason"] = content["reason"]
    return JSONResponse(content, status, RETRY.get(status))


HANDLERS = dict.fromkeys((HTTPException, MedicError, Exception), refuse)
"""The exception handlers of an application behind ``watched``."""


def check_token(authorization: str, token: str | None) -> None:
    """Refuse an ``Authorization`` header without the token; takes the same time wherever they differ."""
    scheme, _, given = authorization.partition(" ")
    given = given.strip()
    if token is not None and (scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), token.encode())):
        raise HTTPException(401, "this service asks for a token; send it as 'Authorization: Bearer TOKEN'")


def watched(app: Callable, service: "Service") -> Callable:
    """Put token, limits, headers, metrics and one line of log a request around an ASGI application."""

    async def answer_request(scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return await app(scope, receive, send)
        start, facts = time.perf_counter(), {"status": 0, "bytes": 0}
        # Uvicorn sends no body to HEAD.
        scope = {**scope, "method": "GET" if scope["method"] == "HEAD" else scope["method"], "medic": facts}
        request = Request(scope, receive)

        async def answer(message: dict) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
                # What is left of a body that is too large is not waited for. Who waits to be told to send one, and is
                # not, would begin the next request in its place.
                ends = service.draining or facts["status"] == 413 or "expect" in request.headers
                more = HEADERS | ({"connection": "close"} if ends else {})
                message["headers"] = [*message["headers"], *((n.encode(), v.encode()) for n, v in more.items())]
            await send(message)

        service.under_way += 1
        try:
            replayed = [{"type": "http.request", "body": await _body(request, service), "more_body": False}]

            async def receive_again() -> dict:
                return replayed.pop() if replayed else await receive()

            if re.match("/v2(?!/health/)(/|$)", scope["path"]):
                await service.protocol
            await app(scope, receive_again, answer)
        except ClientDisconnect:  # nobody is there to be answered
            facts["reason"] = "gone"
        except Exception as error:
            if not facts["status"]:  # else it has been answered, and noted
                await (await refuse(request, error))(scope, receive, answer)
        finally:
            service.under_way -= 1
            _note(scope["path"], facts, time.perf_counter() - start)

    return answer_request


async def _body(request: Request, service: "Service") -> bytes:
    """Read the whole body of a request that is let in."""
    if request.url.path not in OPEN:
        check_token(request.headers.get("authorization", ""), service.config.token)
    if request.method == "POST" and service.under_way > WAITING:
        raise HTTPException(503, "the service is busy; try again in a second")
    packed = request.headers.get("content-encoding", "")
    if packed.lower() not in ("", "identity"):
        raise HTTPException(415, f"content encoding {packed[:40]!r} is not read here; send the body as it is")
    as_json = request.url.path.endswith("/infer") and BINARY not in request.headers
    most, facts, parts = JSON if as_json else UPLOAD, request.scope["medic"], []
    async for part in request.stream():
        parts.append(part)
        facts["bytes"] += len(part)
        if facts["bytes"] > most:
            binary = " or, with tensors, in the protocol's binary form" if as_json else ""
            raise HTTPException(413, f"the upload has over {most:,} bytes; send a smaller file{binary}")
    return b"".join(parts)


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
