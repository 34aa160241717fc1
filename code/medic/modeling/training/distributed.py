"""More than one process or machine: which process this is, its share of a batch, and what all of them hold together.

The processes are started by ``torchrun``, which tells each of them its place in the environment.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.distributed
from torch import Tensor

from medic.errors import MedicError


@dataclass(frozen=True)
class Processes:
    """The processes that train one model together.

    Attributes:
        count: how many there are on all machines.
        rank: which of them this one is, from 0.
        on_machine: how many run on this machine.
    """

    count: int = 1
    rank: int = 0
    on_machine: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    @property
    def machines(self) -> int:
        """How many machines take part."""
        return self.count // self.on_machine

    def shares(self, total: int) -> list[slice]:
        """Which images of a batch of ``total`` each process takes, in the batch's order; a share may be empty."""
        bounds = [total * rank // self.count for rank in range(self.count + 1)]
        return [slice(start, stop) for start, stop in pairwise(bounds)]

    def deal(self, batch: Sequence) -> Sequence:
        """This process's share of a batch.

        A process without a share gets the batch's first item, so that it takes part in the step like all others;
        ``together`` then leaves it out.
        """
        return batch[self.shares(len(batch))[self.rank]] or batch[:1]

    def together(self, own: Tensor, total: int) -> Tensor:
        """The rows of all processes in the batch's order; gradients flow through this process's own rows alone.

        Args:
            own: (n, ...) this process's rows, those that ``deal`` gave it.
            total: images in the whole batch.

        Returns:
            (total, ...)
        """
        if self.count == 1:
            return own
        shares = self.shares(total)
        sizes = [share.stop - share.start for share in shares]
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: sizes[self.rank]] = own.detach()[: sizes[self.rank]]
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        parts = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        parts[self.rank] = own[: sizes[self.rank]]
        return torch.cat(parts)

    def agree(self, found: dict[str, object]) -> None:
        """Make sure that all processes found the same.

        Args:
            found: by what it is called in a sentence.

        Raises:
            MedicError: they did not; on every one of them.
        """
        if self.count == 1:
            return
        everywhere: list[dict] = [{}] * self.count
        torch.distributed.all_gather_object(everywhere, found)
        different = [name for name in found if any(other[name] != everywhere[0][name] for other in everywhere)]
        if different:
            raise MedicError(
                f"the {self.count} processes differ in {', '.join(different)}; give all of them the same command, the "
                "same seed before the model is built, and folders on storage that all machines share"
            )

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            torch.distributed.barrier()


def processes() -> Processes:
    """The processes that ``torchrun`` has started, or this one alone."""
    if not torch.distributed.is_torchelastic_launched():
        return Processes()
    count, rank, on_machine = (int(os.environ[name]) for name in ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE"))
    return Processes(count, rank, on_machine)


def join() -> Processes:
    """Connect with the other processes: NCCL where there are GPUs, one for each process, otherwise Gloo.

    Raises:
        MedicError: the machines have different numbers of processes, or one has fewer GPUs than processes.
    """
    found = processes()
    if found.count == 1 or torch.distributed.is_initialized():
        return found
    if found.machines * found.on_machine != found.count:
        raise MedicError(
            f"{found.count} processes, of which {found.on_machine} run here, are not the same number on every machine; "
            "give every torchrun the same --nproc-per-node"
        )
    if torch.cuda.is_available():
        if found.on_machine > torch.cuda.device_count():
            raise MedicError(
                f"{found.on_machine} processes for {torch.cuda.device_count()} GPUs; start torchrun with "
                f"--nproc-per-node {torch.cuda.device_count()}, or hide the GPUs with CUDA_VISIBLE_DEVICES="
            )
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(_leave)
    return found


def _leave() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
