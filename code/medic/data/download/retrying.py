"""Ask a server again when it is busy or the line breaks, with growing waits, and say so meanwhile."""

from __future__ import annotations

import email.utils
import sys
import time
from collections.abc import Callable
from typing import TypeVar

import httpx
import tenacity
from tqdm import tqdm

Result = TypeVar("Result")

HEADERS = {"User-Agent": "medic", "Accept-Encoding": "identity"}
"""What every request says: who asks, and that bytes are to come as they lie, so that sizes and checksums are theirs."""
TIMEOUT = 30
"""Seconds without a byte after which a try has failed."""
TRIES = 6
FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0
"""Seconds before the second try, and beyond which the waits, each twice as long as the last, do not grow."""
LONGEST_REQUEST = 300.0
"""Seconds a server may ask for (``Retry-After``); when it wants more, the error says when to come back."""


class BadAnswerError(Exception):
    """What a server sent cannot be used, such as a page in place of an image; another try may bring it."""


def retry(attempt: Callable[[], Result]) -> Result:
    """Call a function until it succeeds, six times at most, where its error may pass.

    Answers 408, 429 and 5xx, time-outs, broken connections and ``BadAnswerError`` may pass, whether httpx or requests
    raises them; the last one is raised.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=_wait,
        before_sleep=lambda state: tell(
            f"{state.outcome.exception()}; waiting {state.next_action.sleep:.0f} s, then try "
            f"{state.attempt_number + 1} of {TRIES}"
        ),
        reraise=True,
    )(attempt)


def tell(text: str) -> None:
    """Tell the person at the terminal, above a progress bar if one is there."""
    tqdm.write(text, file=sys.stderr)


def _may_pass(error: BaseException) -> bool:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return (status in (408, 429) or status >= 500) and _retry_after(error) <= LONGEST_REQUEST
    if isinstance(error, httpx.TransportError):
        return not isinstance(error, httpx.UnsupportedProtocol)
    # Those of requests are OSErrors without a number; a full disk has one, and an address that is none a ValueError.
    broken = isinstance(error, OSError) and error.errno is None and not isinstance(error, ValueError)
    return broken or isinstance(error, BadAnswerError)


def _wait(state: tenacity.RetryCallState) -> float:
    growing = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (state.attempt_number - 1))
    return max(growing, _retry_after(state.outcome.exception()))


def _retry_after(error: BaseException) -> float:
    """Seconds the server asks to wait, given as a number or as a date (RFC 9110, 10.2.3); 0 without."""
    headers = getattr(getattr(error, "response", None), "headers", {})
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0
