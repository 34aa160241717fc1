"""What a target would ask of a cloud, printed instead of asked: no account, no network, no secret.

A ``Recording`` takes the place of a cloud's client. Each method that is called on it prints the call, with what would
be sent as YAML, and returns another recording, which stands for the answer in later calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

_RUNNING: ContextVar[bool] = ContextVar("dry run", default=False)
SECRETS = {"token", "authorization", "api_key", "password"}
FILES = {"path", "code", "model"}
"""Arguments that name a file or a folder to send, where there is one of that name."""


class AnswerNeeded(Exception):
    """A dry run has come to where only the cloud's answer could say how it goes on."""


@contextlib.contextmanager
def dry_run() -> Iterator[None]:
    """Let the targets print what they would ask of a cloud, until the block ends or an answer would be needed."""
    before = _RUNNING.set(True)
    try:
        yield
    except AnswerNeeded as unknown:
        print(f"# what follows depends on the answer: {unknown}")
    finally:
        _RUNNING.reset(before)


def dry_running() -> bool:
    """Return whether this is within ``dry_run()``."""
    return _RUNNING.get()


def known(value: Any) -> Any:
    """Return what a cloud has answered.

    Raises:
        AnswerNeeded: nobody has; ends a dry run.
    """
    if isinstance(value, Recording):
        raise AnswerNeeded(value)
    return value


class Recording:
    """Stands for a client, or for what one answered; every call is printed.

    Args:
        name: how it stands in what is printed.
        made: the call that makes the client, printed at once.
    """

    def __init__(self, name: str, made: str | None = None):
        self._name = name
        if made is not None:
            print(f"{name} = {made}")

    def __getattr__(self, attribute: str) -> Recording:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return Recording(f"{self._name}.{attribute}")

    def __getitem__(self, key: object) -> Recording:
        return Recording(f"{self._name}[{key!r}]")

    def __call__(self, *arguments: object, **named: object) -> Recording:
        """Print the call, and return what stands for its answer."""
        inline, below = [], []
        for name, value in [*(("", one) for one in arguments), *named.items()]:
            plain = to_plain(value, name)
            long = isinstance(plain, Mapping | list)
            below += [{name: plain} if name else plain] if long else []
            shown = "..." if long else str(value) if isinstance(value, Recording) else repr(plain)
            inline.append(f"{name}={shown}" if name else shown)
        print(f"{self._name}({', '.join(inline)})", *map(_yaml, below), sep="\n")
        return Recording(f"{self._name.rpartition('.')[2]}(...)")

    def __iter__(self) -> Iterator[Recording]:
        return iter([self[0]])

    def __contains__(self, _: object) -> bool:
        return True

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        """End: there is nothing to close."""

    def __str__(self) -> str:
        return self._name

    __repr__ = __str__


def to_plain(value: object, key: str = "") -> Any:
    """Return an argument as YAML takes it: files by name and size, arrays by shape and range, secrets as ``***``."""
    if key.lower() in SECRETS:
        return "***"
    if isinstance(value, Recording):
        return f"<{value}>"
    if hasattr(value, "openapi_types"):  # the models of KServe and Kubernetes
        from kubernetes.client import ApiClient

        value = ApiClient().sanitize_for_serialization(value)
    elif hasattr(value, "_to_dict"):  # the entities of Azure Machine Learning
        value = value._to_dict()
    if isinstance(value, Path) or (key in FILES and isinstance(value, str) and Path(value).exists()):
        return _files(Path(value))
    if isinstance(value, Mapping):
        return {str(name): to_plain(one, str(name)) for name, one in value.items()}
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], list):
            array = np.array(value)
            return f"<numbers {' x '.join(map(str, array.shape))}, {array.min()} to {array.max()}>"
        return [to_plain(one) for one in value]
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _files(path: Path) -> dict[str, Any]:
    """Return what would be sent of a path: each file with its size."""
    if path.is_file():
        return {path.name: f"<{path.stat().st_size:,} bytes>"}
    files = sorted(one for one in path.rglob("*") if one.is_file())
    return {f"{path.name}/": {str(one.relative_to(path)): f"<{one.stat().st_size:,} bytes>" for one in files}}


def _yaml(value: object) -> str:
    import yaml

    # What stands twice is written twice, as a person would.
    dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
    text = yaml.dump(value, Dumper=dumper, sort_keys=False, width=110, allow_unicode=True)
    return "\n".join(f"    {line}" for line in text.splitlines())
