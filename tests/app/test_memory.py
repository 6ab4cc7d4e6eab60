from app.memory import Held, give_back


class Large:
    """Says when it is freed."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def __del__(self) -> None:
        self._log.append("freed")


def test_what_is_held_is_freed_by_its_last_holder() -> None:
    log: list[str] = []
    large = Large(log)
    held = [Held(large)]
    assert [each.alone for each in held] == [False]
    del large
    assert [each.alone for each in held] == [True]
    assert log == []
    give_back(held)
    assert log == ["freed"]
