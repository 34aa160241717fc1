"""What a target would ask of a cloud, printed instead of asked: no account, no network, no secret."""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import yaml

_RUNNING: ContextVar[bool] = ContextVar("dry run", default=False)
SECRETS = {"token", "authorization"}
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


def known(answer: Any) -> Any:
    """Return what a cloud has answered; in a dry run, which has no answers, end it."""
    if dry_running():
        raise AnswerNeeded(answer)
    return answer


class Recording:
    """Stands for a cloud's client, and for what it answers: a call is printed, with what it sends as YAML."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> "Recording":
        return Recording(f"{self._name}.{attribute}")

    def __getitem__(self, key: object) -> "Recording":
        return Recording(f"{self._name}[{key!r}]")

    def __iter__(self) -> "Iterator[Recording]":
        yield self[0]

    def __contains__(self, _: object) -> bool:
        return True

    def __enter__(self) -> "Recording":
        return self

    def __exit__(self, *_: object) -> None:
        """End: there is nothing to close."""

    def __call__(self, *arguments: object, **named: object) -> "Recording":
        """Print the call, and return what stands for its answer."""
        given = {**dict(enumerate(arguments)), **named}
        plain = {key: to_plain(value, str(key)) for key, value in given.items()}
        below = {key: value for key, value in plain.items() if isinstance(value, Mapping | list)}
        inline = {key: "..." if key in below else repr(value) for key, value in plain.items()}
        print(f"{self._name}({', '.join(v if isinstance(k, int) else f'{k}={v}' for k, v in inline.items())})")
        # What stands twice is written twice, as a person would.
        dumper = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
        dumper.add_representer(Recording, lambda to, one: to.represent_str(f"<{one!r}>"))
        for key, value in below.items():
            value = value if isinstance(key, int) else {key: value}
            text = yaml.dump(value, Dumper=dumper, sort_keys=False, width=110, allow_unicode=True)
            print(*(f"    {line}" for line in text.splitlines()), sep="\n")
        return Recording(f"{self._name.rpartition('.')[2]}(...)")

    def __repr__(self) -> str:
        return self._name


def to_plain(value: object, key: str = "") -> Any:
    """Return an argument as YAML takes it: files by name and size, pixels by their number, secrets as ``***``."""
    if key.lower() in SECRETS:
        return "***"
    if hasattr(type(value), "_to_dict"):  # the entities of Azure Machine Learning
        value = value._to_dict()
    if key in FILES and isinstance(value, str) and Path(value).exists():
        files = sorted(one for one in (Path(value), *Path(value).rglob("*")) if one.is_file())
        return {str(one.relative_to(Path(value).parent)): f"<{one.stat().st_size:,} bytes>" for one in files}
    if isinstance(value, Mapping):
        return {str(name): to_plain(one, str(name)) for name, one in value.items()}
    if isinstance(value, list):
        return "<pixels>" if value and isinstance(value[0], list) else [to_plain(one) for one in value]
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return value if isinstance(value, bool | int | float | None | Recording) else str(value)
