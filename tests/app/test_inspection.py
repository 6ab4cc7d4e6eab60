import asyncio
from pathlib import Path

from app.inspection import Inspection, inspect
from tests.app.graphs import CARD, classifier, publish, weights

GOOD = classifier(weights([6, 3]), card=CARD)


def test_a_file_that_ends_the_reader_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    first, last = (publish(tmp_path, name, GOOD) for name in ("first", "last"))
    gone = tmp_path / "gone.onnx"  # deleted since it was found
    results = asyncio.run(inspect([first, gone, last], timeout=60))
    assert results[first] == results[last]
    assert results[first].error is None
    assert results[first].initializer_elements == 18
    assert (results[gone].error or "").startswith("reading it failed: FileNotFoundError")


def test_reading_has_a_time_limit(tmp_path: Path) -> None:
    paths = [publish(tmp_path, name, GOOD) for name in ("a", "b")]
    results = asyncio.run(inspect(paths, timeout=0.001))
    assert results == dict.fromkeys(paths, Inspection(error="not read within 0.001 s"))
