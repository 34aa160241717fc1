"""Ask a server again, politely and not for ever; and tell the person meanwhile, in a terminal as in a log."""

from __future__ import annotations

import email.utils
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import httpx
from tqdm import tqdm

T = TypeVar("T")

HEADERS = {"User-Agent": "medic", "Accept-Encoding": "identity"}
"""What every request says: who asks, and that bytes are to come as they lie, so that their number can be compared."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, and when to stop asking.

    Attributes:
        attempts: tries in a row that bring less than ``progress`` new bytes, before it ends.
        first_wait: seconds before the second try; each further wait is twice as long.
        longest_wait: seconds beyond which waits do not grow.
        longest_request: seconds a server may ask for (``Retry-After``); for more, it ends and says when to come back.
        timeout: seconds without an answer, or without a byte, after which a try has failed.
        progress: bytes that make a try count as a success even if it was cut.
        sleep: what waits.
    """

    attempts: int = 6
    first_wait: float = 2.0
    longest_wait: float = 60.0
    longest_request: float = 300.0
    timeout: float = 30.0
    progress: int = 2**20
    sleep: Callable[[float], None] = time.sleep


PATIENCE = Patience()


class TryAgain(Exception):
    """This try failed, another may not. ``after``: seconds the server asked for."""

    def __init__(self, reason: str, after: float = 0.0):
        super().__init__(reason)
        self.after = after


class GiveUp(Exception):
    """No further try will help, or there were enough of them. The text ends so that the manual way can follow."""


class LeaveAlone(GiveUp):
    """The server asks not to be asked for longer than anybody waits: not for anything else either."""


def insist(attempt: Callable[[], T], patience: Patience, host: str, arrived: Callable[[], int] = int) -> tuple[T, int]:
    """Try until it works, with growing waits, at least as long as the server asks.

    Args:
        attempt: one try, which raises ``TryAgain``, ``GiveUp`` or what httpx raises.
        patience: waits and limits.
        host: whom the person is told about when a connection fails.
        arrived: how many bytes are kept so far; by default none ever are.

    Returns:
        What the try gave, and the number of tries.

    Raises:
        GiveUp: a try gave up, or there were enough of them; ``LeaveAlone`` if the server asks for a longer wait than
            ``longest_request``.
        httpx.UnsupportedProtocol: the address is none.
    """
    failures, tries, furthest = 0, 0, arrived()
    while True:
        tries += 1
        try:
            return attempt(), tries
        except TryAgain as error:
            reason, after = str(error), error.after
        except httpx.UnsupportedProtocol:
            raise
        except httpx.TransportError as error:
            reason, after = f"{host}: {error or type(error).__name__}", 0.0
        # Only bytes never had before count: a server that always starts at zero and always breaks off must end too.
        if arrived() >= furthest + patience.progress:
            failures = 0
        furthest = max(furthest, arrived())
        failures += 1
        if failures >= patience.attempts:
            kept = f", {furthest} bytes are kept for the next time" if arrived() else ""
            raise GiveUp(f"{reason} (try {failures} of {patience.attempts}{kept}); run it again later, or")
        if after > patience.longest_request:
            raise LeaveAlone(f"{reason} and asks to come back in {after:.0f} s; run it again then, or")
        wait = max(after, min(patience.longest_wait, patience.first_wait * 2 ** (failures - 1)))
        say(f"{reason}; waiting {wait:.0f} s, then try {failures + 1} of {patience.attempts}")
        patience.sleep(wait)


def refuse_busy(response: httpx.Response) -> None:
    """Raise ``TryAgain`` for the answers 408, 429 and 5xx, with the wait that the server asks for."""
    if response.status_code in (408, 429) or response.status_code >= 500:
        answer = f"{response.url.host} answered {response.status_code} {response.reason_phrase}"
        raise TryAgain(answer, _retry_after(response))


def _retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait, given as a number or as a date (RFC 9110, 10.2.3); 0 without."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


class _Lines:
    """A progress bar for logs: each state on a line of its own, instead of one line overwritten."""

    def write(self, text: str) -> None:
        if text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def progress(title: str, have: int, total: int | None, unit: str = "B") -> tqdm:
    """A progress bar over bytes, or over whatever ``unit`` names; in a log a line every ten seconds."""
    watched = sys.stderr.isatty()
    return tqdm(
        desc=title,
        initial=have,
        total=total,
        unit=unit,
        unit_scale=unit == "B",
        unit_divisor=1024,
        mininterval=0.2 if watched else 10,
        ascii=not watched,
        file=sys.stderr if watched else _Lines(),
    )


def say(text: str) -> None:
    """Tell the person at the terminal, above a progress bar if one is there."""
    tqdm.write(text, file=sys.stderr)
