"""The service as an application: what it answers, what it refuses, and how much it takes on."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from kserve import ModelRepository
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.rest.v2_endpoints import register_v2_endpoints
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest

from medic.data.decode import MAX_PIXELS
from medic.deployment.open_inference import BinaryDataPlane, BundleModel
from medic.deployment.predict import Predictor
from medic.errors import ImageError, MedicError

STATUS = {"empty": 422, "truncated": 422, "unreadable": 422, "unsupported": 415, "too_large": 413}
"""The HTTP status for each reason why bytes are no image."""

REQUESTS = Counter("medic_requests", "Requests answered, by route and status", ["route", "status"])
SECONDS = Histogram("medic_request_seconds", "Seconds from request to answer, by route", ["route"])


@dataclass(frozen=True)
class Limits:
    """What the service takes on.

    Attributes:
        upload: bytes of one request's body.
        seconds: how long a client may keep silent within its upload.
        waiting: requests that may wait for a free worker; more are answered 503 at once.
        workers: requests computed at the same time; None takes one a core.
    """

    upload: int = 32 << 20
    seconds: float = 30.0
    waiting: int = 32
    workers: int | None = None


def application(predictor: Predictor, limits: Limits, name: str | None = None) -> FastAPI:
    """The service over one bundle.

    ``GET /`` says what it is (a page to browsers, JSON to programs), ``POST /predict`` takes an image file's bytes,
    ``/v2`` speaks the Open Inference Protocol, ``/metrics`` is for Prometheus. Uploads are never written to disk.

    Args:
        predictor: the loaded bundle.
        limits: what it takes on.
        name: what the deployment is called, shown by ``GET /``.
    """
    queue = _Queue(limits)
    model = BundleModel(predictor, queue.run)
    models = ModelRepository()
    models.update(model)
    # The interactive page would fetch scripts from another host.
    app = FastAPI(title="MEDIC", description=predictor.manifest.notice, docs_url=None, redoc_url=None)
    app.add_middleware(_Guard, limits=limits)
    _answer_errors(app)
    _register_page(app, predictor, limits, name)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        _refuse_other_types(request.headers.get("content-type", ""))
        data = await request.body()
        prediction = await queue.run(predictor.predict, [data])
        return JSONResponse(predictor.answers(prediction)[0])

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    # One model, one version, and nobody unloads it over the network: these of kserve's routes are closed.
    @app.api_route("/v2/repository/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
    @app.api_route("/v2/models/{model}/versions/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
    async def closed() -> None:
        raise HTTPException(404, "this service has one model in one version; see GET /v2/models")

    register_v2_endpoints(app, BinaryDataPlane(models), None)
    return app


def _register_page(app: FastAPI, predictor: Predictor, limits: Limits, name: str | None) -> None:
    manifest = predictor.manifest
    about = {
        "service": "medic",
        "deployment": name,
        "task": manifest.task.to_dict(),
        "model": manifest.version,
        "precision": manifest.precision,
        "synthetic": manifest.synthetic,
        "thresholds": manifest.values["model"].get("thresholds"),
        "notice": manifest.notice,
        "limits": {"bytes": limits.upload, "pixels": MAX_PIXELS},
    }

    @app.get("/")
    async def page(request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse(about)
        return HTMLResponse(_page(about))


def _page(about: dict) -> str:
    task = about["task"]
    answers = "each of" if task["kind"] == "multilabel" else "one of"
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>MEDIC: {escape(task["name"])}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:42em;margin:3em auto;padding:0 1em}}.notice{{border-left:.4em solid
#b00;padding:.2em 1em}}</style><h1>MEDIC: {escape(task["name"])}</h1><p class="notice">{escape(about["notice"])}</p>
<p>Answers {answers}: {escape(", ".join(task["classes"]))}. Model {about["model"]}, {about["precision"]}.</p>
<pre>curl --data-binary @image.jpeg -H "Content-Type: image/jpeg" THIS_ADDRESS/predict</pre>
<p>Programs: <code>POST /predict</code>, <code>/v2</code> (Open Inference Protocol), <code>/metrics</code>.</p></html>
"""


def _refuse_other_types(content_type: str) -> None:
    kind = content_type.partition(";")[0].strip().lower()
    if kind and not kind.startswith("image/") and kind not in ("application/octet-stream", "application/dicom"):
        raise HTTPException(
            415,
            f"content type {kind!r} is no image; send the file's bytes as they are with a type such as image/jpeg "
            '(curl --data-binary @image.jpeg -H "Content-Type: image/jpeg")',
        )


class _Busy(Exception):
    """Every worker is taken and the queue is full."""


class _Queue:
    """Runs blocking work in threads, a bounded number at a time with a bounded number waiting."""

    def __init__(self, limits: Limits):
        workers = limits.workers or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="medic")
        self._free = workers + limits.waiting

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result; ``_Busy`` at once when the queue is full."""
        if not self._free:
            raise _Busy
        self._free -= 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        finally:
            self._free += 1


class _Guard:
    """Around every request: the body's bytes are counted as they come, silence ends, and the answer is measured."""

    def __init__(self, app: Any, limits: Limits):
        self._app = app
        self._limits = limits

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, route, received, complete = time.perf_counter(), _route(scope["path"]), 0, False

        async def counted() -> dict:
            nonlocal received, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self._limits.seconds)
            except TimeoutError:
                raise HTTPException(408, f"nothing came for {self._limits.seconds:g} seconds; send it again") from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._limits.upload:
                raise self._too_large()
            return message

        async def measured(message: dict) -> None:
            if message["type"] == "http.response.start":
                REQUESTS.labels(route, message["status"]).inc()
                SECONDS.labels(route).observe(time.perf_counter() - start)
                plain = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
                message = {**message, "headers": [*message["headers"], *plain]}
            await send(message)

        # The length that a client declares is believed only where it is already too much.
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._limits.upload:
            error = self._too_large()
            await JSONResponse({"error": error.detail}, error.status_code)(scope, receive, measured)
            return
        await self._app(scope, counted, measured)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the upload has over {self._limits.upload:,} bytes; send a smaller file")


def _route(path: str) -> str:
    """A few names, however many paths are asked for."""
    if path == "/predict":
        return path
    return "/v2 infer" if path.startswith("/v2/") and path.endswith("/infer") else "other"


def _answer_errors(app: FastAPI) -> None:
    """Every error as JSON with a sentence; what nobody foresaw goes to the log, without the request's content."""

    def answer(status: int, message: str, **more: str) -> JSONResponse:
        return JSONResponse({"error": message, **more}, status, headers={"Retry-After": "1"} if status == 503 else None)

    @app.exception_handler(ImageError)
    async def image(_: Request, error: ImageError) -> Response:
        return answer(STATUS[error.reason], str(error), reason=error.reason)

    @app.exception_handler(MedicError)
    @app.exception_handler(InvalidInput)
    async def invalid(_: Request, error: Exception) -> Response:
        return answer(400, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(400, f"the request is malformed at {where}: {first['msg']}")

    @app.exception_handler(ModelNotFound)
    async def unknown(_: Request, error: ModelNotFound) -> Response:
        return answer(404, f"{error} See GET /v2/models")

    # The numbers catch what the framework itself raises: unknown paths and wrong methods.
    @app.exception_handler(404)
    @app.exception_handler(405)
    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        known = error.detail != HTTPStatus(error.status_code).phrase
        here = f"{request.method} {request.url.path} is not answered here; see GET / for what is"
        return answer(error.status_code, error.detail if known else here)

    @app.exception_handler(_Busy)
    async def busy(_: Request, error: _Busy) -> Response:
        return answer(503, "the service is busy; try again in a second")

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        logging.getLogger("medic").error("%s %s failed", request.method, request.url.path, exc_info=error)
        return answer(500, "the service failed; its log says more")
