import pytest

from app.server.proxies import TrustedProxies
from app.settings import Settings

PEER = ("10.0.0.7", 4711)


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.1", ["1.2.3.4"], "203.0.113.1"),  # not a trusted proxy: its header is not believed
        ("10.0.0.7", [], "10.0.0.7"),
        ("10.0.0.7", [""], "10.0.0.7"),
        ("10.0.0.7", ["198.51.100.5"], "198.51.100.5"),
        ("10.0.0.7", ["1.1.1.1, 198.51.100.5"], "198.51.100.5"),  # 1.1.1.1 is the client's own claim
        ("10.0.0.7", ["1.1.1.1", "198.51.100.5,192.0.2.1"], "198.51.100.5"),
        ("192.0.2.1", ["10.1.2.3, 10.0.0.1"], "10.1.2.3"),  # every hop is trusted
        ("10.0.0.7", ["198.51.100.5:443"], "198.51.100.5"),
        ("10.0.0.7", ["[2001:DB8::0:1]:443"], "2001:db8::1"),
        ("10.0.0.7", ["2001:db8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.7", ["::ffff:198.51.100.5"], "198.51.100.5"),
        ("10.0.0.7", ["198.51.100.5, unknown"], "10.0.0.7"),
        ("10.0.0.7", ["198.51.100.5, unknown, 10.0.0.9"], "10.0.0.9"),
        ("10.0.0.7", ["x" * 5000], "10.0.0.7"),
        ("/run/kron.sock", ["198.51.100.5"], "/run/kron.sock"),
    ],
)
def test_the_last_hop_that_is_not_trusted(peer: str, forwarded: list[str], client: str) -> None:
    proxies = TrustedProxies(["10.0.0.0/8", "192.0.2.1"])
    headers = [(b"host", b"kron"), *((b"x-forwarded-for", value.encode()) for value in forwarded)]
    assert proxies.client((peer, 4711), headers)[0] == client


def test_a_long_list_is_read_up_to_a_number_of_hops() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    forwarded = ", ".join(["198.51.100.5", *["10.0.0.1"] * 40])
    assert proxies.client(PEER, [(b"x-forwarded-for", forwarded.encode())])[0] == "10.0.0.1"


def test_no_proxy_is_trusted_by_default() -> None:
    assert Settings.read({}).trusted_proxies == ()
    read = Settings.read({"KRON_TRUSTED_PROXIES": "10.0.0.0/8, ::1"})
    assert read.trusted_proxies == ("10.0.0.0/8", "::1")
