"""Score images with the bundle this file lies in.

As a program, from anywhere: ``python score.py eye.jpeg ...`` prints one JSON object an image.
As the entry script of a service (Azure Machine Learning, ``azmlinfsrv --entry_script score.py``): ``init()`` once, then
``run(request)`` for each request, with the bytes of an image file, or a JSON text ``{"images": ["<base64>", ...]}``.
A list has up to 64 images. There the bundle may lie below ``AZUREML_MODEL_DIR`` instead of around this file.

It needs onnxruntime, NumPy, OpenCV, Pillow and simplejpeg, and pydicom for DICOM files; the few files of the medic
library that it uses travel in the bundle.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

# A bundle is verified file by file; running it must not add any.
sys.dont_write_bytecode = True

MAX_BYTES = 32 << 20
"""Bytes that one request's body may have."""

MAX_IMAGES = 64
"""Images that one request's list may have: they are in memory together, prepared."""

STATUS = {"empty": 422, "truncated": 422, "unreadable": 422, "unsupported": 415, "too_large": 413}
"""The HTTP status for each reason why bytes are no image."""


def bundle_folder() -> Path:
    """The folder that holds this file, or else the one bundle below ``AZUREML_MODEL_DIR``.

    Raises:
        FileNotFoundError: there is no bundle, or several lie there.
    """
    here = Path(__file__).resolve().parent
    if (here / "manifest.json").is_file():
        return here
    models = Path(os.environ.get("AZUREML_MODEL_DIR") or here)
    found = sorted(models.rglob("manifest.json"))
    if len(found) != 1:
        raise FileNotFoundError(f"there are {len(found)} bundles below {models}; put one there (AZUREML_MODEL_DIR)")
    return found[0].parent


def load_library() -> None:
    """Let ``import medic`` give the files of the bundle, whether or not a medic is installed."""
    if "medic" in sys.modules:
        return
    folder = bundle_folder() / "medic"
    spec = importlib.util.spec_from_file_location(
        "medic", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["medic"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["medic"])


load_library()

from medic.deployment.bundle.predictor import Predictor  # noqa: E402
from medic.errors import ImageError, MedicError  # noqa: E402

try:
    if __name__ == "__main__":
        raise ImportError("a program needs no server")
    try:
        from azureml_inference_server_http.api.aml_request import rawhttp
        from azureml_inference_server_http.api.aml_response import AMLResponse
    except ImportError:
        from azureml.contrib.services.aml_request import rawhttp
        from azureml.contrib.services.aml_response import AMLResponse
except ImportError:

    def rawhttp(function: Any) -> Any:
        """Without Azure's server there is no request to be had: ``run`` gets bytes or text."""
        return function


@functools.cache
def predictor() -> Predictor:
    """The bundle, loaded once."""
    return Predictor(bundle_folder())


def init() -> None:
    """Load the bundle before the first request."""
    predictor()


@rawhttp
def run(body: Any) -> Any:
    """Answer one request.

    Args:
        body: an image file's bytes; or a JSON text with a list ``images`` of up to 64 base64-encoded image files; or,
            under Azure's server, the request itself, with either of them as its body.

    Returns:
        One mapping an image; for what cannot be read ``{"error": reason}`` alone. To a request, an HTTP answer: the
        mapping of the one image whose bytes came, or a list of them for JSON; status 4xx with ``error`` for what is
        refused, and ``reason`` where it is the image.
    """
    if hasattr(body, "stream"):
        answer, status = _respond(body)
        return AMLResponse(json.dumps(answer, ensure_ascii=False), status, {"Content-Type": "application/json"})
    try:
        return _answers([bytes(body)] if isinstance(body, bytes | bytearray) else _images(body))
    except MedicError as error:
        return [{"error": str(error)}]


def _respond(request: Any) -> tuple[dict | list[dict], int]:
    """The answer to a request of Azure's server (Flask's), and its HTTP status."""
    if request.method != "POST":
        return {"error": f"{request.method} is not answered here; send an image file's bytes with POST"}, 405
    kind = (request.content_type or "").partition(";")[0].strip().lower()
    is_json = kind == "application/json"
    if kind and not (is_json or kind.startswith("image/") or kind in ("application/octet-stream", "application/dicom")):
        wanted = "a type such as image/jpeg or application/octet-stream"
        return {"error": f"content type {kind!r} is no image; send the file's bytes as they are with {wanted}"}, 415
    body = _body(request)
    if body is None:
        return {"error": f"the upload has over {MAX_BYTES:,} bytes; send a smaller file", "reason": "too_large"}, 413
    try:
        return (_answers(_images(body)) if is_json else _answers([body])[0]), 200
    except ImageError as error:
        return {"error": str(error), "reason": error.reason}, STATUS[error.reason]
    except MedicError as error:
        return {"error": str(error)}, 400


def _body(request: Any) -> bytes | None:
    """The request's body; None where it is too large.

    What comes after that is read and dropped, within reason: who is cut off in the middle of an upload hears no answer.
    """
    parts, size = [], 0
    while size <= 4 * MAX_BYTES and (part := request.stream.read(1 << 20)):
        size += len(part)
        if size <= MAX_BYTES:
            parts.append(part)
    return b"".join(parts) if size <= MAX_BYTES else None


def _answers(images: list[bytes]) -> list[dict]:
    try:
        return predictor().answers(predictor().predict(images))
    except ImportError as error:  # all other packages are loaded when the program starts
        raise ImageError(
            "this is a DICOM file, and pydicom, which reads them, is not installed here; run: pip install pydicom",
            "unsupported",
        ) from error


def _images(text: str | bytes) -> list[bytes]:
    try:
        encoded = json.loads(text)["images"]
        images = [base64.b64decode(image, validate=True) for image in encoded]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MedicError('the body is no JSON of the form {"images": ["<base64>", ...]}; send that') from error
    if not images:
        raise MedicError("the list of images is empty; send one or more")
    if len(images) > MAX_IMAGES:
        raise MedicError(f"the list has {len(images)} images; send up to {MAX_IMAGES} in one request")
    return images


def main(paths: list[str]) -> int:
    """Print one JSON object an image; the exit status is 1 when one of them could not be scored."""
    if not paths:
        print("usage: python score.py IMAGE ...", file=sys.stderr)
        return 2
    failed = False
    for path in paths:
        try:
            [answer] = _answers([Path(path).read_bytes()])
        except MedicError as error:
            answer, failed = {"error": str(error)}, True
        except OSError as error:
            answer, failed = {"error": f"cannot read {path} ({error.strerror}); correct the path"}, True
        print(json.dumps({"image": path, **answer}, ensure_ascii=False))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
