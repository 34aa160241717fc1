"""What the service says of itself while it runs: Prometheus metrics and one JSON line an event. Never an image."""

import json
import logging
import sys
import time
from types import SimpleNamespace

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from medic.deployment.bundle.manifest import Manifest

REQUESTS = Counter("medic_requests", "Requests answered, by route and status", ["route", "status"])
SECONDS = Histogram(
    "medic_request_seconds",
    "Seconds from request to answer, by route",
    ["route"],
    buckets=(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
REJECTED = Counter("medic_inputs_rejected", "Inputs that were refused, by reason", ["reason"])
ANSWERS = Counter("medic_answers", "Images answered, by the class decided (one count for each of several)", ["decided"])
REFERRED = Counter("medic_answers_referred", "Images left to a person, by reason", ["why"])


def exposition(manifest: Manifest) -> bytes:
    """Return the metrics of all workers together in Prometheus's text format, and which bundle answers."""
    labels = {"task": manifest.task.name, "version": manifest.version, "precision": manifest.precision}
    model = GaugeMetricFamily("medic_model", "1 for the bundle that answers now", labels=labels)
    model.add_metric(list(labels.values()), 1)
    collect = MultiProcessCollector(CollectorRegistry()).collect
    return generate_latest(SimpleNamespace(collect=lambda: [*collect(), model]))


class JsonLines(logging.Formatter):
    """A log record as one line of JSON: time (UTC), level, event, and what was given as ``extra={"facts": ...}``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; an exception's traceback stands in it, with no value of a variable."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        line = {"time": when, "level": record.levelname.lower(), "event": record.getMessage()}
        line |= getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_as_json() -> None:
    """Send all logging of this process to the standard error output, as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("medic").setLevel(logging.INFO)
    # kserve reports each refused request with a traceback; the service's own line says it.
    logging.getLogger("kserve").setLevel(logging.CRITICAL)
