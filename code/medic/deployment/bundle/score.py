"""Score images with the bundle this file lies in.

As a program, from anywhere: ``python score.py eye.jpeg ...`` prints one JSON object an image.
As the entry script of Azure's server (``azmlinfsrv --entry_script score.py``): ``init()`` once, then ``run(request)``
for each request, whose body is an image file, or a JSON text ``{"images": ["<base64>", ...]}``. There the bundle may
lie below ``AZUREML_MODEL_DIR`` instead of around this file.

It needs onnxruntime, NumPy, OpenCV, Pillow and simplejpeg, and pydicom for DICOM files; the few files of the medic
library that it uses travel in the bundle.
"""

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

MAX_BYTES, MAX_IMAGES = 32 << 20, 64
"""What one request may hold: bytes, and images in its list, which are in memory together."""

BUNDLE = Path(__file__).resolve().parent
if not (BUNDLE / "manifest.json").is_file():
    models = Path(os.environ.get("AZUREML_MODEL_DIR") or BUNDLE)
    found = list(models.rglob("manifest.json"))
    if len(found) != 1:
        raise FileNotFoundError(f"there are {len(found)} bundles below {models}; put one there (AZUREML_MODEL_DIR)")
    BUNDLE = found[0].parent
if "medic" not in sys.modules:  # the bundle's own files, whether or not a medic is installed
    where = {"submodule_search_locations": [str(BUNDLE / "medic")]}
    spec = importlib.util.spec_from_file_location("medic", BUNDLE / "medic" / "__init__.py", **where)
    sys.modules["medic"] = importlib.util.module_from_spec(spec)

from medic.deployment.bundle.predictor import Predictor, http_status  # noqa: E402
from medic.errors import ImageError, MedicError  # noqa: E402


@functools.cache
def init() -> Predictor:
    """Load the bundle, once."""
    return Predictor(BUNDLE)


def score(images: list[bytes]) -> list[dict]:
    """Answer image files, one mapping each.

    Raises:
        ImageError: one of them cannot be read.
    """
    try:
        return init().answers(init().predict(images))
    except ImportError as error:  # all other packages are loaded when the program starts
        raise ImageError(
            "this is a DICOM file, and pydicom, which reads them, is not installed here; run: pip install pydicom",
            "unsupported",
        ) from error


def listed(data: bytes) -> list[bytes]:
    """Return the images of a request in JSON."""
    try:
        images = [base64.b64decode(image) for image in json.loads(data)["images"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MedicError('the body is no JSON of the form {"images": ["<base64>", ...]}; send that') from error
    if not 1 <= len(images) <= MAX_IMAGES:
        raise MedicError(f"the list has {len(images)} images; send 1 to {MAX_IMAGES} in one request")
    return images


if __name__ == "__main__":
    if failed := len(sys.argv) == 1:
        print("usage: python score.py IMAGE ...", file=sys.stderr)
    for path in sys.argv[1:]:
        try:
            [answer] = score([Path(path).read_bytes()])
        except (MedicError, OSError) as error:
            answer, failed = {"error": f"{error}; correct the path" if isinstance(error, OSError) else str(error)}, True
        print(json.dumps({"image": path, **answer}, ensure_ascii=False))
    sys.exit(int(failed))

from azureml_inference_server_http.api.aml_request import rawhttp  # noqa: E402
from azureml_inference_server_http.api.aml_response import AMLResponse  # noqa: E402


@rawhttp
def run(request: Any) -> AMLResponse:
    """Answer one request (Flask's), whose body is an image file, or JSON with up to 64.

    Returns:
        The mapping of the one image whose bytes came, or a list of them for JSON; status 4xx with ``error`` for what is
        refused, and ``reason`` where it is the image.
    """
    data, status = request.stream.read(MAX_BYTES + 1), 200
    try:
        if len(data) > MAX_BYTES:
            raise ImageError(f"the upload has over {MAX_BYTES:,} bytes; send a smaller file", "too_large")
        answer = score(listed(data)) if request.mimetype == "application/json" else score([data])[0]
    except MedicError as error:
        answer, status = {"error": str(error)}, http_status(error)
        if isinstance(error, ImageError):
            answer["reason"] = error.reason
    if request.method != "POST":
        answer, status = {"error": f"{request.method} is not answered; send an image file's bytes with POST"}, 405
    return AMLResponse(json.dumps(answer, ensure_ascii=False), status, {"Content-Type": "application/json"})
