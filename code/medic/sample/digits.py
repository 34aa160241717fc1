"""The embedded sample of handwritten digits: real scans that scikit-learn carries, in MNIST's format."""

import os
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd

from medic.data.stores import Store, idx
from medic.files import write_bytes, write_text
from medic.sample.layout import PAGES, replacing_sample

TEST_IMAGES = 297
FILES = r"(train|t10k)-(images-idx3|labels-idx1)-ubyte\.gz"


def write_sample(folder: str | os.PathLike) -> None:
    """Write the four IDX files and ``SOURCES.md``; the same files each time (with the same OpenCV and zlib).

    Args:
        folder: absent, empty, or holding an earlier sample of digits, which is replaced.

    Raises:
        MedicError: the folder holds anything else, or cannot be written.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.stack([_like_mnist(scan) for scan in digits.images])
    labels = digits.target.astype(np.uint8)
    # MNIST itself has the same file names, and is told apart by what describes it.
    with replacing_sample(folder, PAGES.get_template("digits.md.j2").render(), FILES, mark="SOURCES.md") as new:
        for name, part in {"train": slice(None, -TEST_IMAGES), "t10k": slice(-TEST_IMAGES, None)}.items():
            idx.write(new / f"{name}-images-idx3-ubyte.gz", images[part])
            idx.write(new / f"{name}-labels-idx1-ubyte.gz", labels[part])


def write_as_own(folder: str | os.PathLike, records: pd.DataFrame, store: Store) -> None:
    """Write digits in two layouts in which people have their own images, to show how those are read.

    ``folder`` gets ``digit 3/00007.png`` and so on, a folder a class, and ``labels.csv`` with ``image,label``, images
    named without folder and extension. No two of the records may have the same number.
    """
    classes = "digit " + records["label"].astype(str)
    for image, name in zip(records["image"], classes, strict=True):
        write_bytes(Path(folder) / name / PurePosixPath(image).name, store.read(image))
    stems = [PurePosixPath(image).stem for image in records["image"]]
    write_text(Path(folder) / "labels.csv", pd.DataFrame({"image": stems, "label": classes}).to_csv(index=False))


def _like_mnist(scan: np.ndarray) -> np.ndarray:
    """One digit of 8 x 8 (0..16) as uint8 (28, 28), its centre of mass within half a pixel of the middle if it fits."""
    digit = cv2.resize(scan * (255 / 16), (20, 20), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    centre = np.array([digit.sum(axis=1) @ np.arange(20), digit.sum(axis=0) @ np.arange(20)]) / digit.sum()
    top, left = np.rint(13.5 - centre).astype(int).clip(0, 8)
    image = np.zeros((28, 28), np.uint8)
    image[top : top + 20, left : left + 20] = np.rint(digit)
    return image
