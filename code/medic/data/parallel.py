"""Work on many images with all cores, in order, with a progress bar and flat memory."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import cv2
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores that this process may use, fewer than the machine's in a container that is held to some."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def each(
    function: Callable[[Item], Result], items: Iterable[Item], *, title: str, workers: int | None = None
) -> Iterator[Result]:
    """Apply a function to every item in threads, and give the results in the items' order.

    Decoding, scaling and encoding release Python's lock, so threads scale as processes do and need no pickling. Only
    a few results are held at a time. When the caller stops early or a call raises, what has not begun is dropped.

    Args:
        function: what to do with one item; an exception it raises reaches the caller.
        items: any number of items; a sized collection gives the progress bar its length.
        title: what the progress bar says. It shows on a terminal and in notebooks, and rarely enough for a log.
        workers: threads; one a core when None.
    """
    workers = workers or usable_cores()
    cv2.setNumThreads(1)
    remaining = iter(items)
    total = len(items) if isinstance(items, Sized) else None
    pool = ThreadPoolExecutor(workers)
    waiting = deque(pool.submit(function, item) for item in islice(remaining, 4 * workers))
    # Nothing for work of a moment; a moving bar on a terminal; a line now and then in a log or a notebook.
    pause = 0.2 if sys.stderr.isatty() else 15
    first = min(pause, 2)  # a log's first line comes early, so that work of less than a pause shows its rate too
    with tqdm(total=total, desc=title, unit="image", delay=2, mininterval=first, maxinterval=max(10, pause)) as bar:
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(function, item) for item in islice(remaining, 1))
                if bar.update():
                    bar.mininterval = pause
                yield result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
