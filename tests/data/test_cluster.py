"""Preparing and checking on a Dask cluster: two worker processes on loopback, one of which is killed half-way."""

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


def test_a_set_prepared_while_a_worker_dies_is_the_same_byte_for_byte(
    tiny, tmp_path, monkeypatch, contents, kill_a_worker
):
    here, there = tmp_path / "here", tmp_path / "there"
    prepare(*retinopathy.read(tiny), here, SETTINGS)
    half = len(list(here.glob("images/*/*.jpg"))) // 2
    monkeypatch.chdir(tiny.parent)  # a path that workers, who work elsewhere, would not find as it stands
    records, store = retinopathy.read(tiny.name)
    kill_a_worker(lambda: len(list(there.glob("images/*/*.jpg"))) >= half, prepare, records, store, there, SETTINGS)
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
