"""An uploaded data file, and the kinds of files that `kronmodel` reads."""

from pathlib import Path

from app.errors import BadRequest, TrainingError

ARRAYS = ".npz"
TABLES = (".csv", ".tsv", ".tab", ".txt", ".psv", ".jsonl", ".ndjson", ".parquet", ".feather", ".arrow")
COMPRESSED = frozenset({".gz", ".bz2", ".zst", ".lz4"})
EXPECTED = f"{', '.join(TABLES)}, perhaps compressed as in .csv.gz, or {ARRAYS}"


class UploadedData:
    """An uploaded file to train on. Untrusted: only the child process of the training reads it.

    Args:
        name: name of the file as the client gave it.
        content: bytes of the file.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self.name = name
        self._content = content
        self._path = Path(name.replace("\\", "/"))

    @property
    def suffix(self) -> str:
        """Suffix of the file's name in lower case, such as `.csv` or `.csv.gz`."""
        suffixes = [suffix.lower() for suffix in self._path.suffixes[-2:]]
        return "".join(suffixes if suffixes[-1:] and suffixes[-1] in COMPRESSED else suffixes[-1:])

    @property
    def file_name(self) -> str:
        """The name reduced to 50 letters, digits and dashes, with the suffix: safe for files and models."""
        stem = self._path.name[: len(self._path.name) - len(self.suffix)][:50]
        safe = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem).strip("-")
        return (safe or "data") + self.suffix

    @property
    def is_table(self) -> bool:
        """Whether the file is a table by its name, or else a file of arrays.

        Raises:
            BadRequest: it is neither.
        """
        first = "." + self.suffix[1:].partition(".")[0]
        if first in TABLES:
            return True
        if self.suffix != ARRAYS:
            raise BadRequest(f"data: got the file {self.name[:100]!r}, expected one whose name ends in {EXPECTED}")
        return False

    def save(self, folder: Path) -> Path:
        """Write the file into a folder and free its memory; blocking.

        Raises:
            TrainingError: the file cannot be written.
        """
        path = folder / self.file_name
        try:
            path.write_bytes(self._content)
        except OSError as error:
            raise TrainingError(f"the file cannot be kept for the training: {error.strerror}") from None
        self._content = b""
        return path
