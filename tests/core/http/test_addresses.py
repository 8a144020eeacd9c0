"""Which addresses there are, and which of them may see a token."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from airflow_provider_vertex_ray.core.http.addresses import Addresses, dashboard_hosts
from airflow_provider_vertex_ray.errors import InvalidArgumentError

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


@pytest.mark.parametrize(
    "value", ["localhost", "8787", "127.0.0.1", "https://127.0.0.1:8787", "127.0.0.1:8787/v1", "a b:1"]
)
@pytest.mark.parametrize("variable", ["VERTEX_RAY_EMULATOR_HOST", "STORAGE_EMULATOR_HOST"])
def test_an_emulators_address_needs_a_host_and_a_port(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("VERTEX_RAY_EMULATOR_HOST", "127.0.0.1:8787")
    monkeypatch.setenv(variable, value)
    with pytest.raises(InvalidArgumentError, match=f"Invalid value for {variable}: .*host:port"):
        Addresses.from_environment()


def test_a_browser_is_led_to_the_dashboard() -> None:
    assert GOOGLE.dashboard_page(DASHBOARD) == f"https://{DASHBOARD}"
    for uri in (DASHBOARD, f"localhost:4711/{DASHBOARD}", f"http://127.0.0.1:8787/emulator/dashboards/{DASHBOARD}"):
        assert EMULATOR.dashboard_page(uri) == f"http://127.0.0.1:8787/emulator/dashboards/{DASHBOARD}"


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


ALLOWED = "*.ray.example.com:8888, 10.0.0.5:8888, http://10.0.0.6:8265, dash.corp.example"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.ray.example.com:8888/api/jobs/", True),
        ("https://a.b.ray.example.com:8888/", True),
        ("https://ray.example.com:8888/", False),
        ("https://a.ray.example.com/", False),
        ("https://a.ray.example.com:8889/", False),
        ("http://a.ray.example.com:8888/", False),
        ("https://evilray.example.com:8888/", False),
        ("https://a.ray.example.com:8888@evil.com/", False),
        ("https://10.0.0.5:8888/api", True),
        ("wss://10.0.0.5:8888/api", True),
        ("http://10.0.0.5:8888/api", False),
        ("https://10.0.0.55:8888/", False),
        ("http://10.0.0.6:8265/", True),
        ("ws://10.0.0.6:8265/", True),
        ("https://10.0.0.6:8265/", False),
        ("https://dash.corp.example/", True),
        ("https://dash.corp.example:443/", False),
    ],
)
def test_allowed_hosts_of_dashboards(url: str, expected: bool) -> None:
    assert Addresses(dashboards=dashboard_hosts(ALLOWED)).token_may_go_to(url) is expected
    assert GOOGLE.token_may_go_to(url) is False


def test_allowed_hosts_have_their_scheme() -> None:
    addresses = Addresses(dashboards=dashboard_hosts(ALLOWED))
    assert addresses.dashboard("10.0.0.6:8265") == "http://10.0.0.6:8265"
    assert addresses.dashboard("10.0.0.5:8888/") == "https://10.0.0.5:8888"
    assert addresses.dashboard(DASHBOARD) == f"https://{DASHBOARD}"


@pytest.mark.parametrize(
    "value", ["*", "*.com", "*.", "10.0.0.5:", "https://", "a b", "user@host", "host/path", "a.*.b"]
)
def test_malformed_allowed_hosts_are_rejected(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__VERTEX_RAY__DASHBOARD_HOSTS", value)
    with pytest.raises(InvalidArgumentError, match=r"\[vertex_ray\] dashboard_hosts"):
        Addresses.from_environment()


def test_the_option_names_hosts_of_dashboards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__VERTEX_RAY__DASHBOARD_HOSTS", ALLOWED)
    monkeypatch.delenv("VERTEX_RAY_EMULATOR_HOST", raising=False)
    assert Addresses.from_environment().token_may_go_to("https://10.0.0.5:8888/api")
    monkeypatch.delenv("AIRFLOW__VERTEX_RAY__DASHBOARD_HOSTS")
    assert not Addresses.from_environment().token_may_go_to("https://10.0.0.5:8888/api")


def test_dedicated_endpoints_and_federated_dashboards_may_receive_the_token() -> None:
    dns = "1234.us-central1-5678.prediction.vertexai.goog"
    assert GOOGLE.prediction(dns) == f"https://{dns}/v1"
    assert GOOGLE.token_may_go_to(f"https://{dns}/v1/x:predict")
    assert not GOOGLE.token_may_go_to(f"http://{dns}/v1/x:predict")
    assert not GOOGLE.token_may_go_to("https://prediction.vertexai.goog/")
    assert not GOOGLE.token_may_go_to("https://x.prediction.vertexai.goog.evil.com/")
    assert GOOGLE.token_may_go_to("https://a-dot-us-central1.aiplatform-training.byoid.googleusercontent.com/api")
    assert EMULATOR.prediction(dns) == f"http://127.0.0.1:8787/{dns}/v1"
