"""Preparing camera JPEGs: from the original's bytes to the JPEG of the cropped 512 px square.

Compared in one interleaved run, one thread each: the reference method, the usual alternatives (each with the library's
own crop, its own decoder and its own resize), ours, and the physical limit: decoding at reduced scale and nothing else.
Quality is the PSNR against decoding everything and averaging over areas, with the same crop.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import reference
import scale
import torch
from measure import ROOT, Row, arguments, compared, figure, interleave, rows, run, show, write
from photographs import camera_photographs, distinct
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as v2

from medic.data.images.crop import find_disc, window
from medic.data.images.decode import decode
from medic.data.images.preprocess import Preprocessing
from medic.data.parallel import usable_cores
from medic.data.prepare import JPEG_QUALITY, prepare
from medic.data.stores import open_store

NAME = "preparation"
SIZE = 512
REFERENCE = "reference method"
OURS = "medic"
LIMIT = "raw scaled decode"
FASTER, QUALITY, OF_LIMIT = 8.5, 47.0, 1.3

Decode = Callable[[bytes], np.ndarray]
Resize = Callable[[np.ndarray], np.ndarray]


def to_jpeg(pixels: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def pillow_full(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pillow_draft(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIZE, SIZE))
    return np.asarray(image)


def opencv_full(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def scale_of(data: bytes) -> int:
    """The flag of the smallest scale that keeps ``SIZE`` pixels; the header is read for it with Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        factor = max((f for f in (1, 2, 4, 8) if min(image.size) // f >= SIZE), default=1)
    return {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }[factor]


def raw(data: bytes, scale: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), scale)


def opencv_reduced(data: bytes) -> np.ndarray:
    return cv2.cvtColor(raw(data, scale_of(data)), cv2.COLOR_BGR2RGB)


def torchvision_full(data: bytes) -> np.ndarray:
    tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    return tensor.permute(1, 2, 0).numpy()


def lanczos(cut: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(cut).resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def area(cut: np.ndarray) -> np.ndarray:
    return cv2.resize(cut, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def torchvision_resize(cut: np.ndarray) -> np.ndarray:
    tensor = torch.from_numpy(cut).permute(2, 0, 1)
    return v2.resize(tensor, [SIZE, SIZE], antialias=True).permute(1, 2, 0).contiguous().numpy()


ALTERNATIVES: dict[str, tuple[Decode, Resize]] = {
    "Pillow full, Lanczos": (pillow_full, lanczos),
    "Pillow draft, Lanczos": (pillow_draft, lanczos),
    "OpenCV full, area": (opencv_full, area),
    "OpenCV reduced, area": (opencv_reduced, area),
    "torchvision.io, v2 resize": (torchvision_full, torchvision_resize),
}


def usual_way(data: bytes, frame_of: Decode, resize: Resize) -> np.ndarray:
    frame = frame_of(data)
    return resize(window(frame, *find_disc(frame).square))


def psnr(data: bytes, frame: np.ndarray, pixels: np.ndarray) -> float:
    """Of ``pixels``, cut from ``frame``, against the same cut of the whole decoded photograph, averaged over areas."""
    full = opencv_full(data)
    factor = full.shape[0] / frame.shape[0]
    cut = window(full, *(round(value * factor) for value in find_disc(frame).square))
    return cv2.PSNR(area(cut), pixels)


def compare(photographs: list[bytes], rounds: int) -> list[Row]:
    ours = Preprocessing(SIZE)
    for_each: dict[str, Callable[[bytes], object]] = {
        REFERENCE: lambda data: to_jpeg(reference.pixels(data, SIZE)),
        **{
            name: partial(lambda data, how: to_jpeg(usual_way(data, *how)), how=how)
            for name, how in ALTERNATIVES.items()
        },
        OURS: lambda data: to_jpeg(ours.pixels(data)),
    }
    methods = {
        name: partial(lambda work: [work(data) for data in photographs], work) for name, work in for_each.items()
    }
    scales = [scale_of(data) for data in photographs]
    methods[LIMIT] = lambda: [raw(data, scale) for data, scale in zip(photographs, scales, strict=True)]
    seconds = interleave(methods, rounds)
    table = rows(NAME, seconds, reference=REFERENCE, work=len(photographs), targets={OURS: FASTER})
    table.append(compared(NAME, seconds, OURS, LIMIT, target=OF_LIMIT, at_most=True))
    for name, (frame_of, resize) in ALTERNATIVES.items():
        if frame_of is opencv_full:  # what the others are compared with
            continue
        found = [psnr(data, frame_of(data), usual_way(data, frame_of, resize)) for data in photographs]
        table.append(quality(name, found))
    found = [psnr(data, decode(data, at_least=SIZE), ours.pixels(data)) for data in photographs]
    return [*table, quality(OURS, found, QUALITY)]


def quality(method: str, found: list[float], target: float | None = None) -> Row:
    return figure(NAME, method, "psnr_db", float(np.median(found)), spread=(min(found), max(found)), target=target)


def whole_sets(photographs: list[bytes], images: int, rounds: int) -> list[Row]:
    """``prepare`` itself: reading, hashing, writing and the journal included, from a folder and from zip files."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        stores = write_stores(photographs, folder, images)
        names = [f"{number}.jpeg" for number in range(images)]
        records = pd.DataFrame({"image": names, "patient": names, "split": "train", "label": 0})
        cores = usable_cores()
        threads = {
            f"{count} thread{'s' * (count > 1)}": count for count in dict.fromkeys((1, 2, cores)) if count <= cores
        }
        numbers = iter(range(1_000_000))

        def prepared_anew(store: Path, workers: int) -> None:
            prepare(records, open_store(store), folder / f"set {next(numbers)}", Preprocessing(SIZE), workers=workers)

        methods = {
            f"medic.prepare from a {kind}, {name}": partial(prepared_anew, store, workers)
            for kind, store in stores.items()
            for name, workers in threads.items()
            if workers == 1 or kind == "folder"
        }
        first = next(iter(methods))
        return rows(NAME, interleave(methods, rounds), reference=first, work=images, metric="images_per_s_on_disk")


def write_stores(photographs: list[bytes], folder: Path, images: int) -> dict[str, Path]:
    files = {f"{number}.jpeg": distinct(photographs[number % len(photographs)], number) for number in range(images)}
    stores = {
        "folder": folder / "originals",
        "stored zip": folder / "stored.zip",
        "deflated zip": folder / "deflated.zip",
    }
    stores["folder"].mkdir()
    for name, data in files.items():
        (stores["folder"] / name).write_bytes(data)
    for kind, how in (("stored zip", zipfile.ZIP_STORED), ("deflated zip", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(stores[kind], "w", how) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
    return stores


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--scale", action="store_true", help="instead: time and memory for 1,000 to 100,000 images")
    options = parser.parse_args()
    if options.scale:
        table = scale.curve(
            (1000,) if options.quick else (1000, 10_000, 100_000), 10_000 if options.quick else 1_000_000
        )
        show(table, "data: SYNTHETIC photographs of 96 x 72 in a stored zip, to 32 px; each number in its own process")
        write(table, scale.NAME, options)
        return
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    photographs, origin = camera_photographs(
        options.data, ROOT / "outputs" / "benchmarks" / "photographs", 2 if options.quick else 6
    )
    table = compare(photographs, 3 if options.quick else 12)
    table += whole_sets(photographs, 6 if options.quick else 24, 2 if options.quick else 5)
    show(
        table,
        f"data: {origin}; one thread for each method; psnr_db: low and high are the extremes",
        "ratios of medic.prepare are to its first row (a folder, one thread)",
    )
    write(table, NAME, options)


if __name__ == "__main__":
    run(main)
