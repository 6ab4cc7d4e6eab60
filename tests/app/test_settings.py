"""Settings from the environment and from options."""

import pytest

from app.errors import StartupError
from app.settings import Settings


def test_the_default_host_is_the_loopback() -> None:
    settings = Settings.read({})
    assert (settings.host, settings.port, settings.device, settings.threads) == ("127.0.0.1", 8000, "auto", None)


def test_options_take_precedence_over_the_environment() -> None:
    environ = {"KRON_PORT": "9000", "KRON_THREADS": "3", "KRON_MAX_BATCH": "7", "KRON_TWIN": "", "PORT": "1"}
    settings = Settings.read(environ, {"port": "9001"})
    assert (settings.port, settings.threads, settings.max_batch, settings.twin) == (9001, 3, 7, None)


def test_model_devices_override_the_device() -> None:
    settings = Settings.read({"KRON_DEVICE": "cuda", "KRON_MODEL_DEVICES": " a=cpu, b = cuda:1,"})
    assert [settings.device_of(name) for name in "abc"] == ["cpu", "cuda:1", "cuda"]
    assert settings.devices == {"cpu", "cuda", "cuda:1"}
    assert Settings.read({"KRON_MODEL_DEVICES": ""}).devices == {"auto"}


def test_settings_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1


@pytest.mark.parametrize(
    ("environ", "options", "message"),
    [
        ({"KRON_PORT": "http"}, {}, "KRON_PORT: got 'http', expected a valid integer, unable to parse"),
        ({"KRON_PORT": "65536"}, {}, "KRON_PORT: got '65536', expected less than or equal to 65535"),
        ({}, {"port": "-1"}, "--port: got '-1', expected greater than or equal to 0"),
        ({"KRON_DEVICE": "tpu"}, {}, "KRON_DEVICE: got 'tpu', expected auto, cpu, cuda or cuda:N"),
        ({"KRON_DEVICE": "cuda:1:2"}, {}, "KRON_DEVICE: got 'cuda:1:2', expected auto, cpu, cuda or cuda:N"),
        ({}, {"model_devices": "a=cpu,b"}, "--model-devices: got '', expected auto, cpu, cuda or cuda:N"),
        ({}, {"model_devices": "a/b=cpu"}, "--model-devices: got 'a/b', expected"),
        ({}, {"max_body_bytes": "12"}, "--max-body-bytes: got '12', expected greater than or equal to 1024"),
        ({"KRON_THREADS": "0"}, {}, "KRON_THREADS: got '0', expected greater than or equal to 1"),
        ({"KRON_COMPARE_SECONDS": "nan"}, {}, "KRON_COMPARE_SECONDS: got 'nan', expected"),
        ({"KRON_PREDICT_SECONDS": "inf"}, {}, "KRON_PREDICT_SECONDS: got 'inf', expected"),
        ({"KRON_TWIN": "a/b"}, {}, "KRON_TWIN: got 'a/b', expected"),
        ({"KRON_TRUSTED_PROXIES": "10.0.0.1/8"}, {}, "KRON_TRUSTED_PROXIES: got ['10.0.0.1/8'], expected addresses"),
        ({"KRON_LOG_LEVEL": "loud"}, {}, "KRON_LOG_LEVEL: got 'loud', expected 'debug', 'info', 'warning' or 'error'"),
        ({"KRON_HOST": "x" * 300}, {}, "KRON_HOST: got 'xxx"),
    ],
)
def test_invalid_values_are_one_line_that_names_their_source(
    environ: dict[str, str], options: dict[str, str], message: str
) -> None:
    with pytest.raises(StartupError) as caught:
        Settings.read(environ, options)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
