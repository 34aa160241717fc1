"""JupyterLab started for real on loopback, and a real browser before it."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError

ROOT = Path(__file__).resolve().parent.parent.parent
# Other tests run at the same time, and a machine with two cores is busy then.
expect.set_options(timeout=60_000)
# A browser of its own accord asks its maker for updates, lists and translations.
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-pings")


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: its address, its token, and the folder that it shows."""

    address: str
    token: str
    folder: Path

    def address_of(self, notebook: str) -> str:
        return f"{self.address}/lab/tree/{quote(notebook)}?token={self.token}&reset"


@dataclass(frozen=True)
class Seen:
    """What a page asked for and complained of."""

    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """For one file of tests and no longer: while it is there an event loop runs, which other tests must not find."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where pictures of what the tests saw are kept, to be looked at."""
    folder = ROOT / "outputs" / "browser"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab with settings, kernels and history of its own, which asks nobody for news or updates."""
    home = tmp_path_factory.mktemp("lab")
    folder = home / "notebooks"
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    for path in (folder, settings, home / "runtime", home / "data", home / "ipython"):
        path.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.root_dir={folder}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    command += ["--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    environment = os.environ | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    log = home / "lab.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/status?token={token}", process, log)
        yield Lab(address, token, folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}", pytrace=False)


@pytest.fixture(scope="module")
def open_notebook(browser: Browser, lab: Lab, screenshots: Path) -> Iterator[Callable[..., tuple[Page, Seen]]]:
    """Open a notebook of the lab's folder and run all its cells."""
    contexts = []

    def open_and_run(notebook: str, ready: str, *, height: int = 1500) -> tuple[Page, Seen]:
        context = browser.new_context(viewport={"width": 1280, "height": height}, reduced_motion="reduce")
        contexts.append(context)
        page, seen = context.new_page(), Seen()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).hostname))
        page.on("console", lambda line: seen.errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.goto(lab.address_of(notebook))
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        try:
            page.locator(ready).wait_for()
        except PlaywrightTimeoutError:
            page.screenshot(path=screenshots / "failed.png")
            outputs = page.locator(".jp-OutputArea-output").all_inner_texts()
            pytest.fail(f"{ready} did not appear; outputs {outputs}, console {seen.errors}", pytrace=False)
        return page, seen

    yield open_and_run
    for context in contexts:
        context.close()
