"""The service as an application: what it answers, in each of its worker processes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import importlib
import json
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from markdown_it import MarkdownIt
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from medic.data.images.decode import MAX_PIXELS
from medic.data.parallel import usable_cores
from medic.deployment.bundle.manifest import Manifest
from medic.deployment.bundle.predictor import Predictor
from medic.deployment.counts import Counts, measure
from medic.deployment.drift import REFERENCE, Reference
from medic.deployment.service.answers import advise, explain_numbers
from medic.deployment.service.middleware import JSON, UPLOAD, Middleware, register_errors
from medic.deployment.service.telemetry import count_answers, exposition
from medic.task import Prediction

if TYPE_CHECKING:
    from medic.deployment.service.server import ServerConfig

MultiPartParser.spool_max_size = sys.maxsize  # no upload goes to the disk; its bytes have been counted

LOG = logging.getLogger("medic")

PAGE = Path(__file__).parent / "page"

PICTURE_QUALITY = 90
"""JPEG quality, 0 to 100, of the picture that goes with a heatmap."""

DRAIN_SECONDS = 1.0
"""How long a worker that ends still answers the clients it knows; each answer ends its connection."""


@dataclass(eq=False)
class Service:
    """One worker process: a bundle's predictor, and the threads that decode and compute with it.

    Attributes:
        predictor: what answers.
        config: where the service listens, and how much it takes on.
        replaces: whether it takes another worker's place, whose ports must not close before its own are open.
        under_way: HTTP requests that are received, computed or answered.
        draining: true while the worker ends.
        counts: what it keeps of its answers for ``medic drift``; None where nothing is kept.
        protocol: loads the Open Inference Protocol's part in the background.
    """

    predictor: Predictor
    config: ServerConfig
    replaces: bool = False
    under_way: int = 0
    draining: bool = False
    counts: Counts | None = None
    protocol: asyncio.Task | None = None
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(usable_cores()))

    def __post_init__(self) -> None:
        reference = self.predictor.folder / REFERENCE
        if self.config.counts is not None and reference.is_file():
            fitted = Reference.from_dict(json.loads(reference.read_text()))
            self.counts = Counts(self.config.counts, fitted, self.manifest.version)

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.predictor.manifest

    async def compute(self, function: Callable, *arguments: Any) -> Any:
        """Run a function in a thread. If whoever asked is gone, the thread ends its work and nobody else notices."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def predict(self, images: list[bytes] | np.ndarray) -> tuple[Prediction, list[dict]]:
        """Classify image files, or prepared pixels uint8 (N, size, size, 3): the prediction, and an answer an image."""

        def compute() -> Prediction:
            if isinstance(images, np.ndarray):
                return self.predictor.predict_pixels(images)
            pixels = np.stack([self.predictor.pixels(data) for data in images])
            prediction = self.predictor.predict_pixels(pixels)
            self._count(images, pixels, prediction)
            return prediction

        prediction = await self.compute(compute)
        return prediction, self._answers(prediction)

    def _count(self, images: list[bytes], pixels: np.ndarray, prediction: Prediction) -> None:
        if self.counts is not None:
            self.counts.add(measure(images, pixels, prediction), prediction)

    def _answers(self, prediction: Prediction) -> list[dict]:
        answers = [{**answer, "advice": advise(answer)} for answer in self.predictor.answers(prediction)]
        count_answers(prediction, answers)
        return answers

    async def explain(self, data: bytes) -> dict:
        """Classify one image file: the answer with its heatmap, the pixels that the network saw, and words."""
        explained = await self.compute(self.predictor.explain, data)
        await self.compute(self._count, [data], explained.pixels[None], explained.prediction)
        [answer] = self._answers(explained.prediction)
        pixels, heatmap = cv2.cvtColor(explained.pixels, cv2.COLOR_RGB2BGR), explained.heatmap
        picture = cv2.imencode(".jpeg", pixels, [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])[1].tobytes()
        rows = None if heatmap is None else heatmap.round(3).astype(float).tolist()
        return {
            **answer,
            "words": explain_numbers(answer),
            "picture": "data:image/jpeg;base64," + base64.b64encode(picture).decode(),
            "heatmap": None if rows is None else {"of": explained.of, "rows": rows},
        }

    def about(self) -> dict:
        """What ``GET /`` says to programs."""
        manifest, config = self.manifest, self.config
        return {
            "service": "medic",
            "deployment": config.name,
            "task": manifest.task.to_dict(),
            "model": manifest.version,
            "precision": manifest.precision,
            "synthetic": manifest.synthetic,
            "thresholds": manifest.values["model"].get("thresholds"),
            "notice": manifest.notice,
            "limits": {"bytes": UPLOAD, "json_bytes": JSON, "pixels": MAX_PIXELS},
            "heatmap": manifest.values.get("heatmap") is not None,
            "token": config.token is not None,
            "grpc": config.grpc,
        }


def application(service: Service) -> Any:
    """The service over HTTP, as an ASGI application for one worker process.

    ``GET /`` says what it is (a page to browsers, JSON to programs), ``POST /predict`` takes an image file's bytes or a
    form with one file, ``POST /explain`` answers with a heatmap, ``/v2`` speaks the Open Inference Protocol,
    ``/metrics`` is for Prometheus. Uploads are never written to disk.
    """
    # The interactive page of FastAPI would fetch scripts from another host.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=functools.partial(_lifespan, service))
    register_errors(app)
    _register_page(app, service)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        _, [answer] = await service.predict([await _image(request)])
        return JSONResponse(answer)

    @app.post("/explain")
    async def explain(request: Request) -> Response:
        return JSONResponse(await service.explain(await _image(request)))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(exposition(service.manifest), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v2/health/live")
    async def live() -> dict:
        return {"live": True}

    @app.get("/v2/health/ready")
    async def ready() -> dict:
        return {"ready": True}

    async def route(scope: dict, receive: Callable, send: Callable) -> None:
        path = scope.get("path", "")
        if path == "/v2" or (path.startswith("/v2/") and not path.startswith("/v2/health/")):
            await (await service.protocol)[1](scope, receive, send)
        else:
            await app(scope, receive, send)

    return Middleware(route, service)


async def _load_protocol(service: Service) -> tuple[Any, Any]:
    """The module of the Open Inference Protocol and its application; kserve's import takes seconds."""
    module = await asyncio.to_thread(importlib.import_module, "medic.deployment.service.open_inference")
    return module, module.application(service)


async def _open_grpc(service: Service) -> Any:
    """Open the gRPC port where one is asked for; None without."""
    if service.config.grpc_port is None:
        return None
    try:
        return await (await service.protocol)[0].open_grpc(service)
    except Exception:
        LOG.exception("the gRPC port cannot be opened")
        raise


@contextlib.asynccontextmanager
async def _lifespan(service: Service, _: FastAPI) -> AsyncIterator[None]:
    """From before a worker takes its first request until after its last answer."""
    loop = asyncio.get_running_loop()
    size = service.predictor.preprocessing.size
    service.predictor.predict_pixels(np.zeros((1, size, size, 3), np.uint8))  # the first call is a slow one
    service.protocol = asyncio.create_task(_load_protocol(service))
    opening = asyncio.create_task(_open_grpc(service))
    if service.replaces:
        await opening
    end = signal.getsignal(signal.SIGTERM)  # uvicorn's, which ends idle connections at once
    ending: list[asyncio.Task] = []

    async def drain() -> None:
        service.draining = True
        for server in end.__self__.servers:
            server.close()  # who comes now goes to another worker
        if opening.done() and (rpc := opening.result()) is not None:
            ending.append(asyncio.create_task(rpc.stop(DRAIN_SECONDS)))
        await asyncio.sleep(DRAIN_SECONDS)
        end(signal.SIGTERM, None)

    def begin_to_end() -> None:
        if not service.draining:
            ending.append(asyncio.ensure_future(drain()))

    loop.add_signal_handler(signal.SIGTERM, begin_to_end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one around the workers ends them
    if parent := multiprocessing.parent_process():

        def orphaned() -> None:
            loop.remove_reader(parent.sentinel)
            os.kill(os.getpid(), signal.SIGTERM)

        loop.add_reader(parent.sentinel, orphaned)
    yield
    await asyncio.gather(*ending)
    if service.counts is not None:
        service.counts.close()


def _register_page(app: FastAPI, service: Service) -> None:
    # Read now: another bundle may come to lie in the folder.
    card = render_card((service.predictor.folder / "MODEL_CARD.md").read_text(encoding="utf-8"))

    @app.get("/")
    async def home(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return FileResponse(PAGE / "index.html")
        return JSONResponse(service.about())

    @app.get("/page.js")
    @app.get("/page.css")
    async def page(request: Request) -> Response:
        return FileResponse(PAGE / request.url.path[1:])

    @app.get("/card")
    async def model_card() -> Response:
        return HTMLResponse(card)


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
    async with request.form(max_files=1, max_fields=8, max_part_size=4096) as form:
        for file in (value for value in form.values() if not isinstance(value, str)):
            return await file.read()
    raise HTTPException(422, "the form holds no file; send one image as curl -F image=@image.jpeg does")
