"""A client in twenty lines, to copy: it needs nothing but Python's own library."""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def ask(url: str, image: bytes, token: str | None = None) -> dict:
    """The service's answer for one image file; a RuntimeError with its reason where it refuses."""
    given = {"Content-Type": "application/octet-stream", **({"Authorization": f"Bearer {token}"} if token else {})}
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot reach this machine's own
    try:
        with direct.open(urllib.request.Request(f"{url}/predict", image, given), timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error.code}: {json.load(error)['error']}") from error


if __name__ == "__main__":
    for path in sys.argv[2:]:
        print(path, ask(sys.argv[1], Path(path).read_bytes()))
