"""Preparing camera JPEGs: from the original's bytes to the JPEG of the cropped 512 px square.

Compared in one interleaved run, one thread each: the reference method, the usual alternatives (each with the library's
own crop, its own decoder and its own resize), ours, and the physical limit: decoding at reduced scale and nothing else.
Quality is the PSNR against decoding everything and averaging over areas, with the same crop.
"""

import io
import itertools
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from measure import Row, arguments, compared, figure, interleave, rows, run, show, write
from peers import reference
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2 import functional as v2

from medic.data.images.crop import find_disc, window
from medic.data.images.decode import decode
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import JPEG_QUALITY, prepare
from medic.data.stores import open_store
from medic.sample.fundus import fundus_photograph

NAME = "preparation"
SIZE = 512
REFERENCE = "reference method"
OURS = "medic"
LIMIT = "raw scaled decode"
FASTER, QUALITY, OF_LIMIT = 8.5, 47.0, 1.3
WIDTH, HEIGHT = 3872, 2592

Decode = Callable[[bytes], np.ndarray]
Resize = Callable[[np.ndarray], np.ndarray]


def to_jpeg(pixels: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()


def pillow_draft(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (SIZE, SIZE))
    return np.asarray(image)


def opencv_full(data: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def scale_of(data: bytes) -> int:
    """Return the flag of the smallest scale that keeps ``SIZE`` pixels; the header is read for it with Pillow."""
    with Image.open(io.BytesIO(data)) as image:
        factor = max((f for f in (1, 2, 4, 8) if min(image.size) // f >= SIZE), default=1)
    return cv2.IMREAD_COLOR if factor == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}")


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


def camera_photographs(data: Path, count: int) -> tuple[list[bytes], str]:
    """Return JPEG files as a fundus camera gives them, of about ten megapixels, and a sentence on their origin.

    Photographs are drawn where ``data`` holds no ``retinopathy/fullres/``.
    """
    there = sorted((data / "retinopathy" / "fullres").glob("*.jpeg"))[:count]
    if there:
        return [path.read_bytes() for path in there], f"{len(there)} real fundus photographs of {WIDTH} x {HEIGHT}"
    drawn = (fundus_photograph(n % 5, "left", np.random.default_rng(n), (WIDTH, HEIGHT))[0] for n in range(count))
    return [to_jpeg(pixels) for pixels in drawn], f"{count} SYNTHETIC photographs of {WIDTH} x {HEIGHT}"


def write_originals(folder: Path, photographs: list[bytes], images: int) -> pd.DataFrame:
    """Write files to prepare, each with its number as a comment, so that none is a copy; return their records."""
    names = [f"{number}.jpeg" for number in range(images)]
    for number, name in enumerate(names):
        data, comment = photographs[number % len(photographs)], f"number {number}".encode()
        marked = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        (folder / name).write_bytes(marked)
    return pd.DataFrame({"image": names, "patient": names, "split": "train", "label": 0})


def whole_set(photographs: list[bytes], images: int, rounds: int) -> list[Row]:
    """Time ``prepare`` itself, with one thread and with one a core: reading, hashing, writing and journal included."""
    with tempfile.TemporaryDirectory() as originals, tempfile.TemporaryDirectory() as made:
        records, number = write_originals(Path(originals), photographs, images), itertools.count()

        cores = os.sched_getaffinity(0)

        def anew(threads: int) -> None:
            os.sched_setaffinity(0, sorted(cores)[:threads])  # one thread a core
            prepare(records, open_store(originals), Path(made) / str(next(number)), Preprocessing(SIZE))
            os.sched_setaffinity(0, cores)

        methods = {f"medic.prepare, threads: {count}": partial(anew, count) for count in {1, len(cores)}}
        reference, metric = "medic.prepare, threads: 1", "images_per_s_on_disk"
        return rows(NAME, interleave(methods, rounds), reference=reference, work=images, metric=metric)


def main() -> None:
    options = arguments(__doc__.splitlines()[0]).parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    photographs, source = camera_photographs(options.data, 2 if options.quick else 6)
    table = compare(photographs, 3 if options.quick else 12)
    table += whole_set(photographs, 6 if options.quick else 24, 2 if options.quick else 5)
    show(table, f"data: {source}; one thread for each method; psnr_db: low and high are the extremes")
    write(table, NAME, options)


if __name__ == "__main__":
    run(main)
