"""How the watsonx target reaches its service: credentials, one HTTP client that we watch, failures put into words."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
from ibm_watsonx_ai import APIClient, Credentials

from medic.deployment.export import quiet
from medic.errors import MedicError

Failed = Callable[[str, object, str], MedicError]
"""Makes the error for a step that failed, of what failed, why, and what to do; ``DeploymentJournal.failed`` is one."""

CERTIFICATES = "WX_CLIENT_VERIFY_REQUESTS"
SECRETS = ("WATSONX_APIKEY", "WATSONX_PASSWORD", "USER_ACCESS_TOKEN")
CREATED = {"/ml/v4/models": "model", "/ml/v4/deployments": "deployment"}
"""What a POST to a path creates."""

REMEDIES = {
    401: "check the key or the password",
    403: "ask for the Editor role in the space for the key's owner",
    429: "wait, delete deployments that are no longer needed, or change the plan",
}
NETWORK = "check the network and WATSONX_URL, then try again"


class Refused(Exception):
    """The service answered, and said no.

    Attributes:
        status: the HTTP status of its answer.
    """

    def __init__(self, status: int, message: str):
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass(frozen=True)
class Account:
    """Where the service is, and who asks: read from the environment, and written nowhere.

    Attributes:
        url: the service's address, without a slash at the end.
        credentials: what the client takes; not shown.
        trusted: what certificates are checked against.
    """

    url: str
    credentials: Credentials = field(repr=False)
    trusted: ssl.SSLContext = field(repr=False)


def account() -> Account:
    """The account that the environment names: IBM Cloud, or Cloud Pak for Data where ``WATSONX_USERNAME`` is set.

    Raises:
        MedicError: a variable is missing or cannot be meant; the message says which.
    """
    url, key, user = _variable("WATSONX_URL"), _variable("WATSONX_APIKEY"), _variable("WATSONX_USERNAME")
    if url and "@" in url:
        raise MedicError(
            "watsonx: WATSONX_URL has a name or a password in it, and would be kept in the journal and shown; give the "
            "address alone there, and the key in WATSONX_APIKEY"
        )
    if url is None or not url.startswith("https://"):
        raise MedicError(
            f"watsonx: WATSONX_URL is {url or 'not set'}; set it to the address of the service, such as "
            "https://us-south.ml.cloud.ibm.com"
        )
    url = url.rstrip("/")
    places = {"auth_url": _variable("WATSONX_AUTH_URL"), "platform_url": _variable("WATSONX_PLATFORM_URL")}
    if user:
        password = _variable("WATSONX_PASSWORD")
        if not (key or password):
            raise MedicError("watsonx: there is no key for Cloud Pak for Data; set WATSONX_APIKEY or WATSONX_PASSWORD")
        # The client tells Cloud Pak for Data by the address, and takes any platform address for IBM Cloud's.
        who = {"username": user, "auth_url": places["auth_url"], "version": _variable("WATSONX_VERSION")}
        who |= {"api_key": key} if key else {"password": password}
        who["instance_id"] = _variable("WATSONX_INSTANCE_ID") or "openshift"
    elif key or _variable("USER_ACCESS_TOKEN"):
        if url not in APIClient.PLATFORM_URLS_MAP and places["platform_url"] is None:
            raise MedicError(
                f"watsonx: {url} is no address of IBM Cloud; for Cloud Pak for Data set WATSONX_USERNAME, for another "
                "cloud WATSONX_PLATFORM_URL"
            )
        who = {"api_key": key, **places}
    else:
        raise MedicError("watsonx: there is no key; set WATSONX_APIKEY to an API key of IBM Cloud")
    with quiet():
        return Account(url, Credentials(url=url, **who), _trusted())


@contextlib.contextmanager
def connected(
    account: Account,
    space: str,
    failed: Failed,
    space_id: str | None = None,
    note: Callable[[str, str], None] = lambda *_: None,
) -> Iterator[APIClient]:
    """IBM's client, signed in and set to a space.

    It goes through an HTTP client of ours, for three reasons. The one it would make itself sends a request again
    after an error of the server or a lost connection: a model or a deployment would then be created twice, and the
    first one be forgotten. It also turns the check of certificates off by itself when that fails. And ours hears of
    everything created before the next step is tried, of a half-uploaded model too.

    Args:
        account: from ``account()``.
        space: the space's name.
        failed: makes the errors.
        space_id: the space's id, where it is known; it is looked up by the name otherwise.
        note: called with kind and id of all that is created, at once.

    Raises:
        MedicError: no answer, a wrong key, or no such space (the message lists those there are).
    """
    with httpx.Client(
        verify=account.trusted,
        timeout=httpx.Timeout(120, connect=10),
        event_hooks={"response": [_watching(note)]},
        # A proxy of the environment cannot reach this machine's loopback addresses.
        trust_env=httpx.URL(account.url).host not in ("localhost", "127.0.0.1"),
    ) as http:
        with step(failed, f"cannot sign in at {account.url}", "check the key, and the variables that name addresses"):
            client = _signed_in(account, http)
        if space_id is None:
            with step(failed, f"cannot open the space {space!r}", "try again"):
                client.set.default_space(_space_id(client, space, failed))
        else:
            client.default_space_id = space_id
        yield client


@contextlib.contextmanager
def step(failed: Failed, what: str, remedy: str = "try again") -> Iterator[None]:
    """One step, without the client's prints and warnings; whatever it fails with becomes one sentence.

    Args:
        failed: makes the error.
        what: what it comes to when the step fails.
        remedy: what to do, unless the reason itself calls for something else.
    """
    try:
        with quiet():
            yield
    except MedicError:
        raise
    except Exception as error:  # the client raises from many layers; none of it may reach the reader raw
        why, better = _reason(error)
        raise failed(what, why, better or remedy) from error


def _signed_in(account: Account, http: httpx.Client) -> APIClient:
    # The client marks the whole process as one of Cloud Pak for Data; another client of it may be of IBM Cloud.
    names = ("DEPLOYMENT_PLATFORM", "DEPLOYMENT_PRIVATE")
    before = {name: os.environ.get(name) for name in names}
    try:
        # The asynchronous one is not used; the client would make one with its own checks of certificates.
        unused = httpx.AsyncClient(verify=account.trusted)
        return APIClient(account.credentials, httpx_client=http, async_httpx_client=unused)
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _space_id(client: APIClient, space: str, failed: Failed) -> str:
    found = client.spaces.get_details(space_name=space)["resources"]
    ids = [one["metadata"]["id"] for one in found if one["entity"]["name"] == space]
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise failed(
            f"{len(ids)} spaces are called {space!r}", ", ".join(ids), "rename one of them, the name must say which"
        )
    there = sorted(one["entity"]["name"] for one in client.spaces.get_details(get_all=True)["resources"])
    raise failed(
        f"there is no space {space!r}", f"there is: {', '.join(there) or 'none'}", "choose one or create it there"
    )


def _watching(note: Callable[[str, str], None]) -> Callable[[httpx.Response], None]:
    def watch(response: httpx.Response) -> None:
        path = response.request.url.path
        # Cloud Pak for Data may not tell its version; the client then takes the one of the environment.
        if response.status_code >= 400 and not path.endswith("/wml_services/v2/version"):
            response.read()
            raise Refused(response.status_code, _message(response))
        if response.request.method == "POST" and path in CREATED and response.is_success:
            response.read()
            note(CREATED[path], response.json()["metadata"]["id"])

    return watch


def _message(response: httpx.Response) -> str:
    """What IBM's services say of an error; each has its own form."""
    try:
        content = response.json()
        told = [one["message"] for one in content["errors"]] if "errors" in content else []
        text = "; ".join(told) or content.get("errorMessage") or content.get("message") or response.text
    except (ValueError, KeyError, TypeError, AttributeError):
        text = response.text
    return _without_secrets(str(text).strip()[:500] or "no reason given")


def _reason(error: Exception) -> tuple[str, str | None]:
    """Why a step failed, and what to do where the reason itself says that."""
    # After a password the client tries two ways in and wraps what came of both.
    inner = [error, error.__cause__, *(reason if isinstance(reason := getattr(error, "reason", None), list) else [])]
    for one in inner:
        if isinstance(one, Refused):
            return str(one), REMEDIES.get(one.status)
    for one in inner:
        if isinstance(one, httpx.TransportError):
            if "CERTIFICATE_VERIFY" in str(one):
                return (
                    "its certificate is not trusted here",
                    f"set {CERTIFICATES} to the file of the authority that signed it",
                )
            return f"the connection failed: {one or type(one).__name__}", NETWORK
    return _without_secrets(" ".join(str(error).split())[:500] or type(error).__name__), None


def _without_secrets(text: str) -> str:
    for name in SECRETS:
        if secret := _variable(name):
            text = text.replace(secret, "***")
    return text


def _trusted() -> ssl.SSLContext:
    """What certificates are checked against: the usual authorities, and those of the file that the environment names.

    Raises:
        MedicError: the file cannot be read, or checking is to be turned off.
    """
    path = _variable(CERTIFICATES)
    context = httpx.create_ssl_context()
    if path is None or path.lower() == "true":
        return context
    if path.lower() == "false":
        raise MedicError(
            f"watsonx: {CERTIFICATES} turns the check of certificates off, and the key could go to anyone; set it to "
            "the file of the authority that signed the service's certificate"
        )
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise MedicError(
            f"watsonx: cannot read certificates from {path} ({error.strerror or error}); correct {CERTIFICATES}"
        ) from error
    return context


def _variable(name: str) -> str | None:
    return os.environ.get(name) or None
