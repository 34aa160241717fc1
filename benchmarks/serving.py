"""The service over HTTP, or with ``--batch`` a folder into a CSV, each against the bare runtime on the same cores.

Photographs of about 44 kB. Serving: 8 clients that keep their connections; the clients live in one process and use the
same cores as the service, what they take is printed. The yardstick (1.00) is onnxruntime alone, without HTTP and
decoding: one session on all cores, batches of 8 of pixels that are ready. A second limit adds decoding, cropping and
scaling to it, a thread a core. Batch: ``medic predict`` beside the loop that one writes in ten minutes, and the memory
of a fresh process for many small generated images. All take turns, and what has no turn is blocked.
"""

import csv
import http.client
import itertools
import re
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
from fastapi import FastAPI, Request
from inference import network, photographs
from measure import (
    Row,
    arguments,
    ask,
    compared,
    figure,
    interleave,
    origin,
    peak_memory,
    rows,
    run,
    show,
    worker,
    write,
)

from medic.data.parallel import usable_cores
from medic.errors import MedicError

NAME = "serving"
REFERENCE = "limit: bare onnxruntime, batch 8"
DECODING = "limit: decode and bare onnxruntime, batch 8"
OURS, PLAIN = "medic serve", "plain FastAPI endpoint"
PREDICT, LOOP = "medic predict", "plain loop, an image at a time"
CLIENTS = 8
ALIKE, ALONE, START = 1 / 0.95, 1.15, 3.0
"""At most: time of 8 clients over the bare runtime that decodes; one client's over the plain endpoint; s to start."""
BATCHED = 1 / 0.97
"""At most: time of ``medic predict`` over the bare runtime that decodes."""
FLAT = 1.1
"""The most that ten times as many images may take in memory, against the smaller number."""


def bare(bundle: Path, files: list[bytes], threads: int) -> Callable[[int, bool], None]:
    """Open onnxruntime at batch 8, with or without decoding; called with the number of images."""
    import onnxruntime

    from medic.deployment.bundle.manifest import read_manifest

    cv2.setNumThreads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = onnxruntime.InferenceSession(bundle / "model.onnx", options, providers=["CPUExecutionProvider"])
    preprocessing, pool = read_manifest(bundle).preprocessing, ThreadPoolExecutor(threads)
    ready = np.stack([preprocessing.pixels(data) for data in files])

    def answers(images: int, decode: bool) -> None:
        for _ in range(images // len(ready)):
            pixels = np.stack(list(pool.map(preprocessing.pixels, files))) if decode else ready
            session.run(None, {session.get_inputs()[0].name: pixels})

    return answers


def plain(bundle: Path) -> Callable[[bytes], dict]:
    """Make probabilities of an image file as one writes it in ten minutes: decode, scale, onnxruntime as it comes."""
    import onnxruntime

    from medic.deployment.bundle.manifest import read_manifest

    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    manifest = read_manifest(bundle)

    def answer(data: bytes) -> dict:
        pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        pixels = cv2.resize(pixels, (manifest.preprocessing.size,) * 2, interpolation=cv2.INTER_AREA)
        probabilities = session.run(None, {session.get_inputs()[0].name: pixels[None]})[0][0]
        return dict(zip(manifest.task.classes, map(float, probabilities), strict=True))

    return answer


def plain_endpoint(bundle: Path) -> Callable[[], int]:
    """Start the service that one writes in ten minutes, FastAPI and a request a thread; called, it gives its port."""
    import uvicorn
    from starlette.concurrency import run_in_threadpool

    answer, app = plain(bundle), FastAPI()

    @app.post("/predict")
    async def predict(request: Request) -> dict:
        return await run_in_threadpool(answer, await request.body())

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    while not server.started:
        time.sleep(0.05)
    return lambda: server.servers[0].sockets[0].getsockname()[1]


def clients(files: list[bytes]) -> Callable[[str, int, int], dict]:
    """Make the clients; called with an address, the number of requests and how many ask at the same time."""

    def asked(address: str, requests: int, together: int) -> dict:
        numbers, local, busy = itertools.count(), threading.local(), time.process_time()

        def request(_: int) -> float:
            start = time.perf_counter()
            if not hasattr(local, "connection"):
                local.connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
            body = files[next(numbers) % len(files)]
            local.connection.request("POST", "/predict", body, {"Content-Type": "image/jpeg"})
            response = local.connection.getresponse()
            if response.status != 200:
                raise MedicError(f"{address} answered {response.status}: {response.read()[:300]}")
            response.read()
            return 1000 * (time.perf_counter() - start)

        with ThreadPoolExecutor(together) as pool:
            milliseconds = list(pool.map(request, range(requests)))
        return {"milliseconds": milliseconds, "processor_ms": 1000 * (time.process_time() - busy) / requests}

    return asked


def served(bundle: Path, files: list[bytes], requests: int, rounds: int) -> list[Row]:
    """Measure throughput with 8 clients by turns, then what a single client waits."""
    command, began = [sys.executable, "-m", "medic.cli", "serve", str(bundle), "--port", "0"], time.perf_counter()
    service = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    workers = [worker(bare, bundle, files, usable_cores()), worker(plain_endpoint, bundle), worker(clients, files)]
    raw, endpoint, client = workers
    try:
        started = next((found for line in service.stdout if (found := re.search(r"http://\S+", line))), None)
        if started is None:
            raise MedicError(f"{' '.join(command[1:])} did not start; run it by hand to see why")
        start = time.perf_counter() - began
        addresses = {OURS: started[0], PLAIN: f"http://127.0.0.1:{ask(endpoint)}"}
        answered: dict[str, list[dict]] = {OURS: [], PLAIN: []}
        seconds = interleave(
            {
                REFERENCE: lambda: ask(raw, requests, False),
                DECODING: lambda: ask(raw, requests, True),
                OURS: lambda: answered[OURS].append(ask(client, addresses[OURS], requests, CLIENTS)),
                PLAIN: lambda: answered[PLAIN].append(ask(client, addresses[PLAIN], requests, CLIENTS)),
            },
            rounds,
        )
        alone = {name: [] for name in addresses}
        for _, name in itertools.product(range(4), alone):
            alone[name] += ask(client, addresses[name], requests // 5, 1)["milliseconds"]
    finally:
        for one in workers:
            one.shutdown()
        service.terminate()
        service.wait()
    metric = f"answers_per_s_{CLIENTS}_clients"
    found = rows(NAME, seconds, reference=REFERENCE, work=requests, metric=metric)
    found.append(compared(NAME, seconds, OURS, DECODING, target=ALIKE, at_most=True))
    lone = compared(NAME, alone, OURS, PLAIN, target=ALONE, at_most=True)
    found.append(replace(lone, metric=f"single_client_{lone.metric}"))
    found.append(figure(NAME, OURS, "s_to_start", start, target=START, at_most=True))
    for name, times in alone.items():
        low, middle, high, late = map(float, np.percentile(times, (25, 50, 75, 95)))
        busy = float(np.median([turn["processor_ms"] for turn in answered[name]]))
        found.append(figure(NAME, name, "ms_single_client_p50", middle, spread=(low, high)))
        found.append(figure(NAME, name, "ms_single_client_p95", late))
        found.append(figure(NAME, f"clients of {name}", "processor_ms_an_answer", busy))
    return found


def medic_predict(bundle: Path, images: Path) -> Callable[[str], float]:
    """Do what ``medic predict`` does, its start left away; called with the CSV file, it gives its largest memory."""
    from medic.data.stores import open_store
    from medic.deployment.bundle import Bundle
    from medic.predict.batch import predict_to

    model, store = Bundle.load(bundle).predictor(threads=1), open_store(images)
    return lambda to: (predict_to(model, store, store.names(), to, at_once=usable_cores()), int(peak_memory()))[1]


def plain_loop(bundle: Path, images: Path) -> Callable[[str], None]:
    """Write the script that one writes in ten minutes: no crop, no journal, and a bad file would end it."""
    answer, files = plain(bundle), sorted(images.iterdir())

    def predict(to: str) -> None:
        with open(to, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([path.name, *answer(path.read_bytes()).values()] for path in files)

    return predict


def batched(bundle: Path, files: list[bytes], number: int, rounds: int, numbers: tuple[int, int]) -> list[Row]:
    """Measure images a second by turns, and memory for two numbers of small images."""
    with tempfile.TemporaryDirectory() as temporary:
        images, to = Path(temporary) / "images", f"{temporary}/result.csv"
        images.mkdir()
        for count in range(number):
            (images / f"{count:05}.jpeg").write_bytes(files[count % len(files)])
        makers = {LOOP: (plain_loop, images), PREDICT: (medic_predict, images)}
        processes = {name: worker(make, bundle, place) for name, (make, place) in makers.items()}
        with worker(bare, bundle, files, usable_cores()) as raw:
            methods = {name: lambda p=p: ask(p, to) and None for name, p in processes.items()}
            methods |= {n: lambda d=d: ask(raw, number, d) for n, d in ((REFERENCE, False), (DECODING, True))}
            seconds = interleave(methods, rounds)
        found = rows("batch", seconds, reference=LOOP, work=number)
        found.append(compared("batch", seconds, PREDICT, REFERENCE))
        found.append(compared("batch", seconds, PREDICT, DECODING, target=BATCHED, at_most=True))
        peaks = []
        small = cv2.imencode(".jpeg", cv2.resize(cv2.imdecode(np.frombuffer(files[0], np.uint8), 1), (96, 72)))[1]
        for many in numbers:
            archive = Path(temporary) / f"{many}.zip"
            with zipfile.ZipFile(archive, "w") as packed:
                for count in range(many):
                    packed.writestr(f"{count:07}.jpeg", small.tobytes())
            with worker(medic_predict, bundle, archive) as process:
                peaks.append(ask(process, f"{temporary}/{many}.csv"))
            found.append(figure("batch", f"{PREDICT}, {many:,} images", "peak_mib", peaks[-1]))
    name = f"peak_over_that_of_{numbers[0]:,}_images"
    return [*found, figure("batch", PREDICT, name, peaks[1] / peaks[0], target=FLAT, at_most=True)]


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--batch", action="store_true", help="instead: a folder into a CSV, and memory")
    options = parser.parse_args()
    bundle, files = network(options.data) / "fp32", photographs(options.data)
    if options.batch:
        found = batched(bundle, files, *((32, 3, (50, 500)) if options.quick else (320, 9, (1_000, 10_000))))
    else:
        found = served(bundle, files, *((32, 3) if options.quick else (160, 9)))
    show(found, origin(options.data), f"{len(files)} JPEGs of about 44 kB; EfficientNet-Lite0, random weights")
    write(found, "batch" if options.batch else NAME, options)


if __name__ == "__main__":
    run(main)
