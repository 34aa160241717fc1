"""Eight clients at once, a tenth of what they send bad, while workers are killed and the bundle is loaded anew.

The short form is part of ``make test``; ``make soak`` holds the load for a minute.
"""

import itertools
import sys
import threading
import time
from dataclasses import dataclass, field

import httpx
import numpy as np
import psutil
import pytest

from medic.deployment.targets import local

pytestmark = pytest.mark.servers
CLIENTS = 8


@dataclass
class Seen:
    """What became of every request."""

    milliseconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    refused: int = 0


@pytest.fixture(scope="module")
def deployment(bundle, tmp_path_factory):
    with local.deploy(bundle, tmp_path_factory.mktemp("load"), name="eyes") as deployed:
        yield deployed


def hold(url: str, images: list[bytes], expected: np.ndarray, ended: threading.Event) -> Seen:
    """Ask without a pause until told to end; every tenth request of a client is bad."""
    seen = Seen()
    bad = itertools.cycle([(images[0][:700], 422), (b"text", 415), (b"", 422), (b"\x89PNG\r\n\x1a\n" + bytes(99), 422)])

    def client(first: int) -> None:
        with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
            for number in itertools.count(first):
                if ended.is_set():
                    return
                data, status = next(bad) if number % 10 == 9 else (images[number % len(images)], 200)
                started = time.perf_counter()
                try:
                    answer = http.post("/predict", content=data)
                except httpx.HTTPError as error:
                    seen.wrong.append(repr(error))
                    continue
                seen.milliseconds.append(1e3 * (time.perf_counter() - started))
                if answer.status_code != status:
                    seen.wrong.append(f"{answer.status_code} instead of {status}: {answer.text[:200]}")
                elif status == 200:
                    given = list(answer.json()["probabilities"].values())
                    if not np.allclose(given, expected[number % len(images)], atol=1e-4):
                        seen.wrong.append(f"the answer of another image for {number % len(images)}")
                else:
                    seen.refused += 1

    threads = [threading.Thread(target=client, args=(10 * number + number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


def under_load(deployment: local.Deployment, bundle, images: list[bytes], seconds: float, every: float) -> Seen:
    """Hold the load for so long; in turns kill a worker and load the bundle anew. What became of the requests."""
    expected = bundle.predictor().predict(images).probabilities
    ended = threading.Event()
    done: list[str] = []

    def disturb() -> None:
        started = time.monotonic()
        try:
            for what in itertools.cycle(["kill", "swap"]):
                if ended.wait(every) or time.monotonic() - started > seconds:
                    break
                if what == "kill":
                    psutil.Process(deployment.pid).children()[0].kill()
                else:
                    local.deploy(bundle, deployment.space, name=deployment.name)
                done.append(what)
        finally:
            ended.set()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    seen = hold(deployment.url, images, expected, ended)
    disturber.join()
    p50, p99 = np.percentile(seen.milliseconds, [50, 99])
    print(
        f"{len(seen.milliseconds)} requests of {CLIENTS} clients in {seconds:g} s, {seen.refused} bad ones refused; "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms; {done.count('kill')} workers killed, {done.count('swap')} swaps",
        file=sys.stderr,
    )
    assert {"kill", "swap"} <= set(done)
    return seen


def test_no_good_request_is_lost(deployment, bundle, photographs, record_property):
    seen = under_load(deployment, bundle, photographs[:8], seconds=6, every=1.5)
    record_property("p99_milliseconds", float(np.percentile(seen.milliseconds, 99)))
    assert seen.wrong == []
    assert seen.refused > 0


@pytest.mark.soak
def test_no_good_request_is_lost_in_a_minute(deployment, bundle, photographs, record_property):
    seen = under_load(deployment, bundle, photographs[:8], seconds=60, every=4)
    record_property("p99_milliseconds", float(np.percentile(seen.milliseconds, 99)))
    assert seen.wrong == []
    assert seen.refused > len(seen.milliseconds) / 20
    assert deployment.status() == "ready"
