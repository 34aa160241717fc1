"""The connection to a workspace of Azure Machine Learning: who asks, where, how long, and what an error means."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from azure.ai.ml import MLClient
from azure.ai.ml.exceptions import MlException
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.core.polling import LROPoller
from azure.identity import AzureAuthorityHosts, DefaultAzureCredential

from medic.errors import MedicError


class Reported(Exception):
    """Azure's report on a deployment that failed, with the end of its log."""


FAILURES = (AzureError, MlException, OSError, Reported)
"""What a call of Azure's client, or the wait for it, can end with."""


@dataclass(frozen=True)
class Workspace:
    """Where a space lies.

    Attributes:
        subscription: the subscription's id.
        resource_group: the resource group's name.
        name: the workspace's own, and so the space's.
    """

    subscription: str
    resource_group: str
    name: str


def workspace_name(space: str) -> str:
    """The workspace that a space is: itself, or for ``default`` that of ``AZUREML_WORKSPACE_NAME``.

    Raises:
        MedicError: the environment names none, or it cannot be the name of one.
    """
    name = os.environ.get("AZUREML_WORKSPACE_NAME") if space == "default" else space
    if not name:
        raise MedicError(
            "the environment names no workspace; set AZUREML_WORKSPACE_NAME, or give its name as the space"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{2,32}", name):
        raise MedicError(f"{name!r} is no name of a workspace; it has 3 to 33 letters, digits, '-' and '_'")
    return name


def find_workspace(space: str) -> Workspace:
    """The workspace that a space is, in the subscription and the resource group that the environment names.

    Raises:
        MedicError: the environment lacks one of them.
    """
    variables = ("AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP")
    if missing := [name for name in variables if not os.environ.get(name)]:
        raise MedicError(f"the environment does not say where the workspace is; set {' and '.join(missing)}")
    return Workspace(*(os.environ[name] for name in variables), workspace_name(space))


def connect(workspace: Workspace) -> MLClient:
    """A client for a workspace; that it exists and lets us in has been asked.

    Raises:
        AzureError: it does not.
    """
    # Microsoft's list of authorities knows the public clouds, and not that of a private one.
    public = {value for name, value in vars(AzureAuthorityHosts).items() if name.startswith("AZURE_")}
    authority = re.sub(
        r"^https://|/$", "", os.environ.get("AZURE_AUTHORITY_HOST", AzureAuthorityHosts.AZURE_PUBLIC_CLOUD)
    )
    client = MLClient(
        DefaultAzureCredential(disable_instance_discovery=authority not in public),
        workspace.subscription,
        workspace.resource_group,
        workspace.name,
        enable_telemetry=False,
        # Without its progress bar this client never looks whether a file was sent, and waits for ever if one was not.
        show_progress=True,
        polling_interval=5,
        retry_total=3,
    )
    client.workspaces.get(workspace.name)
    return client


def there(get: Callable[[], Any]) -> Any:
    """What ``get`` finds, or None."""
    try:
        return get()
    except ResourceNotFoundError:
        return None


def finish(poller: LROPoller, seconds: float) -> Any:
    """The result of one of Azure's long steps.

    Raises:
        AzureError: it failed.
        TimeoutError: it takes longer than ``seconds``; it goes on without us.
    """
    # Azure's client prints a dot to standard output each time that it asks.
    with contextlib.redirect_stdout(sys.stderr):
        poller.wait(seconds)
        if not poller.done():
            raise TimeoutError(f"still {poller.status()} after {seconds:g} seconds")
        return poller.result()


def with_log(client: MLClient, name: str, endpoint: str, error: HttpResponseError) -> Exception:
    """The error of a deployment with what its container printed; the error alone where that cannot be had."""
    try:
        log = client.online_deployments.get_logs(name, endpoint, lines=15).strip()
    except (AzureError, MlException):
        return error
    return Reported(f"{error_text(error)}; the end of its log:\n{log}\n") if log else error


def explain(error: Exception, workspace: Workspace) -> tuple[str, str]:
    """Why a step failed, and what to do about it."""
    why = error_text(error)
    status = getattr(error, "status_code", None)
    if isinstance(error, ClientAuthenticationError):
        return why, "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or sign in with az login"
    if status == 403:
        return why, f"give whoever asks the role 'AzureML Data Scientist' on the workspace {workspace.name!r}"
    if status == 429 or "quota" in why.lower():
        return why, "ask for more quota, choose a smaller MEDIC_AZUREML_INSTANCE_TYPE, or try again later"
    if status == 404:
        return why, f"check the workspace {workspace.name!r} and the resource group {workspace.resource_group!r}"
    if isinstance(error, TimeoutError):
        return why, "look in Azure's portal how it goes on, or wait longer with MEDIC_AZUREML_WAIT_SECONDS"
    if status is None and isinstance(error, AzureError | OSError):
        return why, "look at the network and try again"
    return why, "mend that and try again"


def error_text(error: Exception) -> str:
    """An error's text without the queries of addresses, where a signature may stand; on one line but for a log."""
    text = getattr(getattr(error, "error", None), "message", None) or getattr(error, "message", None) or str(error)
    text = str(text) if isinstance(error, Reported) else " ".join(str(text).split())
    return re.sub(r"\?[^\s'\")]+", "?...", text)[:2000].rstrip(".")
