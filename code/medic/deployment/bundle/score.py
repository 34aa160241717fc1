"""Score images with the bundle this file lies in.

As a program, from anywhere: ``python score.py eye.jpeg ...`` prints one JSON object an image.
As the entry script of a service (Azure Machine Learning, ``azmlinfsrv --entry_script score.py``): ``init()`` once, then
``run(request)`` for each request, with the bytes of an image file, or a JSON text ``{"images": ["<base64>", ...]}``.
There the bundle may lie below ``AZUREML_MODEL_DIR`` instead of around this file.

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
STATUS = {"unsupported": 415, "too_large": 413}
"""The HTTP status for a reason why bytes are no image; 422 for the others."""


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

from medic.deployment.bundle.predictor import Predictor  # noqa: E402
from medic.errors import ImageError, MedicError  # noqa: E402

try:
    if __name__ == "__main__":
        raise ImportError("a program needs no server")
    from azureml_inference_server_http.api.aml_request import rawhttp
    from azureml_inference_server_http.api.aml_response import AMLResponse
except ImportError:

    def rawhttp(function: Any) -> Any:
        """Without Azure's server there is no request to be had: ``run`` gets bytes or text."""
        return function


@functools.cache
def init() -> Predictor:
    """Load the bundle, once."""
    return Predictor(BUNDLE)


@rawhttp
def run(body: Any) -> Any:
    """Answer one request.

    Args:
        body: an image file's bytes; or a JSON text with a list ``images`` of up to 64 base64-encoded image files; or,
            under Azure's server, the request itself (Flask's), with either of them as its body.

    Returns:
        One mapping an image; for what cannot be read ``{"error": reason}`` alone. To a request, an HTTP answer: the
        mapping of the one image whose bytes came, or a list of them for JSON; status 4xx with ``error`` for what is
        refused, and ``reason`` where it is the image.
    """
    if not hasattr(body, "stream"):
        try:
            return _answers(body)
        except MedicError as error:
            return [{"error": str(error)}]
    data = body.stream.read(MAX_BYTES + 1)
    try:
        if body.method != "POST":
            answer, status = {"error": f"{body.method} is not answered; send an image file's bytes with POST"}, 405
        elif len(data) > MAX_BYTES:
            raise ImageError(f"the upload has over {MAX_BYTES:,} bytes; send a smaller file", "too_large")
        elif body.mimetype == "application/json":
            answer, status = _answers(data.decode()), 200
        else:
            answer, status = _answers(data)[0], 200
    except ImageError as error:
        answer, status = {"error": str(error), "reason": error.reason}, STATUS.get(error.reason, 422)
    except (MedicError, UnicodeDecodeError) as error:
        answer, status = {"error": str(error)}, 400
    return AMLResponse(json.dumps(answer, ensure_ascii=False), status, {"Content-Type": "application/json"})


def _answers(body: bytes | str) -> list[dict]:
    """Answer one image's bytes, or a JSON text with several."""
    try:
        encoded = None if isinstance(body, bytes | bytearray) else json.loads(body)["images"]
        images = [bytes(body)] if encoded is None else [base64.b64decode(image) for image in encoded]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MedicError('the body is no JSON of the form {"images": ["<base64>", ...]}; send that') from error
    if not 1 <= len(images) <= MAX_IMAGES:
        raise MedicError(f"the list has {len(images)} images; send 1 to {MAX_IMAGES} in one request")
    try:
        return init().answers(init().predict(images))
    except ImportError as error:  # all other packages are loaded when the program starts
        raise ImageError(
            "this is a DICOM file, and pydicom, which reads them, is not installed here; run: pip install pydicom",
            "unsupported",
        ) from error


if __name__ == "__main__":
    if failed := len(sys.argv) == 1:
        print("usage: python score.py IMAGE ...", file=sys.stderr)
    for path in sys.argv[1:]:
        try:
            [answer] = _answers(Path(path).read_bytes())
        except (MedicError, OSError) as error:
            answer, failed = {"error": f"{error}; correct the path" if isinstance(error, OSError) else str(error)}, True
        print(json.dumps({"image": path, **answer}, ensure_ascii=False))
    sys.exit(int(failed))
