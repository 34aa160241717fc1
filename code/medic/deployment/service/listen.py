"""A port of one's own: taken before anything starts, so that a taken one is an error and not a surprise."""

from __future__ import annotations

import array
import errno
import ipaddress
import logging
import socket
import struct
import sys

from medic.errors import MedicError

LOG = logging.getLogger("medic")


def bind(host: str, port: int, token: str | None = None) -> socket.socket:
    """Take a port on this machine. It listens at once; clients that come early wait until a server accepts them.

    Args:
        host: ``localhost`` or an address of this machine. One that other machines can reach needs a token.
        port: 0 takes any free one.
        token: what clients have to show, if anything.

    Raises:
        MedicError: others could come in unasked, or the port is in use, not allowed or no port at all.
    """
    address = check_host(host, token)
    if not 0 <= port <= 65535:
        raise MedicError(f"port {port} is outside 0..65535; 8080 is a common choice, 0 takes any free one")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # Named, or asyncio does not see that it is TCP and leaves answers to wait 40 ms for an acknowledgement (Nagle).
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((address, port))
        # With SO_REUSEADDR two programs may bind one port; only one can listen, and this settles which.
        taken.listen(128)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise MedicError(
                f"port {port} on {host} is in use; stop what runs there, choose another port, or take any with port 0"
            ) from error
        raise MedicError(f"port {port} on {host} cannot be used ({error.strerror}); choose another port") from error
    return taken


def take_no_more(listening: socket.socket) -> None:
    """Let nobody else into the queue of a socket that is going to close; who waits there can still be accepted.

    Closing alone resets every connection that the kernel has made and nobody has accepted yet: its client has sent a
    request and never hears of it. So the kernel is told first to drop whatever opens a connection (a TCP segment with
    SYN set, RFC 9293, section 3.1); such a client tries again a second later, and then nobody listens. Linux can do
    that (socket(7), SO_ATTACH_FILTER); elsewhere those few are lost, as where a sandbox forbids it, which the log says.
    """
    if sys.platform != "linux":
        return
    load_flags, jump_if_set, answer = 0x30, 0x45, 0x06
    steps = [(load_flags, 0, 0, 13), (jump_if_set, 0, 1, 0x02), (answer, 0, 0, 0), (answer, 0, 0, 0xFFFFFFFF)]
    program = array.array("B", b"".join(struct.pack("HBBI", *step) for step in steps))
    address, _ = program.buffer_info()
    try:
        listening.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HP", len(steps), address))  # 26: SO_ATTACH_FILTER
    except OSError as error:
        LOG.warning("clients that connect while the service ends may be lost: %s", error)


def check_host(host: str, token: str | None) -> str:
    """The address of a host name, if only programs of this machine can reach it, or if clients have to show a token.

    Raises:
        MedicError: it could be reached from elsewhere by anybody, or it is no address.
    """
    if host == "localhost":
        return "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise MedicError(
            f"host {host!r} is no address; use 127.0.0.1, or with a token an address of this machine (0.0.0.0 for all)"
        ) from error
    if token is None and not address.is_loopback:
        raise MedicError(
            f"host {host!r} can be reached from other machines, and without a token the service asks nobody who they "
            "are; set MEDIC_TOKEN or --token-file, or use 127.0.0.1"
        )
    return host
