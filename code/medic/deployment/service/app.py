"""The service as an application: what it answers, and what it says to what it does not."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from http import HTTPStatus
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from kserve import ModelRepository
from kserve.errors import InvalidInput, ModelNotFound, ModelNotReady, ServerNotReady
from kserve.protocol.rest.v2_endpoints import V2Endpoints, register_v2_endpoints
from markdown_it import MarkdownIt
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from medic.data.images.decode import MAX_PIXELS
from medic.deployment.bundle.predictor import answers
from medic.deployment.service.answers import explain_in_words
from medic.deployment.service.guard import RequestLimits, refusal
from medic.deployment.service.limits import Limits, Refused, RequestCounter
from medic.deployment.service.open_inference import BinaryDataPlane, BundleModel
from medic.deployment.service.telemetry import MODEL, REJECTED, count_answers
from medic.deployment.service.workers import Failed, Workers
from medic.errors import ImageError, MedicError

STATUS = {"empty": 422, "truncated": 422, "unreadable": 422, "unsupported": 415, "too_large": 413}
"""The HTTP status for each reason why bytes are no image."""

PAGE = {"page.js": "text/javascript; charset=utf-8", "page.css": "text/css; charset=utf-8"}


@dataclass(eq=False)
class Service:
    """What one running service consists of.

    Attributes:
        workers: the processes that compute.
        limits: what it takes on.
        name: what the deployment is called, shown by ``GET /``.
        token: what clients have to show; None asks nobody.
        grpc: the address of the gRPC port, such as ``127.0.0.1:8081``; None without.
        counter: counts what is under way, over HTTP and gRPC.
        state: ``draining`` while the service ends.
    """

    workers: Workers
    limits: Limits = field(default_factory=Limits)
    name: str | None = None
    token: str | None = None
    grpc: str | None = None
    counter: RequestCounter = field(init=False)
    state: dict = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counter = RequestCounter(self.limits)

    def data_plane(self) -> BinaryDataPlane:
        """The Open Inference Protocol's side: one model, ready while workers are there and nothing ends."""
        models = ModelRepository()
        models.update(BundleModel(self.workers))
        return BinaryDataPlane(models, lambda: self.workers.ready and not self.state.get("draining"))

    def about(self) -> dict:
        """What ``GET /`` says to programs."""
        manifest = self.workers.manifest
        return {
            "service": "medic",
            "deployment": self.name,
            "task": manifest.task.to_dict(),
            "model": manifest.version,
            "precision": manifest.precision,
            "synthetic": manifest.synthetic,
            "thresholds": manifest.values["model"].get("thresholds"),
            "notice": manifest.notice,
            "limits": {"bytes": self.limits.upload, "json_bytes": self.limits.json, "pixels": MAX_PIXELS},
            "heatmap": manifest.values.get("heatmap") is not None,
            "token": self.token is not None,
            "grpc": self.grpc,
        }


def application(service: Service) -> FastAPI:
    """The service over HTTP.

    ``GET /`` says what it is (a page to browsers, JSON to programs), ``POST /predict`` takes an image file's bytes or a
    form with one file, ``POST /explain`` answers with a heatmap, ``/v2`` speaks the Open Inference Protocol,
    ``/metrics`` is for Prometheus. Uploads are never written to disk.
    """
    # The interactive page would fetch scripts from another host.
    app = FastAPI(title="MEDIC", description=service.workers.manifest.notice, docs_url=None, redoc_url=None)
    app.add_middleware(
        RequestLimits, limits=service.limits, counter=service.counter, token=service.token, state=service.state
    )
    _answer_errors(app)
    _register_page(app, service)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        manifest, prediction = await service.workers.files([await _image(request)])
        count_answers(prediction)
        return JSONResponse(answers(manifest, prediction)[0])

    @app.post("/explain")
    async def explain(request: Request) -> Response:
        explained = await service.workers.explain(await _image(request))
        count_answers(explained.prediction)
        [answer] = answers(explained.manifest, explained.prediction)
        picture = "data:image/jpeg;base64," + base64.b64encode(explained.picture).decode()
        heatmap = None if explained.rows is None else {"of": explained.of, "rows": explained.rows}
        words = explain_in_words(explained.manifest.task, answer, explained.prediction.thresholds)
        return JSONResponse({**answer, "words": words, "picture": picture, "heatmap": heatmap})

    @app.get("/metrics")
    async def metrics() -> Response:
        manifest = service.workers.manifest
        MODEL.clear()
        MODEL.labels(manifest.task.name, manifest.version, manifest.precision).set(1)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    # One model, one version, and nobody unloads it over the network: these of kserve's routes are closed.
    @app.api_route("/v2/repository/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
    @app.api_route("/v2/models/{model}/versions/{rest:path}", methods=["GET", "POST"], include_in_schema=False)
    async def closed() -> None:
        raise HTTPException(404, "this service has one model in one version; see GET /v2/models")

    plane = service.data_plane()
    endpoints = V2Endpoints(plane)

    # Left to kserve's route, FastAPI would read the JSON itself and keep an error for each wrong element of it: a body
    # of 60 kB then takes 100 MB.
    @app.post("/v2/models/{model}/infer", response_model=None)
    async def infer(model: str, request: Request, response: Response) -> Any:
        return await endpoints.infer(request, response, model, await request.body())

    register_v2_endpoints(app, plane, None)
    return app


def _register_page(app: FastAPI, service: Service) -> None:
    files = resources.files("medic.deployment.service") / "page"
    page = (files / "index.html").read_text(encoding="utf-8")

    @app.get("/")
    async def home(request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return JSONResponse(service.about())
        return HTMLResponse(page)

    def register(name: str, kind: str) -> None:
        content = (files / name).read_bytes()

        @app.get(f"/{name}")
        async def file() -> Response:
            return Response(content, media_type=kind)

    for name, kind in PAGE.items():
        register(name, kind)

    @app.get("/card")
    async def card() -> Response:
        return HTMLResponse(render_card(service.workers.model_card))


def render_card(markdown: str) -> str:
    """A model card's Markdown as an HTML fragment; HTML within it stays text."""
    return MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)


async def _image(request: Request) -> bytes:
    """The bytes of the one image in a request's body, as it is or as a file of a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _file_of_form(request)
    if kind and not kind.startswith("image/") and kind not in ("application/octet-stream", "application/dicom"):
        raise HTTPException(
            415,
            f"content type {kind[:80]!r} is no image; send the file's bytes as they are with a type such as image/jpeg "
            '(curl --data-binary @image.jpeg -H "Content-Type: image/jpeg"), or as a form (curl -F image=@image.jpeg)',
        )
    return await request.body()


async def _file_of_form(request: Request) -> bytes:
    body = await request.body()

    async def stream() -> AsyncIterator[bytes]:
        yield body

    # Of the type only the boundary: a charset would let the sender choose how his text is decoded, and how slowly.
    boundary = parse_options_header(request.headers["content-type"])[1].get(b"boundary", b"")
    kind = Headers(raw=[(b"content-type", b"multipart/form-data; boundary=" + boundary)])
    parser = MultiPartParser(kind, stream(), max_files=1, max_fields=8, max_part_size=4096)
    # A file beyond this size would go to the disk; a body has been counted, and none is as large.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        message = getattr(error, "message", None) or "it has no boundary, or not the one it names"
        raise HTTPException(
            400, f"the form cannot be read ({message}); send it as curl -F image=@image.jpeg does"
        ) from error
    try:
        for file in (value for value in form.values() if not isinstance(value, str)):
            return await file.read()
    finally:
        await form.close()
    raise HTTPException(422, "the form holds no file; send one image as curl -F image=@image.jpeg does")


def _answer_errors(app: FastAPI) -> None:
    """Every error as JSON with a sentence and a word; what nobody foresaw goes to the log, without the content."""

    def answer(request: Request, status: int, message: str, reason: str) -> JSONResponse:
        request.scope["medic"]["reason"] = reason
        return JSONResponse({"error": message, "reason": reason}, status)

    @app.exception_handler(ImageError)
    async def image(request: Request, error: ImageError) -> Response:
        REJECTED.labels(error.reason).inc()
        return answer(request, STATUS[error.reason], str(error), error.reason)

    @app.exception_handler(Refused)
    @app.exception_handler(HTTPException)
    # The numbers catch what the framework itself raises: unknown paths and wrong methods.
    @app.exception_handler(404)
    @app.exception_handler(405)
    async def refused(request: Request, error: Refused | HTTPException) -> Response:
        if isinstance(error, HTTPException) and error.detail == HTTPStatus(error.status_code).phrase:
            here = f"{request.method} {request.url.path[:200]} is not answered here; see GET / for what is"
            error = HTTPException(error.status_code, here, error.headers)
        status, content, headers = refusal(error)
        if status in (400, 413, 415, 422):
            REJECTED.labels(content["reason"]).inc()
        request.scope["medic"]["reason"] = content["reason"]
        return JSONResponse(content, status, headers)

    @app.exception_handler(MedicError)
    @app.exception_handler(InvalidInput)
    async def invalid(request: Request, error: Exception) -> Response:
        REJECTED.labels("malformed").inc()
        return answer(request, 400, str(error), "malformed")

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        REJECTED.labels("malformed").inc()
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return answer(request, 400, f"the request is malformed at {where[:200]}: {first['msg']}", "malformed")

    @app.exception_handler(ModelNotFound)
    async def unknown(request: Request, error: ModelNotFound) -> Response:
        return answer(request, 404, f"{error} See GET /v2/models", "unknown")

    @app.exception_handler(ServerNotReady)
    @app.exception_handler(ModelNotReady)
    async def not_ready(request: Request, error: ServerNotReady | ModelNotReady) -> Response:
        return answer(request, 503, "the service is starting or about to end; try again in a second", "not_ready")

    @app.exception_handler(Failed)
    async def failed(request: Request, error: Failed) -> Response:
        return answer(request, 500, "the service failed; its log says more", "failed")
