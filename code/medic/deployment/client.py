"""Calling a service: image files in, a prediction out. Only httpx and NumPy are needed on this side."""

from __future__ import annotations

import contextlib
import json
import queue
import ssl
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from medic.errors import MedicError
from medic.task import Prediction, Task

Image = bytes | str | Path


class ServiceError(MedicError):
    """The service was reached and refused, or failed.

    Attributes:
        status: the HTTP status of its answer.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


def bearer(token: str | None) -> dict[str, str]:
    """The header that shows a token; none without one."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class Client:
    """A connection to one service, kept open between calls; close it or use it in a ``with`` block.

    Args:
        url: the service's address, such as ``http://127.0.0.1:8080``.
        timeout: seconds that one answer may take.
        headers: sent with every request, such as ``Authorization`` (see ``bearer``).
        certificate: PEM file of a certificate to trust, for a service whose own nobody else has signed.

    Raises:
        MedicError: the address or the certificate is none.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        certificate: str | Path | None = None,
    ):
        self.url = url.rstrip("/")
        self._timeout = timeout
        try:
            host = httpx.URL(self.url).host
            # A proxy of the environment cannot reach this machine's loopback addresses.
            near = host in ("localhost", "::1") or host.startswith("127.")
            verify = True if certificate is None else ssl.create_default_context(cafile=certificate)
            self._http = httpx.Client(
                base_url=self.url, timeout=timeout, headers=headers, verify=verify, trust_env=not near
            )
        except OSError as error:
            raise MedicError(f"{certificate} is no certificate in PEM form ({error}); correct the path") from error
        except (httpx.InvalidURL, TypeError) as error:
            raise MedicError(f"{url!r} is no address of a service; give one such as http://127.0.0.1:8080") from error

    def about(self) -> dict:
        """What the service says of itself: task, model version, notice, limits."""
        about = self._request("GET", "/")
        if not isinstance(about, dict) or about.get("service") != "medic":
            raise MedicError(f"what answers at {self.url} is no service of medic; correct the address")
        return about

    def ready(self) -> bool:
        """Whether the service is there and takes requests."""
        try:
            return self._request("GET", "/v2/health/ready").get("ready") is True
        except MedicError:
            return False

    def answer(self, image: Image) -> dict:
        """The service's own words on one image: class, probabilities, notice.

        Args:
            image: the bytes of an image file, or its path.

        Raises:
            ServiceError: the service refuses it; the message carries its reason.
            MedicError: the file cannot be read, or the service cannot be reached.
        """
        data, name = _read(image)
        try:
            headers = {"content-type": "application/octet-stream"}
            return self._request("POST", "/predict", content=data, headers=headers)
        except ServiceError as error:
            raise ServiceError(f"{name}: {error}", error.status) from error

    def score(self, images: Sequence[Image]) -> Prediction:
        """Score images one after the other.

        Args:
            images: image files, as bytes or paths.

        Returns:
            One prediction for all, in their order.

        Raises:
            ServiceError: the service refuses one; the message names it and carries the service's reason.
            MedicError: there is no image, one cannot be read, or the service cannot be reached.
        """
        if not images:
            raise MedicError("there is no image to score; give one or more")
        about = self.about()
        task, thresholds = Task.from_dict(about["task"]), about.get("thresholds")
        answers = [self.answer(image) for image in images]
        return prediction_of(task, thresholds, answers)

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, method: str, path: str, **options: Any) -> dict:
        try:
            response = self._http.request(method, path, **options)
            content = response.json()
        except httpx.TimeoutException as error:
            raise MedicError(
                f"the service at {self.url} gave no answer in {self._timeout:g} seconds; try again, or look at its log"
            ) from error
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            raise MedicError(
                f"no service answers at {self.url} ({error}); start one with medic serve BUNDLE, or correct the address"
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ServiceError(
                f"what answers at {self.url} gave status {response.status_code} and no JSON; correct the address",
                response.status_code,
            ) from error
        if not response.is_success:
            reason = content.get("error") if isinstance(content, dict) else None
            raise ServiceError(
                f"the service refused with {response.status_code}: {reason or 'no reason given'}", response.status_code
            )
        return content


def prediction_of(task: Task, thresholds: Sequence[float] | None, answers: Sequence[Mapping[str, Any]]) -> Prediction:
    """Services' answers, put together.

    Args:
        task: what they answer.
        thresholds: the model's operating point, one for each class that has one; None without.
        answers: one an image, with ``probabilities`` by class and, for ordinal tasks, ``grade_continuous``.

    Returns:
        One prediction for all, in their order.
    """
    probabilities = [[answer["probabilities"][name] for name in task.classes] for answer in answers]
    grade = [answer["grade_continuous"] for answer in answers] if task.kind == "ordinal" else None
    return Prediction(
        task,
        np.array(probabilities, np.float32),
        None if grade is None else np.array(grade, np.float32),
        None if thresholds is None else tuple(thresholds),
    )


def score(
    url: str, images: Sequence[Image], timeout: float = 30.0, headers: Mapping[str, str] | None = None
) -> Prediction:
    """Score images with the service at ``url``; see ``Client.score``."""
    with Client(url, timeout, headers) as client:
        return client.score(images)


@dataclass(frozen=True, eq=False)
class Load:
    """How a service did under a number of clients.

    Attributes:
        clients: how many asked at the same time.
        milliseconds: float64 (N,), from each request to its answer.
        per_second: answers a second, of all clients together.
    """

    clients: int
    milliseconds: np.ndarray
    per_second: float


def measure(url: str, images: Sequence[Image], requests: int, clients: int = 1) -> Load:
    """Time a service: each client has a connection of its own, and asks again as soon as it has its answer.

    Args:
        url: the service's address.
        images: image files, as bytes or paths, asked for in turn.
        requests: how many in all. Two more a client come first, untimed, to open the connections.
        clients: how many ask at the same time.

    Raises:
        ServiceError: the service refuses an image, or is too busy.
        MedicError: the service cannot be reached, or there is nothing to ask.
    """
    if not images or requests < 1 or clients < 1:
        raise MedicError("give at least one image, one request and one client")

    def ask(number: int) -> float:
        caller = free.get()
        try:
            start = time.perf_counter()
            caller.answer(images[number % len(images)])
            return 1e3 * (time.perf_counter() - start)
        finally:
            free.put(caller)

    with contextlib.ExitStack() as connections, ThreadPoolExecutor(clients) as threads:
        free: queue.Queue[Client] = queue.Queue()
        for _ in range(clients):
            free.put(connections.enter_context(Client(url)))
        list(threads.map(ask, range(2 * clients)))
        start = time.perf_counter()
        milliseconds = np.array(list(threads.map(ask, range(requests))))
        return Load(clients, milliseconds, requests / (time.perf_counter() - start))


def health(url: str, timeout: float = 5.0) -> bool:
    """Whether a service is there and takes requests."""
    with Client(url, timeout) as client:
        return client.ready()


def _read(image: Image) -> tuple[bytes, str]:
    if isinstance(image, bytes):
        return image, f"an image of {len(image)} bytes"
    try:
        return Path(image).read_bytes(), str(image)
    except OSError as error:
        raise MedicError(f"cannot read {image} ({error.strerror}); correct the path") from error
