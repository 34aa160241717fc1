"""Photographs of a camera's size to measure with: real ones where they are, drawn ones elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from medic.files import replacing
from medic.sample.fundus import fundus_photograph

WIDTH, HEIGHT = 3872, 2592


def camera_photographs(data: Path, drawn: Path, count: int = 6) -> tuple[list[bytes], str]:
    """Photographs as a fundus camera gives them, of about ten megapixels each.

    Args:
        data: folder that may hold ``retinopathy/fullres/``.
        drawn: folder for generated photographs, which are made there when there are no others.
        count: how many at most.

    Returns:
        The JPEG files' bytes, and a sentence on where they are from.
    """
    there = sorted((data / "retinopathy" / "fullres").glob("*.jpeg"))[:count]
    if there:
        return [path.read_bytes() for path in there], f"{len(there)} real fundus photographs of {WIDTH} x {HEIGHT}"
    made = []
    for number in range(count):
        path = drawn / f"{number}.jpeg"
        if not path.is_file():
            pixels = fundus_photograph(number % 5, "left", np.random.default_rng(number), (WIDTH, HEIGHT))[0]
            with replacing(path) as temporary:
                Image.fromarray(pixels).save(temporary, "JPEG", quality=86)
        made.append(path.read_bytes())
    return made, f"{count} SYNTHETIC photographs of {WIDTH} x {HEIGHT}, drawn by a program"


def distinct(data: bytes, number: int) -> bytes:
    """The same photograph as another file: its number in a comment, so that its content key is its own."""
    comment = f"number {number}".encode()
    return data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
