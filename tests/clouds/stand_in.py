"""A cloud in a test: its real client runs, and its requests are answered by a table of routes, without a socket."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest
import urllib3

from medic.deployment.bundle import Bundle
from medic.errors import ImageError

Answer = tuple[int, Any]


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class StandIn:
    """What a cloud holds and answers; ``fail`` lets calls fail, ``calls`` remembers them as ``METHOD path``."""

    routes: list[tuple[str, str, Callable[..., Answer]]]
    held: SimpleNamespace = field(default_factory=SimpleNamespace)
    calls: list[str] = field(default_factory=list)

    def fail(self, call: str, answer: Answer | Exception) -> None:
        """Answer calls that match ``METHOD path``, a regular expression, otherwise; or break the connection."""

        def failing(_: Call, *__: str) -> Answer:
            if isinstance(answer, Exception):
                raise answer
            return answer

        self.routes.insert(0, (*call.split(" ", 1), failing))

    def answer(self, method: str, url: str, headers: dict, body: Any) -> tuple[int, dict[str, str], bytes]:
        split = urlsplit(url)
        body = body.read() if hasattr(body, "read") else body or b""
        body = body.encode() if isinstance(body, str) else body
        given = {str(name).lower(): str(value) for name, value in headers.items()}
        call = Call(method, unquote(split.path), parse_qs(split.query), given, body)
        self.calls.append(f"{method} {call.path}")
        status, content = self._route(call)
        content, more = content if isinstance(content, tuple) else (content, {})
        data = b"" if content is None else json.dumps(content).encode()
        return status, {"Content-Type": "application/json", "Content-Length": str(len(data)), **more}, data

    def _route(self, call: Call) -> Answer:
        for method, path, answer in self.routes:
            if method == call.method and (match := re.fullmatch(path, call.path)):
                return answer(call, *match.groups())
        return 404, {"error": f"no route for {call.method} {call.path}"}


def answer_of(bundle: Bundle, call: Call, token: str, refused: int) -> Answer:
    """What a bundle's service says of the image in a request that shows its token."""
    if call.headers.get("authorization") != f"Bearer {token}":
        return 401, {"error": "this service asks for a token"}
    predictor = bundle.predictor()
    try:
        return 200, predictor.answers(predictor.predict([call.body]))[0]
    except ImageError as error:
        return refused, {"error": str(error)}


def install(cloud: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Let whatever this program asks over httpx, requests or urllib3 be answered by ``cloud``."""

    def by_httpx(_: object, request: httpx.Request) -> httpx.Response:
        status, headers, data = cloud.answer(request.method, str(request.url), request.headers, request.read())
        return httpx.Response(status, headers=headers, content=data, request=request)

    def by_urllib3(pool: Any, method: str, url: str, body: Any = None, headers: Any = None, **options: Any) -> Any:
        asked = url if "://" in url else f"{pool.scheme}://{pool.host}{url}"
        status, given, data = cloud.answer(method, asked, headers or {}, body)
        more = {"preload_content": options.get("preload_content", True), "decode_content": False}
        return urllib3.HTTPResponse(io.BytesIO(data), given, status, request_method=method, **more)

    monkeypatch.setattr(httpx.HTTPTransport, "handle_request", by_httpx)
    monkeypatch.setattr(urllib3.connectionpool.HTTPConnectionPool, "urlopen", by_urllib3)
    return cloud
