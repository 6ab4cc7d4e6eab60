"""Files of deploy/ against the service: settings, paths, versions and times that they name."""

import re
from pathlib import Path

import pytest

import kronmodel
from app.access.keys import required_role
from app.settings import Settings

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "Dockerfile", *sorted((ROOT / "deploy").rglob("*.yaml")), *sorted((ROOT / "deploy").rglob("*.yml"))]
TEXTS = {str(file.relative_to(ROOT)): file.read_text() for file in FILES}


@pytest.mark.parametrize("name", TEXTS)
def test_settings_and_versions_exist(name: str) -> None:
    text = TEXTS[name]
    for variable in re.findall(r"\bKRON_([A-Z_]+)\b", text):
        assert variable.lower() in Settings.model_fields, variable
    for version in re.findall(r"image: kronmodel:(\S+)", text):
        assert version in {kronmodel.__version__, "latest"}
    for path in re.findall(r"path: (/(?:v2|metrics)\S*)", text):
        assert required_role("GET", path) is None  # probes and Prometheus have no key


def test_values_of_settings_are_valid() -> None:
    values = dict(
        re.findall(r"- name: (KRON_[A-Z_]+)\n\s+value: \"?([^\"\n]+)", TEXTS["deploy/kubernetes/deployment.yaml"])
    )
    settings = Settings.read(values)
    assert settings.keys is not None
    grace = re.search(r"terminationGracePeriodSeconds: (\d+)", TEXTS["deploy/kubernetes/deployment.yaml"])
    assert grace
    assert int(grace[1]) > settings.drain_seconds + settings.grace_seconds
    compose = re.search(r"stop_grace_period: (\d+)s", TEXTS["deploy/compose.yaml"])
    assert compose
    assert int(compose[1]) > Settings().drain_seconds + Settings().grace_seconds
    started = re.search(r"failureThreshold: (\d+)", TEXTS["deploy/kubernetes/deployment.yaml"])
    assert started
    assert int(started[1]) >= settings.load_seconds


def test_the_image_has_valid_settings_without_any_option() -> None:
    values = dict(re.findall(r"\b(KRON_[A-Z_]+)=(\S+)", TEXTS["Dockerfile"]))
    settings = Settings.read(values)
    assert (settings.host, settings.port, settings.log_format) == ("0.0.0.0", 8000, "json")
    assert settings.generate_key is not None
    assert not settings.insecure_no_keys
