"""The embedded sample of handwritten digits: real scans that scikit-learn carries, in MNIST's format."""

import os
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pandas as pd

from medic.data.stores import Store, idx
from medic.files import write_bytes, write_text
from medic.sample.layout import replacing_sample

SIDE = 28
DIGIT_SIDE = 20
TEST_IMAGES = 297
FILES = {
    "train-images-idx3-ubyte.gz": "1,500 images, uint8 28 x 28",
    "train-labels-idx1-ubyte.gz": "their labels, 0..9",
    "t10k-images-idx3-ubyte.gz": "297 images to test on",
    "t10k-labels-idx1-ubyte.gz": "their labels",
}
TITLE = "Handwritten digits: 1,797 scans from the UCI repository"
ABOUT = f"""# {TITLE}

Real handwriting, not generated. Alpaydin E, Kaynak C (1998), Optical Recognition of Handwritten Digits, UCI Machine
Learning Repository, doi 10.24432/C50P49. Licence: CC BY 4.0. The pixels are those that scikit-learn carries
(`sklearn.datasets.load_digits`), which is the test part of the UCI set.

| file | content |
| --- | --- |
{chr(10).join(f"| `{name}` | {content} |" for name, content in FILES.items())}

Made by `medic sample` (in Python: `medic.sample.digits.write_sample`), without a download. What was changed:

- An original has 8 x 8 values of 0 to 16: of a scan of 32 x 32 black or white pixels, how many of each 4 x 4 are ink.
  It is enlarged to {DIGIT_SIDE} x {DIGIT_SIDE} by cubic interpolation, its values times 255/16, and laid into
  {SIDE} x {SIDE} with its centre of mass in the middle, as MNIST's digits are. It stays blurred beside them.
- The file names are MNIST's, so that whatever reads this reads MNIST.
- The first 1,500 images train and the last 297 test. Thirteen people wrote the digits and the file does not say who
  wrote which. Neighbours in it resemble each other as one hand's digits do: a support vector machine that is tested
  on the last 297 has 95 % right, and 99 % on 297 drawn at random. The order keeps most writers on one side; a random
  draw would not. One writer may still be on both.
"""


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
    with replacing_sample(folder, TITLE, "|".join(FILES), mark="SOURCES.md") as new:
        write_text(new / "SOURCES.md", ABOUT)
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
    digit = cv2.resize(scan * (255 / 16), (DIGIT_SIDE, DIGIT_SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 255)
    image = np.zeros((SIDE, SIDE), np.uint8)
    start = []
    for axis in (0, 1):
        centre = (digit.sum(axis=1 - axis) @ np.arange(DIGIT_SIDE)) / digit.sum()
        start.append(int(np.clip(round((SIDE - 1) / 2 - centre), 0, SIDE - DIGIT_SIDE)))
    top, left = start
    image[top : top + DIGIT_SIDE, left : left + DIGIT_SIDE] = np.rint(digit)
    return image
