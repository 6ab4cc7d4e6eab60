"""Damaged .npz archives whose members cannot be read, and hostile headers of .npy arrays."""

import io
import zipfile
from collections.abc import Mapping


def damaged(archive: bytes) -> bytes:
    """The archive with changed bytes in the compressed data of its first member."""
    first = zipfile.ZipFile(io.BytesIO(archive)).infolist()[0]
    begins = first.header_offset + 30 + len(first.filename) + 20  # the local header, and numpy's padding after it
    middle = begins + first.compress_size // 3
    return archive[:middle] + bytes(byte ^ 0xA5 for byte in archive[middle : middle + 60]) + archive[middle + 60 :]


def encrypted(archive: bytes) -> bytes:
    """The archive with the flag of encryption set on every member."""
    changed = bytearray(archive)
    for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = changed.find(signature)
        while place >= 0:
            changed[place + flags] |= 1
            place = changed.find(signature, place + 4)
    return bytes(changed)


def packed_files(members: Mapping[str, bytes]) -> bytes:
    """A zip archive of files by name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def header(shape: str, descr: str = "'<f4'") -> bytes:
    """The header of a .npy file, with shape and type as Python literals."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


# Each raises another exception in numpy.
HOSTILE_HEADERS = {
    "nested": header(f"({'-' * 8000}1, 6)"),
    "no type": header("(2, 6)", descr="()"),
    "huge number": header(f"(0, {10**30})"),
    "bool": header("(True, 6)") + bytes(24),
    "negative": header("(-2, -6)") + bytes(48),
    "open quote": header("(3, 6)", descr="'<f4") + bytes(72),
    "cut off": header("(3, 6)") + bytes(71),
}
