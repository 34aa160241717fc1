"""Answers a second over HTTP: ``medic serve`` and a plain endpoint against the bare runtime on the same cores.

Photographs of about 44 kB are sent by 8 clients that keep their connections. The yardstick (1.00) is onnxruntime alone,
without HTTP and without decoding: one session on all cores, batches of 8 of pixels that are ready. A second limit adds
decoding, cropping and scaling to it, a thread a core. The clients live in one process of their own and use the same
cores as the service: what they take is printed. All take turns, and whoever has no turn is blocked.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
from fastapi import FastAPI, Request
from measure import Row, arguments, compared, figure, interleave, origin, rows, run, show, write
from network import jpegs, network
from turns import Worker

from medic.data.parallel import usable_cores
from medic.errors import MedicError

NAME = "serving"
REFERENCE = "limit: bare onnxruntime, batch 8"
DECODING = "limit: decode and bare onnxruntime, batch 8"
OURS, PLAIN = "medic serve", "plain FastAPI endpoint"
TARGET = 0.9
CLIENTS = 8
PHOTOGRAPHS, JPEG_BYTES = 8, 44_000


def bare(bundle: str, photographs: list[bytes], threads: int) -> Callable[[int, bool], None]:
    """Onnxruntime at batch 8 in a process of its own, with or without decoding; called with the number of images."""
    import cv2
    import onnxruntime

    from medic.deployment.bundle.manifest import read_manifest
    from medic.deployment.bundle.predictor import INPUT

    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(f"{bundle}/model.onnx", options, providers=["CPUExecutionProvider"])
    preprocessing, pool = read_manifest(bundle).preprocessing, ThreadPoolExecutor(threads)
    ready = np.stack([preprocessing.pixels(data) for data in photographs])

    def answers(images: int, decode: bool) -> None:
        for _ in range(images // len(ready)):
            pixels = np.stack(list(pool.map(preprocessing.pixels, photographs))) if decode else ready
            session.run(None, {INPUT: pixels})

    return answers


def plain(bundle: str) -> Callable[[bytes], dict]:
    """An image file to probabilities as one writes it in ten minutes: decode, scale, onnxruntime as it comes."""
    import cv2
    import onnxruntime

    from medic.deployment.bundle.manifest import read_manifest
    from medic.deployment.bundle.predictor import INPUT

    session = onnxruntime.InferenceSession(f"{bundle}/model.onnx", providers=["CPUExecutionProvider"])
    manifest = read_manifest(bundle)

    def answer(data: bytes) -> dict:
        pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        size = manifest.preprocessing.size
        pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA)
        probabilities = session.run(None, {INPUT: pixels[None]})[0][0]
        return dict(zip(manifest.task.classes, map(float, probabilities), strict=True))

    return answer


def plain_endpoint(bundle: str, port: int) -> Callable[[], None]:
    """The service that one writes in ten minutes: FastAPI, a request a thread."""
    import uvicorn
    from starlette.concurrency import run_in_threadpool

    answer, app = plain(bundle), FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> dict:
        return await run_in_threadpool(answer, await request.body())

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise MedicError("the plain endpoint did not start; run the benchmark again")
        time.sleep(0.05)
    return lambda: server.servers[0].sockets[0].getsockname()[1]


def clients(photographs: list[bytes]) -> Callable[[str, int, int], dict]:
    """The process of the clients; called with an address, the number of requests and how many ask at the same time."""

    def ask(address: str, requests: int, together: int) -> dict:
        numbers, milliseconds, failures = itertools.count(), [], []

        def client() -> None:
            connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
            while not failures and (number := next(numbers)) < requests:
                start = time.perf_counter()
                body = photographs[number % len(photographs)]
                connection.request("POST", "/predict", body, {"Content-Type": "image/jpeg"})
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    failures.append(response.status)
                milliseconds.append(1000 * (time.perf_counter() - start))
            connection.close()

        threads, busy = [threading.Thread(target=client) for _ in range(together)], time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures or len(milliseconds) != requests:
            raise MedicError(f"{address} answered {failures or 'not every request'}; its log says why")
        return {"milliseconds": milliseconds, "processor_ms": 1000 * (time.process_time() - busy) / requests}

    return ask


def start_service(bundle: str) -> tuple[subprocess.Popen, str]:
    """``medic serve`` as a user starts it, and its address."""
    command = [sys.executable, "-m", "medic.deployment.service.server", bundle, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return process, found[0]
    raise MedicError(f"{' '.join(command[1:])} did not start; run it by hand to see why")


def measured(bundle: str, photographs: list[bytes], options: argparse.Namespace) -> list[Row]:
    """All of them in turns: throughput with 8 clients, then what a single client waits."""
    requests, rounds = (32, 3) if options.quick else (160, 9)
    service, address = start_service(bundle)
    workers = [
        Worker(bare, bundle, photographs, options.threads),
        Worker(plain_endpoint, bundle, 0),
        Worker(clients, photographs),
    ]
    try:
        raw, plain, client = (worker.ready() for worker in workers)
        addresses = {OURS: address, PLAIN: f"http://127.0.0.1:{plain.ask()}"}
        asked: dict[str, list[dict]] = {OURS: [], PLAIN: []}
        turns = {
            REFERENCE: lambda: raw.ask(requests, False),
            DECODING: lambda: raw.ask(requests, True),
            OURS: lambda: asked[OURS].append(client.ask(addresses[OURS], requests, CLIENTS)),
            PLAIN: lambda: asked[PLAIN].append(client.ask(addresses[PLAIN], requests, CLIENTS)),
        }
        seconds = interleave(turns, rounds)
        found = rows(
            NAME,
            seconds,
            reference=REFERENCE,
            work=requests,
            metric=f"answers_per_s_{CLIENTS}_clients",
            targets={OURS: TARGET},
        )
        found.append(compared(NAME, seconds, OURS, DECODING))
        alone: dict[str, list[float]] = {OURS: [], PLAIN: []}
        for _, name in itertools.product(range(4), alone):
            alone[name] += client.ask(addresses[name], 8 if options.quick else 25, 1)["milliseconds"]
    finally:
        for worker in workers:
            worker.stop()
        service.terminate()
        service.wait()
    for name, times in alone.items():
        low, middle, high, late = np.percentile(times, (25, 50, 75, 95))
        found.append(figure(NAME, name, "ms_single_client_p50", middle, spread=(float(low), float(high))))
        found.append(figure(NAME, name, "ms_single_client_p95", late))
    for name, turns_of in asked.items():
        busy = float(np.median([turn["processor_ms"] for turn in turns_of]))
        found.append(figure(NAME, f"clients of {name}", "processor_ms_an_answer", busy))
    return found


def main() -> None:
    """Measure, print and write."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of the bare runtime (default: the cores)")
    options = parser.parse_args()
    made = network(options)
    photographs = jpegs(made.prepared, PHOTOGRAPHS, JPEG_BYTES)
    found = measured(str(made.fp32.folder), photographs, options)
    sizes = f"{len(photographs)} JPEGs of {min(map(len, photographs)):,} to {max(map(len, photographs)):,} bytes"
    show(found, origin(options.data), made.note, f"{sizes}; {CLIENTS} clients in one process on the same cores")
    write(found, NAME, options)


if __name__ == "__main__":
    run(main)
