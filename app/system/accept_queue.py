"""Accept queue of a listening socket: connections that the system has completed and no process has accepted yet.

The system resets these when the socket is closed, although their clients are connected and may have sent a request. So
a server that ends lets no further handshake begin, accepts all connections in the queue, and closes the socket at once.
"""

import ctypes
import select
import socket
import struct
import sys
from contextlib import suppress

SO_ATTACH_FILTER = 26  # of Linux; Python's `socket` has no name for it
# Classic BPF over a TCP segment: drop one that has SYN set and ACK not, keep all others. Handshakes under way have had
# their SYN, and connections that are accepted later, which inherit the filter, need none.
_FIRST_SEGMENTS = [
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of it
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
]


def stop_handshakes(listening: socket.socket) -> bool:
    """Let no further connection begin on a listening socket; a client that tries waits until the socket is closed.

    The socket may be shared with other processes: it stops for all of them.

    Returns:
        whether this system can do so: Linux can, without privileges.
    """
    if sys.platform != "linux":
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in _FIRST_SEGMENTS))
    filter_ = struct.pack("HP", len(_FIRST_SEGMENTS), ctypes.addressof(program))
    try:
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)
    except OSError:  # a system that only resembles Linux, or forbids it
        return False
    return True


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
