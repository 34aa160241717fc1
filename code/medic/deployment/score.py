"""Score images with the bundle this file lies in.

As a program, from anywhere: ``python score.py eye.jpeg ...`` prints one JSON object an image.
As the entry script of a service (Azure Machine Learning): ``init()`` once, then ``run(body)`` for each request, with
the bytes of an image file or a JSON text ``{"images": ["<base64>", ...]}``.

It needs onnxruntime, NumPy, OpenCV and Pillow, and pydicom for DICOM files; the few files of the medic library that it
uses lie beside it.
"""

from __future__ import annotations

import base64
import functools
import json
import sys
from pathlib import Path

# A bundle is verified file by file; running it must not add any.
sys.dont_write_bytecode = True

from medic.deployment.predict import Predictor  # noqa: E402
from medic.errors import MedicError  # noqa: E402


@functools.cache
def predictor() -> Predictor:
    """The bundle, loaded once."""
    return Predictor(Path(__file__).resolve().parent)


def init() -> None:
    """Load the bundle before the first request."""
    predictor()


def run(body: bytes | str) -> list[dict]:
    """Answer one request.

    Args:
        body: an image file's bytes, or a JSON text with a list ``images`` of base64-encoded image files.

    Returns:
        One mapping an image; for what cannot be read ``{"error": reason}`` alone.
    """
    try:
        images = [bytes(body)] if isinstance(body, bytes | bytearray) else _images(body)
        return predictor().answers(predictor().predict(images))
    except MedicError as error:
        return [{"error": str(error)}]


def _images(text: str) -> list[bytes]:
    try:
        encoded = json.loads(text)["images"]
        images = [base64.b64decode(image, validate=True) for image in encoded]
    except (ValueError, KeyError, TypeError) as error:
        raise MedicError('the body is no JSON of the form {"images": ["<base64>", ...]}; send that') from error
    if not images:
        raise MedicError("the list of images is empty; send one or more")
    return images


def main(paths: list[str]) -> int:
    """Print one JSON object an image; the exit status is 1 when one of them could not be scored."""
    if not paths:
        print("usage: python score.py IMAGE ...", file=sys.stderr)
        return 2
    failed = False
    for path in paths:
        try:
            [answer] = predictor().answers(predictor().predict([Path(path).read_bytes()]))
        except MedicError as error:
            answer, failed = {"error": str(error)}, True
        except OSError as error:
            answer, failed = {"error": f"cannot read {path} ({error.strerror}); correct the path"}, True
        print(json.dumps({"image": path, **answer}, ensure_ascii=False))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
