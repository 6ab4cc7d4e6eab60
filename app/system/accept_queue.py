"""Accept queue of a listening socket: connections that the system has completed and no process has accepted yet.

The system resets these when the socket is closed, although their clients are connected and may have sent a request. So
a server that ends lets no further handshake begin, accepts all connections in the queue, and closes the socket at once.
"""

import os
import select
import socket
import sys
from contextlib import suppress
from pathlib import Path

# Lowest time to live of packets that a socket takes: (level, option of Linux, for which Python has no name).
_LOWEST_TTL = {
    socket.AF_INET: ((socket.IPPROTO_IP, 21),),
    socket.AF_INET6: ((socket.IPPROTO_IPV6, 73), (socket.IPPROTO_IP, 21)),  # takes connections of both kinds
}
_OF_NO_CLIENT = 255  # systems send packets with 64 or 128, and each router subtracts one


def stop_handshakes(listening: socket.socket) -> bool:
    """Let no further connection begin on a listening socket; a client that tries waits until the socket is closed.

    Linux drops the first packet of a handshake whose time to live is below the socket's minimum, but takes the last
    packet of one that has begun. A socket filter could do the same, but in a container needs a capability. The socket
    may be shared with other processes: handshakes stop for all of them.

    Returns:
        whether this system can do so: Linux can, without privileges.
    """
    if sys.platform != "linux" or listening.family not in _LOWEST_TTL:
        return False
    try:
        for level, option in _LOWEST_TTL[listening.family]:
            listening.setsockopt(level, option, _OF_NO_CLIENT)
    except OSError:  # a system that only resembles Linux
        return False
    return True


def dropped_packets() -> int:
    """Count the packets that this network has dropped because of a socket's lowest time to live; 0 if unknown."""
    with suppress(OSError, ValueError):
        names, counts = [
            line.split() for line in Path("/proc/net/netstat").read_text().splitlines() if line.startswith("TcpExt:")
        ]
        return int(counts[names.index("TCPMinTTLDrop")])
    return 0


def take_packets(file: int) -> None:
    """Let a connection take its client's packets: it drops them if its handshake ended after handshakes were stopped.

    Args:
        file: file descriptor of the connected socket.
    """
    with socket.socket(fileno=os.dup(file)) as connected:
        for level, option in _LOWEST_TTL.get(connected.family, ()) if sys.platform == "linux" else ():
            with suppress(OSError):
                connected.setsockopt(level, option, 0)


def accept_all(listening: socket.socket) -> list[socket.socket]:
    """Accept the connections in the queue of a listening socket, until it is empty or the process has no file left."""
    accepted = []
    listening.setblocking(False)
    with suppress(OSError):  # BlockingIOError: the queue is empty
        while True:
            accepted.append(listening.accept()[0])
    return accepted


def is_readable(file: socket.socket | int) -> bool:
    """Whether a connected socket has bytes or an end to read, or a listening one has a connection to accept."""
    if not hasattr(select, "poll"):  # Windows, whose `select` has no limit on the number of a socket
        return bool(select.select([file], [], [], 0)[0])
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(0))
