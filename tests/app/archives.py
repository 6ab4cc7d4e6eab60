"""Archives that open well, and fail once a member is read."""

import io
import zipfile


def damaged(archive: bytes) -> bytes:
    """The first member's compressed data is not what it was."""
    first = zipfile.ZipFile(io.BytesIO(archive)).infolist()[0]
    begins = first.header_offset + 30 + len(first.filename) + 20  # the local header, and what numpy puts after it
    middle = begins + first.compress_size // 3
    return archive[:middle] + bytes(byte ^ 0xA5 for byte in archive[middle : middle + 60]) + archive[middle + 60 :]


def encrypted(archive: bytes) -> bytes:
    """Every member says that it is encrypted."""
    changed = bytearray(archive)
    for signature, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        place = changed.find(signature)
        while place >= 0:
            changed[place + flags] |= 1
            place = changed.find(signature, place + 4)
    return bytes(changed)
