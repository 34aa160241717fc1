"""Processes that work only when they are asked, so that two runtimes never fight over the cores."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Self

from medic.errors import MedicError


class Worker:
    """A function in a process of its own. Between two questions the process is blocked and takes no core.

    Args:
        make: builds the function over there (loads the network, opens the session); importable by name.
        arguments: its arguments.
    """

    def __init__(self, make: Callable[..., Callable], *arguments: Any):
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_answer, args=(there, make, arguments), daemon=True)
        self._process.start()
        there.close()
        self._what = f"{make.__name__}{arguments}"

    def ready(self) -> Self:
        """Wait until the function is built.

        Raises:
            MedicError: it could not be built; the message says why.
        """
        self._receive()
        return self

    def ask(self, *arguments: Any) -> Any:
        """Call the function over there, and wait for its result.

        Raises:
            MedicError: it failed; the message says why.
        """
        self._here.send(arguments)
        return self._receive()

    def stop(self) -> None:
        """End the process: with nobody to answer it goes by itself, or else it is made to."""
        self._here.close()
        self._process.join(10)
        self._process.terminate()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _receive(self) -> Any:
        try:
            failure, result = self._here.recv()
        except EOFError as error:
            raise MedicError(f"the process of {self._what} ended by itself; run the benchmark again") from error
        if failure:
            raise MedicError(f"{self._what} failed: {failure}")
        return result


def _answer(connection: Connection, make: Callable[..., Callable], arguments: tuple) -> None:
    try:
        function = make(*arguments)
        connection.send((None, None))
        while True:
            connection.send((None, function(*connection.recv())))
    except EOFError:  # the benchmark ended
        return
    except Exception as error:  # whatever it is, the benchmark has to hear of it
        connection.send((f"{type(error).__name__}: {str(error)[:300]}", None))
