"""What the service says of itself while it runs: Prometheus metrics and one JSON line an event. Never an image."""

from __future__ import annotations

import json
import logging
import sys
import time

from prometheus_client import Counter, Gauge, Histogram

from medic.task import Prediction

REQUESTS = Counter("medic_requests", "Requests answered, by route and status", ["route", "status"])
SECONDS = Histogram(
    "medic_request_seconds",
    "Seconds from request to answer, by route",
    ["route"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
UNDER_WAY = Gauge("medic_requests_under_way", "Requests that are being received, computed or answered")
REJECTED = Counter("medic_inputs_rejected", "Inputs that were refused, by reason", ["reason"])
ANSWERS = Counter("medic_answers", "Images answered, by the class decided (one count for each of several)", ["decided"])
MODEL = Gauge("medic_model", "1 for the bundle that answers now", ["task", "version", "precision"])


def count_answers(prediction: Prediction) -> None:
    """Count what was decided for each image. A shift of these shares is often the first sign of other inputs."""
    classes = prediction.task.classes
    for decided in prediction.decided:
        if prediction.task.kind == "multilabel":
            called = [name for name, present in zip(classes, decided, strict=True) if present]
            for name in called or ["none"]:
                ANSWERS.labels(name).inc()
        else:
            ANSWERS.labels(classes[decided]).inc()


class JsonLines(logging.Formatter):
    """A log record as one line of JSON: time (UTC), level, event, and what was given as ``extra={"facts": ...}``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; an exception's traceback stands in it, with no value of a variable."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json(level: int = logging.INFO) -> None:
    """Send all logging of this process to the standard error output, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("medic").setLevel(level)
