"""The service as an application: what it answers, in each of its worker processes."""

import asyncio
import base64
import contextlib
import fcntl
import functools
import importlib
import json
import multiprocessing
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from markdown_it import MarkdownIt
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser

from medic.data.images.decode import MAX_PIXELS
from medic.data.parallel import usable_cores
from medic.deployment.bundle.predictor import Predictor
from medic.deployment.counts import Counts, measure
from medic.deployment.drift import REFERENCE, Reference
from medic.deployment.service.middleware import ANSWERS, HANDLERS, JSON, LOG, REFERRED, UPLOAD, watched
from medic.referral import advise
from medic.task import Prediction

if TYPE_CHECKING:
    from medic.deployment.service.server import ServerConfig

MultiPartParser.spool_max_size = sys.maxsize  # no upload goes to the disk; its bytes have been counted

PAGE = Path(__file__).parent / "page"

DRAIN_SECONDS = 1.0
"""How long a worker that ends still answers the clients it knows; each answer ends its connection."""


class Service:
    """One worker process: a bundle's predictor, and what it has under way. Its calls take a thread's time.

    Args:
        predictor: what answers.
        config: where the service listens, and how much it takes on.
        replaces: whether it takes another worker's place, whose ports must not close before its own are open.
    """

    def __init__(self, predictor: Predictor, config: "ServerConfig", *, replaces: bool = False):
        self.predictor, self.manifest, self.config, self.replaces = predictor, predictor.manifest, config, replaces
        self._one_core = Predictor(predictor.folder, threads=1)
        self.under_way = 0  # HTTP requests that are received, computed or answered
        self.draining = False  # true while the worker ends
        self.protocol: asyncio.Task | None = None  # loads the Open Inference Protocol, and opens its gRPC server
        reference = predictor.folder / REFERENCE
        self.counts: Counts | None = None
        if config.counts is not None and reference.is_file():
            fitted = Reference.from_dict(json.loads(reference.read_text()))
            self.counts = Counts(config.counts, fitted, self.manifest.version)

    def predict(self, images: list[bytes] | np.ndarray) -> tuple[Prediction, list[dict]]:
        """Classify image files, or prepared pixels uint8 (N, size, size, 3): the prediction, and an answer an image."""
        files = isinstance(images, list)
        pixels = np.stack([self.predictor.pixels(data) for data in images]) if files else images
        with self._cores() as predictor:
            prediction = predictor.predict_pixels(pixels)
        return prediction, self._answers(prediction, images if files else [], pixels)

    @contextlib.contextmanager
    def _cores(self) -> Iterator[Predictor]:
        """Give all cores to who computes alone, and otherwise one: threads that share cores wait for each other.

        Workers see each other by locks on the graph's file, which end with whoever holds them.
        """
        predictor = self._one_core
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # another bundle may have taken the folder's place
                graph = held.enter_context(open(self.predictor.folder / "model.onnx", "rb"))
                with contextlib.suppress(OSError):
                    fcntl.flock(graph, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    predictor = self.predictor
                fcntl.flock(graph, fcntl.LOCK_SH)
            yield predictor

    def explain(self, data: bytes) -> dict:
        """Classify one image file: the answer with its heatmap, the pixels that the network saw, and words."""
        explained = self.predictor.explain(data)
        [answer] = self._answers(explained.prediction, [data], explained.pixels[None])
        picture = cv2.imencode(".jpeg", explained.pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        heatmap = explained.heatmap
        rows = None if heatmap is None else heatmap.round(3).astype(float).tolist()
        doubt = "The numbers are not calibrated: 0.80 does not mean right in 80 of 100 images."
        return {
            **answer,
            "words": f"The probabilities are {answer['calibration']}." if "calibration" in answer else doubt,
            "picture": "data:image/jpeg;base64," + base64.b64encode(picture).decode(),
            "heatmap": None if rows is None else {"of": explained.of, "rows": rows},
        }

    def _answers(self, prediction: Prediction, files: list[bytes], pixels: np.ndarray) -> list[dict]:
        """Return what is said of images, and count them; those without a file are not watched for drift."""
        if self.counts is not None and files:
            self.counts.add(measure(files, pixels, prediction), prediction)
        answers = [{**answer, "advice": advise(answer)} for answer in self.predictor.answers(prediction)]
        for answer in answers:
            for name in answer.get("classes", [answer.get("class")]) or ["none"]:
                ANSWERS.labels(name).inc()
            if answer.get("refer"):
                REFERRED.labels(answer["why"]).inc()
        return answers

    def about(self) -> dict:
        """Return what ``GET /`` says to programs."""
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


def application(service: Service) -> Callable:
    """Return the service over HTTP, as an ASGI application for one worker process.

    ``GET /`` says what it is (a page to browsers, JSON to programs), ``POST /predict`` takes an image file's bytes or a
    form with one file, ``POST /explain`` answers with a heatmap, ``/v2`` speaks the Open Inference Protocol,
    ``/metrics`` is for Prometheus. Uploads are never written to disk.
    """
    # The interactive page of FastAPI would fetch scripts from another host, and its redirects say nothing.
    settings = {"exception_handlers": HANDLERS, "lifespan": functools.partial(_lifespan, service)}
    app = FastAPI(openapi_url=None, redirect_slashes=False, **settings)
    # Read now: another bundle may come to lie in the folder. HTML within the card stays text.
    card = (service.predictor.folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    card = MarkdownIt("commonmark", {"html": False}).enable("table").render(card)

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

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        image = await _image(request)
        _, [answer] = await asyncio.to_thread(service.predict, [image])
        return JSONResponse(answer)

    @app.post("/explain")
    async def explain(request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(service.explain, await _image(request)))

    @app.get("/metrics")
    async def metrics() -> Response:
        workers = CollectorRegistry()
        MultiProcessCollector(workers)  # all workers together
        return Response(generate_latest(workers), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v2/health/live")
    @app.get("/v2/health/ready")
    async def health() -> dict:
        return {"live": True, "ready": True}

    return watched(app, service)


async def _load_protocol(app: FastAPI, service: Service) -> Any:
    """Let the Open Inference Protocol be spoken, and return its gRPC server; importing kserve takes seconds."""
    try:
        module = await run_in_threadpool(importlib.import_module, "medic.deployment.service.open_inference")
        protocol = module.Protocol(service)
        module.add_routes(app, protocol)
        return None if service.config.grpc is None else await module.open_grpc(protocol)
    except Exception:
        LOG.exception("the Open Inference Protocol is not spoken")
        raise


@contextlib.asynccontextmanager
async def _lifespan(service: Service, app: FastAPI) -> AsyncIterator[None]:
    """From before a worker takes its first request until after its last answer."""
    loop, size = asyncio.get_running_loop(), service.predictor.preprocessing.size
    loop.set_default_executor(ThreadPoolExecutor(usable_cores()))
    service.predictor.predict_pixels(np.zeros((1, size, size, 3), np.uint8))  # the first call is a slow one
    service.protocol = asyncio.create_task(_load_protocol(app, service))
    if service.replaces:
        await service.protocol
    end = signal.getsignal(signal.SIGTERM)  # uvicorn's, which ends idle connections at once
    ending: list[asyncio.Task] = []

    async def drain() -> None:
        for server in end.__self__.servers:
            server.close()  # who comes now goes to another worker
        if service.protocol.done() and not service.protocol.exception() and (rpc := service.protocol.result()):
            ending.append(asyncio.create_task(rpc.stop(DRAIN_SECONDS)))
        await asyncio.sleep(DRAIN_SECONDS)
        end(signal.SIGTERM, None)

    def begin_to_end() -> None:
        if not service.draining:
            service.draining = True
            ending.append(asyncio.create_task(drain()))

    loop.add_signal_handler(signal.SIGTERM, begin_to_end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one around the workers ends them
    if parent := multiprocessing.parent_process():

        def orphaned() -> None:
            loop.remove_reader(parent.sentinel)
            begin_to_end()

        loop.add_reader(parent.sentinel, orphaned)
    yield
    await asyncio.gather(*ending)
    if service.counts is not None:
        service.counts.close()


async def _image(request: Request) -> bytes:
    """Return the bytes of the one image in a request's body, as it is or as a file of a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        async with request.form(max_files=1, max_fields=8, max_part_size=4096) as form:
            for file in (value for value in form.values() if not isinstance(value, str)):
                return await file.read()
        raise HTTPException(422, "the form holds no file; send one image as curl -F image=@image.jpeg does")
    if kind and not kind.startswith("image/") and kind not in ("application/octet-stream", "application/dicom"):
        raise HTTPException(
            415,
            f"content type {kind[:80]!r} is no image; send the file's bytes as they are with a type such as image/jpeg "
            '(curl --data-binary @image.jpeg -H "Content-Type: image/jpeg"), or as a form (curl -F image=@image.jpeg)',
        )
    return await request.body()
