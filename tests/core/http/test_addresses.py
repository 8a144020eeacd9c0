"""Which addresses there are, and which of them may see a token."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from airflow_provider_vertex_ray.core.http.addresses import Addresses

DASHBOARD = "0123abcd-dot-us-central1.aiplatform-training.googleusercontent.com"
SUFFIXES = (".googleapis.com", ".aiplatform-training.googleusercontent.com")
GOOGLE = Addresses()
EMULATOR = Addresses("127.0.0.1:8787")

# Pieces of which attackers' URLs are made.
PIECES = st.sampled_from(
    ["https://", "http://", "wss://", "//", "/", "\\", "@", ":", "#", "?", "%2e", "%00", "\t", "\n", " ", "[", "]", ".",
     "evil.com", "googleapis.com", ".googleapis.com", "us-central1-aiplatform.googleapis.com", DASHBOARD, "443", "8443",
     "user:pw", "127.0.0.1:8787", "127.0.0.1", "localhost", "\uff0e", "\u3002", "xn--", "é", "-", "a"]
)  # fmt: skip
HOSTILE = st.lists(PIECES, max_size=8).map("".join).flatmap(lambda tail: st.sampled_from([tail, f"https://{tail}"]))


def test_the_addresses_of_google() -> None:
    assert GOOGLE.control_plane("us-east5") == "https://us-east5-aiplatform.googleapis.com/v1beta1"
    assert GOOGLE.logging() == "https://logging.googleapis.com"
    assert GOOGLE.monitoring() == "https://monitoring.googleapis.com"
    assert GOOGLE.dashboard(DASHBOARD) == f"https://{DASHBOARD}"
    assert GOOGLE.dashboard(DASHBOARD + "/") == f"https://{DASHBOARD}"


def test_the_addresses_of_the_other_services() -> None:
    names = {"service_usage": "serviceusage", "resource_manager": "cloudresourcemanager", "iam": "iam",
             "compute": "compute", "kms": "cloudkms", "monitoring": "monitoring"}  # fmt: skip
    for method, name in names.items():
        assert getattr(GOOGLE, method)() == f"https://{name}.googleapis.com"
        assert GOOGLE.token_may_go_to(f"https://{name}.googleapis.com/v1/x")
        assert getattr(EMULATOR, method)() == "http://127.0.0.1:8787"


def test_the_addresses_of_an_emulator() -> None:
    assert EMULATOR.control_plane("us-east5") == "http://127.0.0.1:8787/v1beta1"
    assert EMULATOR.logging() == EMULATOR.monitoring() == "http://127.0.0.1:8787"
    for uri in (DASHBOARD, f"localhost:4711/{DASHBOARD}", f"localhost:4711/{DASHBOARD}/"):
        assert EMULATOR.dashboard(uri) == f"http://127.0.0.1:8787/{DASHBOARD}"


@pytest.mark.parametrize("value", ["127.0.0.1:8787", "http://127.0.0.1:8787", " http://127.0.0.1:8787/ "])
def test_the_environment_names_an_emulator(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", value)
    assert Addresses.from_environment() == EMULATOR


def test_the_environment_names_another_universe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", "")
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example-cloud.test")
    addresses = Addresses.from_environment()
    assert addresses.control_plane("eu-west1") == "https://eu-west1-aiplatform.example-cloud.test/v1beta1"
    assert addresses.token_may_go_to("https://eu-west1-aiplatform.example-cloud.test/v1beta1/x")
    assert not addresses.token_may_go_to("https://eu-west1-aiplatform.googleapis.com/v1beta1/x")


@pytest.mark.parametrize(
    "url",
    [
        "https://us-central1-aiplatform.googleapis.com/v1beta1/projects/p?a=b#c",
        f"https://{DASHBOARD}/api/jobs/x",
        f"wss://{DASHBOARD}/api/jobs/x/logs/tail",
    ],
)
def test_where_a_token_goes(url: str) -> None:
    assert GOOGLE.token_may_go_to(url)
    assert not EMULATOR.token_may_go_to(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://us-central1-aiplatform.googleapis.com/",  # in the clear
        f"ws://{DASHBOARD}/",
        "https://evil.com/.googleapis.com",
        "https://evil.com/?x=.googleapis.com",
        "https://evil.com#.googleapis.com",
        "https://evil.com\\.googleapis.com/",
        "https://evil.com\\@x.googleapis.com/",
        "https://evil.com:443\\@x.googleapis.com/",
        "https://x.googleapis.com@evil.com/",
        "https://x.googleapis.com:pw@evil.com/",
        "https://user:pw@x.googleapis.com/",
        "https://x.googleapis.com.evil.com/",
        "https://evilgoogleapis.com/",
        "https://googleapis.com/",
        "https://.googleapis.com/",
        "https://evil.com\t.googleapis.com@evil.com/",
        "https://x.googleapis.com:8443/",
        "https://x.googleapis.com:99999/",
        "https://aiplatform-training.googleusercontent.com/",
        "https://evil.googleusercontent.com/",
        "https://evil.com%2f.googleapis.com/",
        "https://evil.com\uff0egoogleapis.com/",
        "https://[::1].googleapis.com/",
        "https://127.0.0.1:8787/",
        "//x.googleapis.com/",
        "x.googleapis.com",
        "file:///x.googleapis.com",
        "",
    ],
)
def test_where_no_token_goes(url: str) -> None:
    assert not GOOGLE.token_may_go_to(url)
    assert not EMULATOR.token_may_go_to(url)


@given(HOSTILE)
@example("https://evil.com\\.googleapis.com")
@example("https://evil.com\n.googleapis.com")
def test_what_may_see_a_token_is_google_for_the_http_client_too(url: str) -> None:
    # The check and aiohttp (yarl) must not read one URL in two ways.
    if GOOGLE.token_may_go_to(url):
        read = URL(url)
        assert read.scheme in ("https", "wss")
        assert read.port == 443
        assert read.user is None
        assert (read.raw_host or "").endswith(SUFFIXES)


@given(HOSTILE)
def test_an_emulators_token_stays_with_the_emulator(url: str) -> None:
    if EMULATOR.token_may_go_to(url):
        assert URL(url).authority == "127.0.0.1:8787"


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8787@evil.com/", "http://127.0.0.1:87871/", "http://127.0.0.1/", "https://127.0.0.1:8787/"],
)
def test_an_emulators_token_goes_to_no_other_port(url: str) -> None:
    assert EMULATOR.token_may_go_to("http://127.0.0.1:8787/x")
    assert not EMULATOR.token_may_go_to(url)
