"""Work on many images in order, with a progress bar and flat memory: with all cores, or on a Dask cluster."""

import contextlib
import os
import pickle
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import islice
from typing import Any

import cv2
from tqdm import tqdm

from medic.errors import MedicError

BATCH = 16  # items that go to a cluster as one task: about a second of work
CONNECT = 60  # seconds in which a scheduler must answer and have a first worker


def usable_cores() -> int:
    """Return how many cores this process may use, fewer than the machine's in a container that is held to some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    function: Callable,
    items: Iterable,
    *,
    title: str,
    unit: str = "image",
    scheduler: str | None = None,
    threads: int | None = None,
) -> Iterator[Any]:
    """Apply a function to every item, and give the results in the items' order.

    Here it runs in threads, one a core: decoding, scaling and encoding release Python's lock. Only a few results are
    held at a time. When the caller stops early or a call raises, what has not begun is dropped.

    Args:
        function: what to do with one item; an exception it raises reaches the caller. A cluster gets it by pickle.
        items: any number of items; a sized collection gives the progress bar its length.
        title: what the progress bar says.
        unit: what an item is, for the bar.
        scheduler: address of a ``dask.distributed`` scheduler, such as ``tcp://10.0.0.1:8786``; None works here. What a
            worker that dies has not handed over is done by another.
        threads: here, instead of one a core: more where calls wait for something.

    Raises:
        MedicError: the scheduler cannot be reached, has no worker, or its workers die or lack medic.
    """
    here = partial(_in_threads, function, items, threads or usable_cores())
    results = _on_cluster(function, items, scheduler) if scheduler else here()
    # Nothing for work of a moment; a moving bar on a terminal; a line now and then in a log or a notebook.
    pause = 0.2 if sys.stderr.isatty() else 15
    total = len(items) if isinstance(items, Sized) else None
    with contextlib.closing(results):
        yield from tqdm(results, title, total, unit=unit, delay=2, mininterval=pause, maxinterval=max(10, pause))


def _in_order(submit: Callable, items: Iterable, ahead: int) -> Iterator:
    remaining = iter(items)
    waiting = deque(map(submit, islice(remaining, ahead)))
    while waiting:
        result = waiting.popleft().result()
        waiting.extend(map(submit, islice(remaining, 1)))
        yield result


def _in_threads(function: Callable, items: Iterable, threads: int) -> Iterator:
    cv2.setNumThreads(1)
    pool = ThreadPoolExecutor(threads)
    try:
        yield from _in_order(partial(pool.submit, function), items, 4 * threads)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _on_cluster(function: Callable, items: Iterable, scheduler: str) -> Iterator:
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise MedicError("a cluster needs Dask here too; install it: pip install 'medic[cluster]'") from error
    remaining = iter(items)
    batches = iter(lambda: list(islice(remaining, BATCH)), [])
    with contextlib.ExitStack() as stack:
        try:
            client = stack.enter_context(Client(scheduler, timeout=CONNECT, set_as_default=False))
            client.wait_for_workers(1, timeout=CONNECT)
        except (OSError, ValueError) as error:
            remedy = f"start both (dask scheduler, dask worker {scheduler})"
            raise MedicError(f"no scheduler with a worker answers at {scheduler} ({error}); {remedy}") from error
        submit = partial(client.submit, _apply, pickle.dumps(function), pure=False)
        try:
            for results in _in_order(submit, batches, 4 * sum(client.nthreads().values())):
                yield from results
        except (KilledWorker, ModuleNotFoundError) as error:
            remedy = "give each more memory and the same medic"
            raise MedicError(f"workers of {scheduler} died or lack a package ({error}); {remedy}") from error


@lru_cache(maxsize=8)
def _unpickled(work: bytes) -> Callable:
    """Once a worker: opening a large archive takes longer than a batch."""
    cv2.setNumThreads(1)
    return pickle.loads(work)


def _apply(work: bytes, batch: list) -> list:
    return list(map(_unpickled(work), batch))
