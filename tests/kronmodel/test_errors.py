"""Messages name arguments of the library, and on the command line its options."""

import pickle
from pathlib import Path

import pytest

from kronmodel.cli import main as cli
from kronmodel.cli.options import error_text, option_text
from kronmodel.errors import Argument, DataError, Message

BAD = Message("2 bad rows {a}; use ", Argument("skip_bad_rows", True), " or ", Argument("task", "regression"))


def test_one_message_in_both_spellings() -> None:
    assert str(BAD) == "2 bad rows {a}; use skip_bad_rows=True or task='regression'"
    assert option_text(BAD) == "2 bad rows {a}; use --skip-bad-rows or --task regression"
    assert option_text(Message(Argument("test_fraction"), " of --data")) == "--test-share of --data"
    assert option_text("plain skip_bad_rows=True") == "plain skip_bad_rows=True"


def test_errors_carry_it_and_so_do_their_copies() -> None:
    for error in (DataError(BAD), ValueError(BAD), pickle.loads(pickle.dumps(DataError(BAD)))):
        assert str(error) == BAD
        assert error_text(error) == "2 bad rows {a}; use --skip-bad-rows or --task regression"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--data", "digits", "--target", "y", "--test-share", "0.1"],
            "--target and --test-share are for files, not for the data set digits",
        ),
        (["--data", "{csv}"], "name the column to predict by --target; "),
        (["--data", "{csv}", "--target", "y"], "leave them out with --skip-bad-rows"),
        (
            ["--data", "{unique}", "--target", "y"],
            "has one sample only; for amounts use --task regression",
        ),
        (["--data", "digits", "--dropout", "0.1"], "--dropout leaves out convolutional features; expected --features"),
    ],
)
def test_the_command_line_speaks_of_options(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"{csv}": tmp_path / "table.csv", "{unique}": tmp_path / "unique.csv"}
    paths["{csv}"].write_text("x,y\n1,1\n2,2\nthree,1\n4,2\n")
    paths["{unique}"].write_text("x,y\n1,1\n2,2\n4,3\n")
    arguments = [str(paths.get(argument, argument)) for argument in arguments]
    assert cli.main(["train", *arguments, "--out", str(tmp_path / "models")]) == 2
    assert message in capsys.readouterr().err
