"""The default models of requests that name none."""

from pathlib import Path

from app.models.card import Card
from app.models.scan import Artifact
from app.models.twin import default_names


def artifact(name: str, twin_name: str, role: str) -> Artifact:
    return Artifact(
        name=name, version="1", path=Path(name), file_bytes=1, initializer_bytes=1, initializer_elements=1,
        card=Card.model_validate({"twin": twin_name, "role": role}),
    )  # fmt: skip


def test_default_names() -> None:
    alpha = [artifact("z-alpha-d", "alpha", "dense"), artifact("a-alpha-k", "alpha", "kronecker")]
    mnist = [artifact("mnist-dense", "mnist", "dense"), artifact("mnist-kronecker", "mnist", "kronecker")]
    half = artifact("half", "aaa", "dense")
    assert default_names([*alpha, *mnist, half], None) == ["mnist-kronecker", "mnist-dense"]
    assert default_names([*alpha, *mnist, half], "alpha") == ["a-alpha-k", "z-alpha-d"]
    assert default_names([*alpha, half], None) == ["a-alpha-k", "z-alpha-d"]
    assert default_names([*alpha, half], "unknown") == ["a-alpha-k", "z-alpha-d"]
    assert default_names([half], None) == ["half"]
    assert default_names([], None) == []


def test_a_compressed_model_and_its_original_are_a_twin() -> None:
    pair = [artifact("net", "net", "original"), artifact("net-compressed", "net", "compressed")]
    assert default_names(pair, None) == ["net-compressed", "net"]
    dense = [artifact("mnist-dense", "mnist", "dense"), artifact("mnist-dense-compressed", "mnist", "compressed")]
    assert default_names(dense, None) == ["mnist-dense-compressed", "mnist-dense"]
    kronecker = artifact("mnist-kronecker", "mnist", "kronecker")
    assert default_names([*dense, kronecker], None) == ["mnist-kronecker", "mnist-dense"]
    assert default_names(pair[:1], None) == ["net"]
