"""Calling a service: image files in, a prediction out. Only httpx and NumPy are needed on this side."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from medic.errors import MedicError
from medic.task import Prediction, Task

Image = bytes | str | Path

BUSY_SECONDS = 1.0
"""How long to wait before a busy service is asked again."""


class ServiceError(MedicError):
    """The service was reached and refused, or failed; ``status`` is the HTTP status of its answer."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


def bearer(token: str | None) -> dict[str, str]:
    """The header that shows a token; none without one."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class Client:
    """A connection to one service, kept open between calls; close it by using it in a ``with`` block.

    A request that finds the connection broken, or the service busy, is sent a second time: a worker that is killed, or
    that gives way to another bundle, loses nothing.

    Args:
        url: the service's address, such as ``http://127.0.0.1:8080``.
        timeout: seconds that one answer may take.
        headers: sent with every request, such as ``Authorization`` (see ``bearer``).
        certificate: PEM file of a certificate to trust, for a service whose own nobody else has signed.

    Raises:
        MedicError: the address or the certificate is none.
    """

    _transport: type = httpx.Client

    def __init__(
        self,
        url: str,
        timeout: float = 30.0,
        headers: Mapping[str, str] | None = None,
        certificate: str | Path | None = None,
    ):
        self.url = url.rstrip("/")
        try:
            host = httpx.URL(self.url).host
            # A proxy of the environment cannot reach this machine's loopback addresses.
            proxies = host not in ("localhost", "::1") and not host.startswith("127.")
            verify = True if certificate is None else ssl.create_default_context(cafile=certificate)
            self._http = self._transport(
                base_url=self.url, timeout=timeout, headers=headers, verify=verify, trust_env=proxies
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
        except (MedicError, AttributeError):
            return False

    def answer(self, image: Image) -> dict:
        """The service's own words on one image: class, probabilities, notice; the set and referral of a calibrated one.

        Args:
            image: the bytes of an image file, or its path.

        Raises:
            ServiceError: the service refuses it; the message carries its reason.
            MedicError: the file cannot be read, or the service cannot be reached.
        """
        return self._request("POST", "/predict", image, **_question(image))

    def score(self, images: Sequence[Image]) -> Prediction:
        """Score images one after the other; one prediction for all, in their order.

        Raises:
            ServiceError: the service refuses one; the message names it and carries the service's reason.
            MedicError: there is no image, one cannot be read, or the service cannot be reached.
        """
        if not images:
            raise MedicError("there is no image to score; give one or more")
        about = self.about()
        answers = [self.answer(image) for image in images]
        return prediction_of(Task.from_dict(about["task"]), about.get("thresholds"), answers)

    def _request(self, method: str, path: str, image: Image | None = None, **options: Any) -> Any:
        for pause in (BUSY_SECONDS, None):
            try:
                found = self._http.request(method, path, **options)
            except httpx.HTTPError as error:
                found = error
            if pause is None or not _is_worth_another(found):
                return self._content(found, image)
            time.sleep(pause if isinstance(found, httpx.Response) else 0)

    def _content(self, found: httpx.Response | httpx.HTTPError, image: Image | None) -> Any:
        """The JSON of an answer, or what is wrong with it in a sentence."""
        if isinstance(found, httpx.TimeoutException):
            raise MedicError(f"the service at {self.url} gave no answer in time; try again, or look at its log")
        if isinstance(found, httpx.HTTPError):
            raise MedicError(
                f"no service answers at {self.url} ({found}); start one with medic serve BUNDLE, or correct the address"
            )
        try:
            content = found.json()
        except ValueError as error:
            said = f"what answers at {self.url} gave status {found.status_code} and no JSON; correct the address"
            raise ServiceError(said, found.status_code) from error
        if not found.is_success:
            reason = content.get("error") if isinstance(content, dict) else None
            name = "" if image is None or isinstance(image, bytes) else f"{image}: "
            said = f"{name}the service refused with {found.status_code}: {reason or 'no reason given'}"
            raise ServiceError(said, found.status_code)
        return content

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()


class AsyncClient(Client):
    """As ``Client``, with ``answer`` to be awaited, many at a time, within ``async with``."""

    _transport = httpx.AsyncClient

    async def answer(self, image: Image) -> dict:
        """See ``Client.answer``."""
        for pause in (BUSY_SECONDS, None):
            try:
                found = await self._http.post("/predict", **_question(image))
            except httpx.HTTPError as error:
                found = error
            if pause is None or not _is_worth_another(found):
                return self._content(found, image)
            await asyncio.sleep(pause if isinstance(found, httpx.Response) else 0)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()


def _is_worth_another(found: httpx.Response | httpx.HTTPError) -> bool:
    """Whether the service was busy, or the connection broke."""
    if isinstance(found, httpx.Response):
        return found.status_code == 503
    return not isinstance(found, httpx.TimeoutException | httpx.UnsupportedProtocol)


def _question(image: Image) -> dict:
    """The content of a request for one image, and its type."""
    try:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
    except OSError as error:
        raise MedicError(f"cannot read {image} ({error.strerror}); correct the path") from error
    return {"content": data, "headers": {"content-type": "application/octet-stream"}}


def prediction_of(task: Task, thresholds: Sequence[float] | None, answers: Sequence[Mapping[str, Any]]) -> Prediction:
    """Put services' answers together.

    Args:
        task: what they answer.
        thresholds: the model's operating point, one for each class that has one; None without.
        answers: one an image, with ``probabilities`` by class and, for ordinal tasks, ``grade_continuous``.
    """
    probabilities = np.array(
        [[answer["probabilities"][name] for name in task.classes] for answer in answers], np.float32
    )
    ordinal = task.kind == "ordinal"
    grade = np.array([answer["grade_continuous"] for answer in answers], np.float32) if ordinal else None
    return Prediction(
        task, np.array(probabilities, np.float32), grade, None if thresholds is None else tuple(thresholds)
    )
