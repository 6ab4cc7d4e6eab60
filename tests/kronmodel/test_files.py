"""Atomic writes and checks of writability, on a real disk."""

import os
from pathlib import Path

import pytest

from kronmodel.files import is_writable_file, is_writable_folder, sync_folder, write_atomically, write_synced


def test_a_file_is_created_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    for content in (b"one", b"a longer one"):
        write_atomically(path, content)
        sync_folder(tmp_path)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_synced(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_path_never_holds_a_part_of_the_content(tmp_path: Path) -> None:
    """A reader that has the old file open goes on reading it: it was replaced, not overwritten."""
    path = tmp_path / "last.pt"
    write_atomically(path, b"old", beside=tmp_path / "last.pt.new")
    with path.open("rb") as reader:
        write_atomically(path, b"new", beside=tmp_path / "last.pt.new")
        assert reader.read() == b"old"
        assert os.fstat(reader.fileno()).st_nlink == 0


def test_what_is_writable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert is_writable_folder(tmp_path)
    assert not is_writable_folder(file)
    assert not is_writable_folder(tmp_path / "missing")
    assert is_writable_file(file)
    assert is_writable_file(tmp_path / "new")
    assert not is_writable_file(tmp_path)
    assert not is_writable_file(tmp_path / "missing" / "new")
    assert not is_writable_file(file / "new")
