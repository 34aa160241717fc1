"""Calling a service: image files in, a prediction out."""

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tenacity

from medic.errors import MedicError
from medic.task import Prediction, Task

Image = bytes | str | Path


class ServiceError(MedicError):
    """The service refused or failed: ``status`` is the HTTP status of its answer; 0 where the connection broke."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


def bearer(token: str | None) -> dict[str, str]:
    """Return the header that shows a token; none without one."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class Client:
    """A connection to one service, kept open between calls; close it by using it in a ``with`` block.

    A request that finds the connection broken, or the service busy, is sent a second time: a worker that is killed, or
    that gives way to another bundle, loses nothing. Safe to call from several threads.

    Args:
        url: the service's address, such as ``http://127.0.0.1:8080``.
        timeout: seconds that one answer may take.
        headers: sent with every request, such as ``Authorization`` (see ``bearer``).
        certificate: PEM file of a certificate to trust, for a service whose own nobody else has signed.
        path: where images are sent.

    Raises:
        MedicError: the address or the certificate is none.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        certificate: str | Path | None = None,
        path: str = "/predict",
    ):
        self.url, self._path = url.rstrip("/"), path
        try:
            verify = True if certificate is None else ssl.create_default_context(cafile=certificate)
            # A proxy of the environment cannot reach this machine's loopback addresses.
            proxies = not httpx.URL(self.url).host.startswith(("127.", "localhost", "::1"))
            self._http = httpx.Client(
                base_url=self.url, timeout=timeout, headers=headers, verify=verify, trust_env=proxies
            )
        except (OSError, ImportError, ValueError, httpx.InvalidURL) as error:  # the proxy's may be wrong, too
            wrong = f"certificate {certificate}" if isinstance(error, OSError) else f"address {url!r}"
            raise MedicError(f"the {wrong} cannot be used ({error}); correct it") from error

    def about(self) -> dict:
        """Return what the service says of itself: task, model version, notice, limits."""
        about = self._request("GET", "/")
        if not isinstance(about, dict) or about.get("service") != "medic":
            raise MedicError(f"what answers at {self.url} is no service of medic; correct the address")
        return about

    def ready(self) -> bool:
        """Return whether the service is there and takes requests."""
        try:
            return self._request("GET", "/v2/health/ready")["ready"] is True
        except (MedicError, KeyError, TypeError):
            return False

    def answer(self, image: Image) -> dict:
        """Return the service's own words on one image: class, probabilities, notice; with calibration set and referral.

        Args:
            image: the bytes of an image file, or its path.

        Raises:
            ServiceError: the service refuses it; the message carries its reason.
            MedicError: the file cannot be read, or the service cannot be reached.
        """
        if isinstance(image, bytes):
            return self._request("POST", self._path, image)
        try:
            return self._request("POST", self._path, Path(image).read_bytes(), f"{image}: ")
        except OSError as error:
            raise MedicError(f"cannot read {image} ({error.strerror}); correct the path") from error

    def score(self, images: Sequence[Image]) -> Prediction:
        """Score images one after the other; one prediction for all, in their order.

        Raises:
            ServiceError: the service refuses one; the message names it and carries the service's reason.
            MedicError: there is no image, one cannot be read, or the service cannot be reached.
        """
        if images:
            self.about()
        return prediction_of([self.answer(image) for image in images])

    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: getattr(error, "status", None) in (0, 503)),
        stop=tenacity.stop_after_attempt(2),
        wait=lambda state: 1 if state.outcome.exception().status == 503 else 0,  # seconds
        reraise=True,
    )
    def _request(self, method: str, path: str, content: bytes | None = None, name: str = "") -> Any:
        try:
            found = self._http.request(method, path, content=content)
            answer = found.json()
        except httpx.TimeoutException as error:
            raise MedicError(f"the service at {self.url} gave no answer in time; try again, or read its log") from error
        except httpx.HTTPError as error:
            said = f"no service answers at {self.url} ({error}); start one with medic serve, or correct the address"
            raise ServiceError(said, 0) from error
        except ValueError as error:
            said = f"what answers at {self.url} gave status {found.status_code} and no JSON; correct the address"
            raise ServiceError(said, found.status_code) from error
        if not found.is_success:
            reason = answer.get("error", answer) if isinstance(answer, dict) else answer
            raise ServiceError(f"{name}the service refused with {found.status_code}: {reason}", found.status_code)
        return answer

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()


class AsyncClient(Client):
    """As ``Client``, with ``answer`` to be awaited, up to 32 at a time, within ``async with``."""

    _threads = ThreadPoolExecutor(32)

    async def answer(self, image: Image) -> dict:
        """See ``Client.answer``."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, super().answer, image)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._http.close()


def prediction_of(answers: Sequence[Mapping[str, Any]]) -> Prediction:
    """Put the answers of one service together, one an image, as ``Client.answer`` gives them.

    Raises:
        MedicError: there is none.
    """
    if not answers:
        raise MedicError("there is no image to score; give one or more")
    first = answers[0]
    kind = "ordinal" if "grade" in first else "multilabel" if "classes" in first else "multiclass"
    task = Task(first["task"], kind, tuple(first["probabilities"]))
    thresholds = [first["threshold"]] if "threshold" in first else [*first.get("thresholds", {}).values()]
    probabilities = np.array(
        [[answer["probabilities"][name] for name in task.classes] for answer in answers], np.float32
    )
    grade = np.array([answer["grade_continuous"] for answer in answers], np.float32) if kind == "ordinal" else None
    return Prediction(task, probabilities, grade, tuple(thresholds) or None)
