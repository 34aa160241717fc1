"""Images a second into a CSV: ``medic predict`` and the plain loop against the bare runtime, and memory by number.

The files are photographs of about 44 kB. The plain loop decodes and scales a file (it does not crop), runs onnxruntime
on all cores and writes a row; it keeps no journal, and a bad file would end it. The limit is onnxruntime alone: batches
of 8 of pixels that are ready. Whoever has no turn is blocked. Memory is that of a fresh process that predicts so many
small generated images. As a script with ``predict BUNDLE ZIP CSV`` it is such a process, and prints one JSON object.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import Row, arguments, compared, figure, in_own_process, interleave, origin, peak_memory, rows, run, show
from measure import write as write_result
from network import jpegs, network
from photographs import distinct
from scale import write_zip
from serving import bare, plain
from turns import Worker

from medic.data.parallel import usable_cores
from medic.data.stores import open_store
from medic.deployment.bundle import Bundle
from medic.predict.batch import predict_to

NAME = "batch"
LIMIT = "limit: bare onnxruntime, batch 8"
OURS, PLAIN = "medic predict", "plain loop, an image at a time"
PHOTOGRAPHS, JPEG_BYTES = 8, 44_000
FLAT = 1.1
"""The most that ten times as many images may take in memory, against the smaller number."""


def medic_predict(bundle: str, images: str) -> Callable[[str], int]:
    """What ``medic predict`` does, its start left away; called with the CSV file, gives the number predicted."""
    cores = usable_cores()
    model, store = Bundle.load(bundle).predictor(threads=1), open_store(images)
    return lambda to: len(predict_to(model, store, store.names(), to, at_once=cores).names)


def plain_loop(bundle: str, images: str) -> Callable[[str], int]:
    """The script that one writes in ten minutes; called with the CSV file, gives the number predicted."""
    answer, files = plain(bundle), sorted(Path(images).iterdir())

    def predict(to: str) -> int:
        with open(to, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for path in files:
                writer.writerow([path.name, *answer(path.read_bytes()).values()])
        return len(files)

    return predict


def speed(bundle: str, photographs: list[bytes], number: int, rounds: int) -> list[Row]:
    """All of them in turns, on the same files in one folder."""
    with tempfile.TemporaryDirectory() as temporary:
        images, to = Path(temporary) / "images", str(Path(temporary) / "result.csv")
        images.mkdir()
        for count in range(number):
            (images / f"{count:05}.jpeg").write_bytes(distinct(photographs[count % len(photographs)], count))
        workers = [
            Worker(bare, bundle, photographs, usable_cores()),
            Worker(plain_loop, bundle, str(images)),
            Worker(medic_predict, bundle, str(images)),
        ]
        try:
            raw, loop, ours = (worker.ready() for worker in workers)
            turns = {
                PLAIN: lambda: loop.ask(to),
                OURS: lambda: ours.ask(to),
                LIMIT: lambda: raw.ask(number, False),
            }
            seconds = interleave(turns, rounds)
        finally:
            for worker in workers:
                worker.stop()
    return [*rows(NAME, seconds, reference=PLAIN, work=number), compared(NAME, seconds, OURS, LIMIT)]


def memory(bundle: str, numbers: tuple[int, int]) -> list[Row]:
    """The most memory that ``medic predict`` holds for the first and for the second number of images."""
    found, peaks = [], []
    for number in numbers:
        with tempfile.TemporaryDirectory() as temporary:
            archive = Path(temporary) / "images.zip"
            write_zip(archive, number)
            once = in_own_process(__file__, "predict", bundle, str(archive), str(Path(temporary) / "result.csv"))
        peaks.append(once["peak_mib"])
        method = f"{OURS}, {number:,} images"
        found += [figure(NAME, method, "s", once["seconds"]), figure(NAME, method, "peak_mib", once["peak_mib"])]
    few, many = peaks
    name = f"peak_over_that_of_{numbers[0]:,}_images"
    return [*found, figure(NAME, method, name, many / few, target=FLAT, at_most=True)]


def predict_once(bundle: str, images: str, to: str) -> dict:
    """One call in this process, timed with everything that it loads; its largest memory."""
    start = time.perf_counter()
    predicted = medic_predict(bundle, images)(to)
    return {"images": predicted, "seconds": time.perf_counter() - start, "peak_mib": peak_memory()}


def main() -> None:
    """Measure, print and write."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    made = network(options)
    bundle = str(made.fp32.folder)
    photographs = jpegs(made.prepared, PHOTOGRAPHS, JPEG_BYTES)
    number, rounds, numbers = (32, 3, (50, 500)) if options.quick else (320, 9, (1_000, 10_000))
    found = speed(bundle, photographs, number, rounds) + memory(bundle, numbers)
    sizes = f"{number} JPEGs of {min(map(len, photographs)):,} to {max(map(len, photographs)):,} bytes"
    show(found, origin(options.data), made.note, f"{sizes}; memory with SYNTHETIC images of 96 x 72 pixels")
    write_result(found, NAME, options)


if __name__ == "__main__":
    if sys.argv[1:2] == ["predict"]:
        print(json.dumps(predict_once(*sys.argv[2:])))
    else:
        run(main)
