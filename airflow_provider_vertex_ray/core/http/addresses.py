"""Service endpoints and the allow-list of hosts that may receive a token."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from airflow_provider_vertex_ray.core.options import option
from airflow_provider_vertex_ray.errors import InvalidArgumentError

EMULATOR_VARIABLE = "VERTEX_RAY_EMULATOR_HOST"
STORAGE_VARIABLE = "STORAGE_EMULATOR_HOST"
UNIVERSE_VARIABLE = "GOOGLE_CLOUD_UNIVERSE_DOMAIN"
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_UNIVERSE = re.compile(rf"({_LABEL}\.)+[a-z][a-z0-9-]*[a-z0-9]")
# Below such a domain, anybody can register a host, which would receive tokens.
_OPEN_TO_ALL = re.compile(r"(ac|co|com|edu|go|gob|gov|gouv|ltd|me|ne|net|nom|or|org|plc|sch)\.[a-z]{2}")
DASHBOARD_SUFFIXES = (
    ".aiplatform-training.googleusercontent.com",
    # Workforce Identity Federation
    ".aiplatform-training.byoid.googleusercontent.com",
)
PREDICTION_SUFFIX = ".prediction.vertexai.goog"
"""End of the host names of dedicated endpoints (``dedicatedEndpointDns``)."""
DASHBOARD_HOSTS = "dashboard_hosts"
"""Option of ``[vertex_ray]`` with further hosts of dashboards, as in VPC Service Controls."""
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")
_EMULATOR = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")
_ALLOWED = re.compile(r"(?:(?P<scheme>https?)://)?(?P<host>(?:\*\.)?[a-z0-9-]+(?:\.[a-z0-9-]+)*)(?P<port>:[0-9]{1,5})?")


@dataclass(frozen=True)
class DashboardHost:
    """A host, or all hosts of a domain, that serve dashboards and may receive the token.

    :param host: host name or address; ``*.example.com`` stands for all hosts below ``example.com``
    :param port: port with a colon; empty for that of the scheme
    :param scheme: ``https``, or ``http`` where that is given
    """

    host: str
    port: str = ""
    scheme: str = "https"

    def matches(self, authority: str) -> bool:
        """Tell whether ``host:port`` is meant."""
        host, colon, port = authority.partition(":")
        if colon + port != self.port or not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)*", host):
            return False
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host


def dashboard_hosts(text: str) -> tuple[DashboardHost, ...]:
    """Return the hosts in an option: ``*.ray.example.com:8888, http://10.0.0.5:8888``.

    :raises InvalidArgumentError: an entry is malformed, or would allow every host
    """
    found = []
    for entry in filter(None, (each.strip() for each in text.split(","))):
        match = _ALLOWED.fullmatch(entry.lower())
        # "*.com" would hand the token to anybody.
        if match is None or (match["host"].startswith("*.") and match["host"].count(".") < 2):
            raise InvalidArgumentError(
                f"[vertex_ray] {DASHBOARD_HOSTS}",
                entry,
                "Use host names or addresses, with a port if it is not the default one, such as 10.0.0.5:8888 or "
                "*.ray.example.com:8888.",
            )
        found.append(DashboardHost(match["host"], match["port"] or "", match["scheme"] or "https"))
    return tuple(found)


@dataclass(frozen=True)
class Addresses:
    """Base URLs of the services, either Google's own or those of a local emulator.

    :param emulator_host: ``host:port`` of the emulator; None for the real service
    :param universe: Google's API domain (``GOOGLE_CLOUD_UNIVERSE_DOMAIN``); all hosts below it may receive a token
    :param storage_emulator: ``host:port`` of a Cloud Storage emulator next to it, which only receives the emulator's
        token
    :param dashboards: further hosts of dashboards
    """

    emulator_host: str | None = None
    universe: str = "googleapis.com"
    storage_emulator: str | None = None
    dashboards: tuple[DashboardHost, ...] = ()

    @classmethod
    def from_environment(cls) -> Addresses:
        """Read VERTEX_RAY_EMULATOR_HOST, STORAGE_EMULATOR_HOST, GOOGLE_CLOUD_UNIVERSE_DOMAIN and the option.

        :raises InvalidArgumentError: the host of an emulator is not ``host:port``, the universe domain is not a domain
            of one organisation, or the option ``[vertex_ray] dashboard_hosts`` is malformed
        """
        host = _host_in(EMULATOR_VARIABLE)
        universe = os.environ.get(UNIVERSE_VARIABLE, "").strip().lower() or "googleapis.com"
        if not _UNIVERSE.fullmatch(universe) or _OPEN_TO_ALL.fullmatch(universe):
            rule = "Use the whole domain of the APIs, such as googleapis.com, whose hosts may all receive a token."
            raise InvalidArgumentError(UNIVERSE_VARIABLE, universe, rule)
        storage = _host_in(STORAGE_VARIABLE) if host else None
        return cls(host, universe, storage, dashboard_hosts(option(DASHBOARD_HOSTS)))

    def control_plane(self, location: str) -> str:
        """Return the URL of the Vertex AI API in a region, with the version that the SDK uses, v1beta1."""
        if self.emulator_host:
            return f"http://{self.emulator_host}/v1beta1"
        return f"https://{location}-aiplatform.{self.universe}/v1beta1"

    def storage(self) -> str:
        """Return the URL of Cloud Storage."""
        return f"http://{self.storage_emulator}" if self.storage_emulator else f"https://storage.{self.universe}"

    def billing(self) -> str:
        """Return the URL of the Cloud Billing Catalog; the emulator has none and answers 404."""
        return self._google("cloudbilling")

    def logging(self) -> str:
        """Return the URL of Cloud Logging."""
        return self._google("logging")

    def monitoring(self) -> str:
        """Return the URL of Cloud Monitoring, which includes Prometheus' query API."""
        return self._google("monitoring")

    def dashboard(self, uri: str) -> str:
        """Return the base URL of a dashboard from a cluster's ``RAY_DASHBOARD_URI``, which has no scheme."""
        if self.emulator_host:
            return f"http://{self.emulator_host}/{uri.rstrip('/').rsplit('/', 1)[-1]}"
        place = uri.rstrip("/")
        allowed = next((each for each in self.dashboards if each.matches(place.partition("/")[0])), None)
        return f"{allowed.scheme if allowed else 'https'}://{place}"

    def dashboard_page(self, uri: str) -> str:
        """Return the address of a dashboard for a browser, from a cluster's ``RAY_DASHBOARD_URI``.

        That of the emulator leads to Ray's own dashboard, because a browser has no token.
        """
        if self.emulator_host:
            return f"http://{self.emulator_host}/emulator/dashboards/{uri.rstrip('/').rsplit('/', 1)[-1]}"
        return f"https://{uri}"

    def prediction(self, dns: str) -> str:
        """Return the URL of a dedicated endpoint's own host, from its ``dedicatedEndpointDns``, with the version v1."""
        return f"http://{self.emulator_host}/{dns}/v1" if self.emulator_host else f"https://{dns}/v1"

    def service_usage(self) -> str:
        """Return the URL of Service Usage, which manages enabled APIs and quota limits."""
        return self._google("serviceusage")

    def resource_manager(self) -> str:
        """Return the URL of Cloud Resource Manager, which manages permissions on projects."""
        return self._google("cloudresourcemanager")

    def iam(self) -> str:
        """Return the URL of Identity and Access Management, which manages service accounts."""
        return self._google("iam")

    def compute(self) -> str:
        """Return the URL of Compute Engine."""
        return self._google("compute")

    def kms(self) -> str:
        """Return the URL of Cloud KMS."""
        return self._google("cloudkms")

    def _google(self, name: str) -> str:
        return f"http://{self.emulator_host}" if self.emulator_host else f"https://{name}.{self.universe}"

    def token_may_go_to(self, url: str) -> bool:
        """Tell whether a request to this URL may carry the access token (design rule 7)."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        if self.emulator_host:
            hosts = (self.emulator_host, self.storage_emulator)
            return parts.scheme in ("http", "ws") and parts.netloc in hosts
        secure = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
        if any(each.scheme == secure and each.matches(parts.netloc) for each in self.dashboards):
            return True
        # The whole authority is matched, not only its end: another parser might interpret an unusual one differently.
        if parts.scheme not in ("https", "wss") or not _HOST.fullmatch(parts.netloc):
            return False
        return parts.netloc.endswith(("." + self.universe, *DASHBOARD_SUFFIXES, PREDICTION_SUFFIX))


def _host_in(variable: str) -> str | None:
    value = os.environ.get(variable, "").strip()
    host = value.removeprefix("http://").rstrip("/")
    if host and not _EMULATOR.fullmatch(host):
        rule = "Use host:port without https:// and a path, as 'vertex-ray-emulator env' prints it: 127.0.0.1:8787."
        raise InvalidArgumentError(variable, value, rule)
    return host or None
