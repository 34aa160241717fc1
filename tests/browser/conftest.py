"""JupyterLab started for real on loopback, and a real browser before it."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import tenacity
from playwright.sync_api import Browser, Page
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError


@dataclass(frozen=True)
class Seen:
    """What a page asked for and complained of."""

    hosts: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """JupyterLab with settings, kernels and history of its own, which asks nobody for news: address and folder."""
    home = tmp_path_factory.mktemp("lab")
    settings = home / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    for path in (home / "notebooks", settings, home / "runtime", home / "data", home / "ipython"):
        path.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--IdentityProvider.token="]
    command += [f"--ServerApp.root_dir={home / 'notebooks'}", "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", "--LabApp.news_url="]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    folders = {f"JUPYTER_{kind.upper()}_DIR": str(home / kind) for kind in ("config", "data", "runtime")}
    environment = os.environ | folders | {"IPYTHONDIR": str(home / "ipython"), "JUPYTER_PREFER_ENV_PATH": "1"}
    address, log = f"http://127.0.0.1:{port}", home / "lab.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=file, stderr=subprocess.STDOUT)
    ask = tenacity.retry(stop=tenacity.stop_after_delay(60), wait=tenacity.wait_fixed(0.1), reraise=True)(httpx.get)
    try:
        ask(f"{address}/api/status")
        yield address, home / "notebooks"
    except httpx.HTTPError:
        pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}", pytrace=False)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def open_notebook(browser: Browser, lab: tuple[str, Path], screenshots: Path) -> Callable[..., tuple[Page, Seen]]:
    """Open a notebook of the lab's folder and run all its cells."""

    def open_and_run(notebook: str, ready: str) -> tuple[Page, Seen]:
        page, seen = browser.new_page(viewport={"width": 1280, "height": 1500}, reduced_motion="reduce"), Seen()
        page.set_default_timeout(60_000)
        page.on("request", lambda request: seen.hosts.add(urlsplit(request.url).hostname))
        page.on("console", lambda line: seen.errors.append(line.text) if line.type == "error" else None)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.goto(f"{lab[0]}/lab/tree/{notebook}?reset")
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

    return open_and_run
