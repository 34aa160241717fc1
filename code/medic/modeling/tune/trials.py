"""One trial of a study: a training that may be cut short; here, or in processes of their own that share the cores."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from medic.data.prepare import Prepared
from medic.modeling.training.plans import Plan
from medic.modeling.training.run import Run

Row = dict[str, float]
"""An epoch's line of the history."""


@dataclass(frozen=True)
class Job:
    """What a trial trains.

    Attributes:
        place: which trial of the study it is, from 1.
        plan: with the trial's settings.
        folder: where its run goes, or lies already.
        weights: what the network starts from, as ``Classifier`` takes them.
    """

    place: int
    plan: Plan
    folder: Path
    weights: str | Path | None = None


@dataclass(frozen=True)
class TrialResult:
    """How a trial ended.

    Attributes:
        state: ``finished``, ``pruned`` or ``failed``.
        reason: why it failed, for a person.
    """

    state: str
    reason: str | None = None


class _Pruned(Exception):
    """The trial is not worth its next epoch."""


def train_trial(job: Job, prepared: Prepared, tell: Callable[[Row], bool]) -> TrialResult:
    """Train, or go on where an earlier attempt was interrupted; what is printed goes to ``training.log``.

    Args:
        job: what to train.
        prepared: the prepared set.
        tell: is told every epoch once, those of an earlier attempt first, and answers whether to end here.
    """
    told: set[float] = set()

    def each_epoch(row: Row) -> None:
        if row["epoch"] not in told:
            told.add(row["epoch"])
            if tell(row):
                raise _Pruned

    job.folder.mkdir(parents=True, exist_ok=True)
    try:
        with (job.folder / "training.log").open("a") as log, contextlib.redirect_stdout(log):
            earlier = Run.peek(job.folder)
            if earlier is not None and (job.folder / "history.csv").is_file():
                for row in earlier.history.to_dict("records"):
                    each_epoch(row)
            job.plan.train(prepared, job.folder, job.weights, each_epoch)
    except _Pruned:
        forget_weights(job.folder)
        return TrialResult("pruned")
    except Exception as error:
        return TrialResult("failed", f"{type(error).__name__}: {error}".splitlines()[0][:500])
    return TrialResult("finished")


def forget_weights(folder: Path) -> None:
    """Remove the weights of a run; its settings, split and history stay."""
    (folder / "resume.ckpt").unlink(missing_ok=True)
    for weights in (folder / "best", folder / "last", *folder.glob("snapshot-*")):
        shutil.rmtree(weights, ignore_errors=True)


def run_here(
    following: Callable[[], Job | None],
    prepared: Prepared,
    tell: Callable[[int, Row], bool],
    end: Callable[[int, TrialResult], None],
) -> None:
    """Train one job after the other, until there is none.

    Args:
        following: the next job, or None.
        prepared: the prepared set.
        tell: is told the place of a trial and an epoch of it, and answers whether to end it.
        end: is told the place of a trial and how it ended.
    """
    while (job := following()) is not None:
        place = job.place
        end(place, train_trial(job, prepared, lambda row, place=place: tell(place, row)))


def run_in_processes(
    following: Callable[[], Job | None],
    prepared: Prepared,
    tell: Callable[[int, Row], bool],
    end: Callable[[int, TrialResult], None],
    workers: int,
) -> None:
    """The same in several processes, each with its share of the cores. One that dies costs its trial alone."""
    threads = max(1, torch.get_num_threads() // workers)
    idle: list[_Worker] = []
    busy: dict[Connection, tuple[_Worker, int]] = {}
    with contextlib.ExitStack() as stack:
        while True:
            while len(busy) < workers and (job := following()) is not None:
                worker = idle.pop() if idle else stack.enter_context(_worker(prepared, threads))
                try:
                    worker.connection.send(job)
                except OSError:  # it died while it had nothing to do
                    worker = stack.enter_context(_worker(prepared, threads))
                    worker.connection.send(job)
                busy[worker.connection] = worker, job.place
            if not busy:
                return
            for connection in wait(list(busy)):
                worker, place = busy[connection]
                try:
                    said = connection.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    del busy[connection]
                    end(place, TrialResult("failed", _died(worker.process.exitcode)))
                    continue
                if isinstance(said, TrialResult):
                    del busy[connection]
                    idle.append(worker)
                    end(place, said)
                else:
                    answer = tell(place, said)
                    # Who has died meanwhile is noticed at the next round.
                    with contextlib.suppress(BrokenPipeError):
                        connection.send(answer)


@dataclass(frozen=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection


@contextlib.contextmanager
def _worker(prepared: Prepared, threads: int) -> Iterator[_Worker]:
    # Not forked from here: a copy of a process whose threads compute waits for them for ever. A server that has
    # imported everything and computed nothing is copied instead, where there is one; the imports alone take seconds.
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, prepared, threads), daemon=True)
    process.start()
    theirs.close()
    try:
        yield _Worker(process, ours)
    finally:
        # Whatever it trains is on disk, and goes on from there.
        process.kill()
        process.join()
        ours.close()


def _work(connection: Connection, prepared: Prepared, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one decides
    threading.Thread(target=_follow, daemon=True).start()
    torch.set_num_threads(threads)

    def tell(row: Row) -> bool:
        connection.send(row)
        return connection.recv()

    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        connection.send(train_trial(job, prepared, tell))


def _follow() -> None:
    """End with the process that started this one, however it ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _died(status: int | None) -> str:
    ended = f"was killed (signal {-status})" if status is not None and status < 0 else f"ended with status {status}"
    return f"its process {ended}, perhaps for want of memory; take fewer workers or smaller batches"
