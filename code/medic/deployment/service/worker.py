"""A process that computes: it reads questions from a pipe and answers them, one at a time.

``workers`` starts these. Images are decoded here and nowhere else in the service: what a broken or
wicked file does to a decoder, it does to one of several replaceable processes. Frames of plain bytes go both ways, a
JSON header and binary parts; nothing is unpickled.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import struct
import sys
from collections.abc import Sequence
from typing import BinaryIO

import cv2
import numpy as np

from medic.deployment.bundle.predictor import Predictor
from medic.errors import ImageError, MedicError
from medic.task import Prediction

PREFIX = struct.Struct(">I")
"""A frame starts with the length of its header."""

PICTURE_QUALITY = 90
"""JPEG quality, 0 to 100, of the picture that goes with a heatmap."""


def frame(header: dict, parts: Sequence[bytes] = ()) -> list[bytes]:
    """A message as bytes to write: the header's length, the header as JSON with the parts' sizes, the parts."""
    text = json.dumps({**header, "sizes": [len(part) for part in parts]}).encode()
    return [PREFIX.pack(len(text)), text, *parts]


def main(folder: str) -> int:
    """Load the bundle in a folder, say so, and answer until the pipe is closed."""
    # What a library prints must not get between the frames.
    answers, questions = os.fdopen(os.dup(1), "wb"), sys.stdin.buffer
    os.dup2(2, 1)
    # The service says when to end, by closing the pipe; a signal to the whole group would cut requests off.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        # One thread a request and as many requests as cores: the most answers a second from a machine.
        predictor = Predictor(folder, threads=1)
        size = predictor.preprocessing.size
        predictor.predict_pixels(np.zeros((1, size, size, 3), np.uint8))
    except MedicError as error:
        _send(answers, {"error": str(error)})
        return 1
    _send(answers, {"version": predictor.manifest.version})
    while (question := _receive(questions)) is not None:
        _send(answers, *_answered(predictor, *question))
    return 0


def _answered(predictor: Predictor, question: dict, parts: list[bytes]) -> tuple[dict, list[bytes]]:
    try:
        return _answer(predictor, question["kind"], parts)
    except ImageError as error:
        return {"error": str(error), "reason": error.reason}, []
    except MedicError as error:
        return {"error": str(error)}, []
    except Exception:  # whatever else: the log has it, and the next question is answered again
        logging.getLogger("medic").exception("a worker failed")
        return {"failed": True}, []


def _answer(predictor: Predictor, kind: str, parts: list[bytes]) -> tuple[dict, list[bytes]]:
    if kind == "files":
        return _to_frames(predictor.predict(parts))
    if kind == "pixels":
        size = predictor.preprocessing.size
        return _to_frames(predictor.predict_pixels(np.frombuffer(parts[0], np.uint8).reshape(-1, size, size, 3)))
    explanation = predictor.explain(parts[0])
    header, arrays = _to_frames(explanation.prediction)
    encoded = cv2.imencode(
        ".jpeg", cv2.cvtColor(explanation.pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY]
    )[1]
    heatmap = explanation.heatmap
    header |= {"of": explanation.of, "rows": None if heatmap is None else heatmap.round(3).astype(float).tolist()}
    return header, [*arrays, encoded.tobytes()]


def _to_frames(prediction: Prediction) -> tuple[dict, list[bytes]]:
    arrays = [prediction.probabilities] if prediction.grade is None else [prediction.probabilities, prediction.grade]
    return {"images": len(prediction)}, [np.ascontiguousarray(array, np.float32).tobytes() for array in arrays]


def _send(file: BinaryIO, header: dict, parts: Sequence[bytes] = ()) -> None:
    file.writelines(frame(header, parts))
    file.flush()


def _receive(file: BinaryIO) -> tuple[dict, list[bytes]] | None:
    """The next message; None when the other side has closed the pipe."""
    prefix = file.read(PREFIX.size)
    if len(prefix) < PREFIX.size:
        return None
    header = json.loads(file.read(PREFIX.unpack(prefix)[0]))
    return header, [file.read(size) for size in header["sizes"]]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        sys.exit(main(sys.argv[1]))
    except BrokenPipeError:  # the service is gone, and with it whoever asked
        sys.exit(0)
