"""A target as the environment names it or, where it names none, on a stand-in: the same calls either way."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

SIGNS = {
    "watsonx": ("WATSONX_APIKEY", "WATSONX_PASSWORD", "USER_ACCESS_TOKEN"),
    "azureml": ("AZURE_SUBSCRIPTION_ID",),
    "kserve": ("MEDIC_KSERVE_STORAGE",),
}
"""Variables of which one is set where an account or a cluster is meant to be used."""

STUBS = {"watsonx": "watsonx.watsonx_stub", "azureml": "azureml.azureml_stub", "kserve": "kubernetes.kubernetes_stub"}


@dataclass(frozen=True)
class Place:
    """Where a target's calls go.

    Attributes:
        target: ``watsonx``, ``azureml`` or ``kserve``.
        stub: the stand-in; None where it is the real thing.
    """

    target: str
    stub: Any = None

    def __str__(self) -> str:
        if self.stub is None:
            return f"{self.target}: THE REAL SERVICE, with the credentials of this environment; it may cost money"
        signs = " or ".join(SIGNS[self.target])
        return f"{self.target}: REHEARSAL on a stub, as {signs} is not set; nothing leaves this machine"


@contextlib.contextmanager
def rehearsed(target: str) -> Iterator[Place]:
    """Let a target's calls go where the environment says or, without credentials, to a stub until the block ends.

    The stub is a server on loopback that the target's real client talks to. It scores with the bundle that was
    uploaded to it.
    """
    if any(os.environ.get(name) for name in SIGNS[target]):
        yield Place(target)
        return
    module, name = STUBS[target].split(".")
    with getattr(import_module(f"medic.deployment.stubs.{module}"), name)() as stub:
        before = {variable: os.environ.get(variable) for variable in stub.environment}
        os.environ.update(stub.environment)
        try:
            yield Place(target, stub)
        finally:
            for variable, value in before.items():
                os.environ.pop(variable, None)
                if value is not None:
                    os.environ[variable] = value
