"""The processes that compute for the service: given work, watched, replaced when they end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from prometheus_client import Counter

from medic.deployment.bundle.manifest import Manifest, read_manifest
from medic.deployment.service.limits import Limits, Refused, busy
from medic.deployment.service.worker import PREFIX, frame
from medic.errors import ImageError, MedicError
from medic.task import Prediction

ATTEMPTS = 3
"""Workers that a request is given to, one after the other, while they end under it."""

START_SECONDS = 60.0
"""Within which a worker has loaded its bundle."""

REPLACED = Counter("medic_workers_replaced", "Worker processes that ended and were replaced")
LOG = logging.getLogger("medic")


class Failed(MedicError):
    """A worker met an error that nobody foresaw; its log has it."""


class WorkerAnswer(NamedTuple):
    """A prediction, and the manifest of the bundle that made it."""

    manifest: Manifest
    prediction: Prediction


class Explained(NamedTuple):
    """One image explained, ready to be sent.

    Attributes:
        manifest: of the bundle that did it.
        prediction: of the one image.
        picture: JPEG of the prepared pixels, which are what the model has seen.
        of: the class that the heatmap argues for; None without a heatmap.
        rows: the heatmap, values 0..1 from top to bottom; None where the network gives none.
    """

    manifest: Manifest
    prediction: Prediction
    picture: bytes
    of: str | None
    rows: list[list[float]] | None


class _Ended(Exception):
    """A worker's process is gone."""


class _Worker:
    def __init__(self, process: Process):
        self.process = process

    @classmethod
    async def start(cls, folder: Path) -> tuple[_Worker, str]:
        """A worker that has loaded the bundle in a folder, and the bundle's version."""
        command = [sys.executable, "-m", "medic.deployment.service.worker", str(folder)]
        # The reader's limit is how much it takes from the pipe before it is asked: an answer in one go.
        worker = cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, limit=1 << 20))
        try:
            async with asyncio.timeout(START_SECONDS):
                header, _ = await worker._receive()
        except BaseException as error:
            worker.kill()
            if isinstance(error, TimeoutError | _Ended):
                raise MedicError(
                    f"a worker for {folder} ended or was silent for {START_SECONDS:g} seconds while it loaded; "
                    "see the log, and whether there is memory enough"
                ) from error
            raise
        if "error" in header:
            await worker.process.wait()
            raise MedicError(header["error"])
        return worker, header["version"]

    async def ask(self, question: dict, parts: Sequence[bytes]) -> tuple[dict, list[bytes]]:
        """Its answer to one question."""
        try:
            self.process.stdin.writelines(frame(question, parts))
            await self.process.stdin.drain()
        except OSError as error:
            raise _Ended from error
        return await self._receive()

    async def _receive(self) -> tuple[dict, list[bytes]]:
        read = self.process.stdout.readexactly
        try:
            header = json.loads(await read(PREFIX.unpack(await read(PREFIX.size))[0]))
            return header, [await read(size) for size in header["sizes"]]
        except (asyncio.IncompleteReadError, OSError) as error:
            raise _Ended from error

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


@dataclass(eq=False)
class _Generation:
    """The workers of one bundle."""

    folder: Path
    manifest: Manifest
    card: str
    free: asyncio.Queue[_Worker] = field(default_factory=asyncio.Queue)
    there: set[_Worker] = field(default_factory=set)
    keepers: list[asyncio.Task] = field(default_factory=list)
    asked: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


class Workers:
    """A number of processes that answer for one bundle; made by ``start``, within a running event loop.

    A process that ends is replaced, and the request it had goes to another: no accepted request is lost by it. One
    that takes longer than its time is ended. ``exchange`` puts another bundle in place between two requests.
    """

    def __init__(self, limits: Limits):
        self._limits = limits
        self._now: _Generation

    @classmethod
    async def start(cls, folder: str | Path, limits: Limits) -> Workers:
        """Start ``limits.workers`` processes, and wait until each has loaded the bundle.

        Raises:
            MedicError: no bundle, a file of it was changed, or a process could not start; none is left then.
        """
        workers = cls(limits)
        workers._now = await workers._generation(Path(folder))
        return workers

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that answers now."""
        return self._now.manifest

    @property
    def model_card(self) -> str:
        """Its model card, Markdown."""
        return self._now.card

    @property
    def pids(self) -> list[int]:
        """The processes that are there now."""
        return [worker.process.pid for worker in self._now.there]

    @property
    def ready(self) -> bool:
        """Whether there is at least one process to answer."""
        return bool(self._now.there)

    async def files(self, images: Sequence[bytes]) -> WorkerAnswer:
        """Classify whole image files.

        Raises:
            ImageError: one of them cannot become pixels, or ends every worker it is given to.
            Refused: it took longer than ``limits.computing``.
            Failed: an error that nobody foresaw.
        """
        manifest, header, parts = await self._ask("files", images)
        return WorkerAnswer(manifest, _prediction(manifest, header, parts))

    async def pixels(self, pixels: np.ndarray) -> WorkerAnswer:
        """Classify prepared pixels, uint8 (N, S, S, 3) RGB; raises as ``files``."""
        manifest, header, parts = await self._ask("pixels", [pixels.tobytes()])
        return WorkerAnswer(manifest, _prediction(manifest, header, parts))

    async def explain(self, image: bytes) -> Explained:
        """Classify one image file and say where the evidence lies; raises as ``files``."""
        manifest, header, parts = await self._ask("explain", [image])
        prediction = _prediction(manifest, header, parts)
        return Explained(manifest, prediction, parts[-1], header["of"], header["rows"])

    async def exchange(self, folder: str | Path) -> None:
        """Let another bundle of the same task answer from now on; what is under way is finished by the present one.

        Raises:
            MedicError: the new bundle is not sound or of another task; the present one goes on.
        """
        new, old = await self._generation(Path(folder), self.manifest), self._now
        self._now = new
        await self._end(old)

    async def close(self) -> None:
        """Finish what is under way, then end the processes."""
        await self._end(self._now)

    async def _generation(self, folder: Path, like: Manifest | None = None) -> _Generation:
        # A link may be set to another bundle meanwhile; this generation keeps to one.
        folder = folder.resolve()
        generation = _Generation(folder, read_manifest(folder), (folder / "MODEL_CARD.md").read_text(encoding="utf-8"))
        if like is not None and generation.manifest.task != like.task:
            raise MedicError(
                f"the bundle {folder} is for the task {generation.manifest.task.name!r}, what runs answers "
                f"{like.task.name!r}; clients count on that: deploy it under another name"
            )
        starts = [_Worker.start(folder) for _ in range(self._limits.workers)]
        started = await asyncio.gather(*starts, return_exceptions=True)
        wrong = [one for one in started if isinstance(one, BaseException)]
        workers = [one for one in started if not isinstance(one, BaseException)]
        if not wrong and any(version != generation.manifest.version for _, version in workers):
            wrong = [MedicError(f"the bundle {folder} was changed while it was loaded; try again")]
        if wrong:
            for worker, _ in workers:
                worker.kill()
            raise wrong[0]
        for worker, _ in workers:
            self._offer(generation, worker)
        return generation

    def _offer(self, generation: _Generation, worker: _Worker) -> None:
        """Put a worker to work, and somebody in charge of its place."""
        generation.there.add(worker)
        generation.free.put_nowait(worker)
        generation.keepers.append(asyncio.create_task(self._keep(generation, worker)))

    async def _keep(self, generation: _Generation, worker: _Worker) -> None:
        """Wait until a worker ends, and put another in its place."""
        await worker.process.wait()
        generation.there.discard(worker)
        REPLACED.inc()
        LOG.warning("worker %d ended (%s); starting another", worker.process.pid, worker.process.returncode)
        pause = 0.5
        while True:
            try:
                new, _ = await _Worker.start(generation.folder)
                break
            except (MedicError, OSError, ValueError) as error:
                LOG.error("no worker can be started: %s", error)
                await asyncio.sleep(pause := min(2 * pause, 30.0))
        generation.keepers.remove(asyncio.current_task())
        self._offer(generation, new)

    async def _ask(self, kind: str, parts: Sequence[bytes]) -> tuple[Manifest, dict, list[bytes]]:
        generation = self._now
        generation.asked += 1
        try:
            header, answered = await self._try(generation, kind, parts)
        finally:
            generation.asked -= 1
            if not generation.asked:
                generation.idle.set()
        if "failed" in header:
            raise Failed("a worker failed; the log says more")
        if "error" in header:
            if "reason" in header:
                raise ImageError(header["error"], header["reason"])
            raise MedicError(header["error"])
        return generation.manifest, header, answered

    async def _try(self, generation: _Generation, kind: str, parts: Sequence[bytes]) -> tuple[dict, list[bytes]]:
        for _ in range(ATTEMPTS):
            worker = await self._free(generation)
            whole = False
            try:
                async with asyncio.timeout(self._limits.computing):
                    answer = await worker.ask({"kind": kind}, parts)
                whole = True
                return answer
            except _Ended:
                # Where several ended together, the others are noticed meanwhile: it is not the image's fault.
                await asyncio.sleep(0.1)
                continue
            except TimeoutError as error:
                raise Refused(
                    f"the image took longer than {self._limits.computing:g} seconds; send a smaller one", 503, "slow"
                ) from error
            finally:
                if whole:
                    generation.free.put_nowait(worker)
                else:
                    # Its answer to this question must not become the answer to the next one.
                    worker.kill()
        raise ImageError("the image could not be read: the decoder ended over it, again and again", "unreadable")

    async def _free(self, generation: _Generation) -> _Worker:
        try:
            async with asyncio.timeout(self._limits.queueing):
                while True:
                    worker = await generation.free.get()
                    if worker in generation.there and not worker.process.stdout.at_eof():
                        return worker
        except TimeoutError as error:
            raise busy() from error

    async def _end(self, generation: _Generation) -> None:
        while generation.asked:
            generation.idle.clear()
            await generation.idle.wait()
        for keeper in generation.keepers:
            keeper.cancel()
        for worker in generation.there:
            worker.process.stdin.close()
        for worker in generation.there:
            await worker.process.wait()
        generation.there.clear()


def _prediction(manifest: Manifest, header: dict, parts: list[bytes]) -> Prediction:
    probabilities = np.frombuffer(parts[0], np.float32).reshape(header["images"], len(manifest.task.classes))
    grade = np.frombuffer(parts[1], np.float32) if manifest.task.kind == "ordinal" else None
    thresholds = manifest.values["model"].get("thresholds")
    return Prediction(manifest.task, probabilities, grade, None if thresholds is None else tuple(thresholds))
