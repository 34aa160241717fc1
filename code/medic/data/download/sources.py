"""The real data sets: where they live, what one may do with them, and how to get them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from medic.data.records import SPLITS


@dataclass(frozen=True)
class RemoteFile:
    """One file at its official home: its name on disk, where it is fetched from, and its checksum as published."""

    name: str
    url: str
    md5: str


@dataclass(frozen=True)
class Source:
    """A published data set.

    Attributes:
        title, home, licence, citation: what it is, its page, what one may do with it, whom to name.
        reader: the set's folder below the data folder, and its reader in ``medic.data.readers``.
        images: number of images by split, as far as published.
        files: what is fetched; empty where it cannot be.
        query: the search that makes a set out of an archive, where it is no finished one.
        login: the site that wants an account, or None.
        steps: the manual way, one line a step; ``{downloads}`` and ``{target}`` stand for the folders.
    """

    title: str
    home: str
    licence: str
    citation: str
    reader: str
    images: Mapping[str, int] = field(default_factory=dict)
    files: tuple[RemoteFile, ...] = ()
    query: str | None = None
    login: str | None = None
    steps: tuple[str, ...] = ()


def _read_registry() -> dict[str, Source]:
    registry = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    token = registry.pop("token")
    for entry in registry.values():
        entry["files"] = tuple(RemoteFile(**file) for file in entry.get("files", ()))
        entry["steps"] = tuple(step.replace("{token}", token) for step in entry.get("steps", ()))
    return {name: Source(**entry) for name, entry in registry.items()}


SOURCES = _read_registry()


def sources_table() -> pd.DataFrame:
    """Return the known sets by name: ``title``, images by split (``Int64``), ``licence``, ``login``, ``home``."""
    table = pd.DataFrame([asdict(source) | source.images for source in SOURCES.values()], index=list(SOURCES))
    table = table.fillna({"login": "none"}).astype(dict.fromkeys(SPLITS, "Int64"))
    return table[["title", *SPLITS, "licence", "login", "home"]].rename_axis("name")
