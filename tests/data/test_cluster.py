"""Preparing and checking on a Dask cluster: two worker processes on loopback, one of which is killed half-way."""

import os
import signal
import threading
import time
from functools import partial

import pytest
from distributed import LocalCluster

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
def cluster(tmp_path):
    (tmp_path / "slowly.py").write_text(SLOWLY)
    how = {"preload": [str(tmp_path / "slowly.py")], "local_directory": str(tmp_path), "dashboard_address": None}
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", **how) as running:
        yield running


def test_a_set_prepared_while_a_worker_dies_is_the_same_byte_for_byte(tiny, cluster, tmp_path, monkeypatch, contents):
    here, there = tmp_path / "here", tmp_path / "there"
    prepare(*retinopathy.read(tiny), here, SETTINGS)
    monkeypatch.chdir(tiny.parent)  # a path that workers, who work elsewhere, would not find as it stands
    how = {"scheduler": cluster.scheduler_address}
    run = threading.Thread(target=prepare, args=(*retinopathy.read(tiny.name), there, SETTINGS), kwargs=how)
    run.start()
    deadline = time.monotonic() + 90
    while len(list(there.glob("images/*/*.jpg"))) < len(list(here.glob("images/*/*.jpg"))) // 2:
        assert run.is_alive(), "it ended before a worker could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    run.join(timeout=90)
    assert contents(there) == contents(here)


def test_a_check_on_a_cluster_finds_what_one_here_does(tiny, cluster):
    records, store = retinopathy.read(tiny)
    assert check(records, store, scheduler=cluster.scheduler_address).equals(check(records, store))


def test_a_worker_that_does_not_see_the_folder_is_named_as_such(tiny, cluster, tmp_path):
    store, hidden = retinopathy.read(tiny)[1], tmp_path / "only here"
    store.location = hidden
    work = partial(type(store).__contains__, store)
    with pytest.raises(MedicError, match=r"does not see .*only here; give a folder that all workers share"):
        next(parallel.each(work, ["a"], title="looking", scheduler=cluster.scheduler_address))


def test_a_cluster_that_is_not_there_or_has_no_workers_is_one_sentence(monkeypatch):
    monkeypatch.setattr(parallel, "CONNECT", 4)
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None) as empty:
        for address in (empty.scheduler_address, "tcp://127.0.0.1:9"):
            with pytest.raises(MedicError, match=f"no scheduler with a worker answers at {address} .*; start both"):
                next(parallel.each(len, ["a"], title="counting", scheduler=address))
