"""Preparing and checking on a Dask cluster: two worker processes on loopback, one of which is killed half-way."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from medic.data import parallel
from medic.data.check import check
from medic.data.images.preprocess import Preprocessing
from medic.data.prepare import prepare
from medic.data.readers import retinopathy
from medic.errors import MedicError

SETTINGS = Preprocessing(size=48)
SLOWLY = """
import time
from medic.data.images.preprocess import Preprocessing

def dask_setup(worker, pixels=Preprocessing.pixels):
    Preprocessing.pixels = lambda self, data: (time.sleep(0.05), pixels(self, data))[1]
"""


@pytest.fixture
def processes():
    """Starts ``dask`` with arguments; what still runs at the end is killed."""
    started = []

    def start(*arguments: object) -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-m", "dask", *map(str, arguments)]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(processes) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        assert time.monotonic() < deadline, "the scheduler does not start"
        time.sleep(0.1)
    return f"tcp://127.0.0.1:{port}"


@pytest.fixture
def workers(processes, scheduler, tmp_path) -> list[subprocess.Popen]:
    (tmp_path / "slowly.py").write_text(SLOWLY)
    how = ("--host", "127.0.0.1", "--nthreads", 1, "--no-nanny", "--no-dashboard", "--preload", tmp_path / "slowly.py")
    return [
        processes("worker", scheduler, *how, "--local-directory", tmp_path / f"worker-{number}") for number in range(2)
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_set_prepared_while_a_worker_dies_is_the_same_byte_for_byte(tiny, scheduler, workers, tmp_path, monkeypatch):
    here = prepare(*retinopathy.read(tiny), tmp_path / "here", SETTINGS)
    monkeypatch.chdir(tiny.parent)  # a path that workers, who work elsewhere, would not find as it stands
    found = []
    run = threading.Thread(
        target=lambda: found.append(
            prepare(*retinopathy.read(tiny.name), tmp_path / "there", SETTINGS, scheduler=scheduler)
        )
    )
    run.start()
    deadline = time.monotonic() + 90
    while len(list((tmp_path / "there").glob("images/*/*.jpg"))) < len(here.records) // 2:
        assert run.is_alive(), "it ended before a worker could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(workers[0].pid, signal.SIGKILL)
    run.join(timeout=90)
    assert found, "it did not go on with the worker that was left"
    assert found[0].records.equals(here.records)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_check_on_a_cluster_finds_what_one_here_does(tiny, scheduler, workers):
    records, store = retinopathy.read(tiny)
    assert check(records, store, scheduler=scheduler).equals(check(records, store))


def test_a_worker_that_does_not_see_the_folder_is_named_as_such(tiny, scheduler, workers, tmp_path):
    store = retinopathy.read(tiny)[1]
    hidden = tmp_path / "only here"
    hidden.symlink_to(tiny)
    store.location = hidden
    each = parallel.each(partial(seen, store), ["images/0.jpeg"], title="looking", scheduler=scheduler)
    hidden.unlink()
    with pytest.raises(MedicError, match=r"does not see .*only here; give a folder that all workers share"):
        next(each)


def seen(store, name: str) -> bool:
    return name in store


def test_a_cluster_that_is_not_there_or_has_no_workers_is_one_sentence(scheduler, monkeypatch):
    monkeypatch.setattr(parallel, "CONNECT", 4)
    for address, message in ((scheduler, "has no worker; start some"), ("tcp://127.0.0.1:9", "no scheduler answers")):
        with pytest.raises(MedicError, match=message):
            next(parallel.each(len, ["a"], title="counting", scheduler=address))
