"""Places where a bundle becomes a service. Each target is a module with the same five verbs.

- ``store(bundle, space)`` puts a verified copy of a bundle into a space (watsonx takes its graph alone) and returns
  what is stored there. Storing the same bundle again changes nothing: its version is the digest of its manifest.
- ``deploy(bundle, space, name)`` stores the bundle, makes it callable, waits until it answers, and returns a
  deployment with ``name``, ``url`` (where there is one) and the other three verbs as methods. Used in a ``with``
  block, the deployment is deleted at the end.
- ``score(deployment, images)`` sends image files (bytes or paths) and returns a ``medic.task.Prediction``.
- ``status(deployment)`` is one word: ``ready``, ``starting``, ``crashed`` or ``stopped``.
- ``delete(deployment)`` ends it and removes its record. Stored bundles stay unless asked otherwise; of a half-made
  deployment goes what was stored for it, if its journal lists that.

``deployments(space)`` lists what runs in a space, and ``find(name, space)`` gives one of them.
"""

from __future__ import annotations

import importlib
import re
from types import ModuleType

from medic.errors import MedicError

TARGETS = ("local", "watsonx", "azureml", "kserve")


def find_target(name: str) -> ModuleType:
    """The target of that name; its client is imported only now.

    Raises:
        MedicError: there is no such target, or its client is not installed.
    """
    if name not in TARGETS:
        raise MedicError(f"there is no target {name!r}; choose one of {', '.join(TARGETS)}")
    try:
        return importlib.import_module(f"medic.deployment.targets.{name}")
    except ModuleNotFoundError as error:
        raise MedicError(
            f"the target {name!r} needs {error.name}, which is not installed; pip install 'medic[serve,cloud]'"
        ) from error


def check_name(name: str) -> str:
    """The name of a space or a deployment, if it is one.

    Raises:
        MedicError: it is not; it could lead out of its folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", name):
        raise MedicError(
            f"{name!r} is no name for a space or a deployment; use up to 63 letters, digits, '.', '_' and '-'"
        )
    return name
