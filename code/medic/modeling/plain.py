"""Settings as plain values."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


def plain(settings: Any) -> dict:
    """The fields of a dataclass as JSON holds them: tuples become lists."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(settings).items()}
