"""Where the service's parts are, and which of them may see a token."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

EMULATOR_VARIABLE = "VERTEX_RAY_EMULATOR_HOST"
STORAGE_VARIABLE = "STORAGE_EMULATOR_HOST"
DASHBOARD_SUFFIX = ".aiplatform-training.googleusercontent.com"
_HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")


@dataclass(frozen=True)
class Addresses:
    """The service's addresses: Google's, or those of a local emulator.

    :param emulator_host: ``host:port`` of the emulator, or None for the real service.
    :param universe: Google's API domain (``GOOGLE_CLOUD_UNIVERSE_DOMAIN``).
    :param storage_emulator: ``host:port`` of a Cloud Storage emulator beside it; only the emulator's token goes there.
    """

    emulator_host: str | None = None
    universe: str = "googleapis.com"
    storage_emulator: str | None = None

    @classmethod
    def from_environment(cls) -> Addresses:
        """As ``VERTEX_RAY_EMULATOR_HOST``, ``STORAGE_EMULATOR_HOST`` and ``GOOGLE_CLOUD_UNIVERSE_DOMAIN`` say."""
        host = _host_in(EMULATOR_VARIABLE)
        universe = os.environ.get("GOOGLE_CLOUD_UNIVERSE_DOMAIN") or "googleapis.com"
        return cls(host, universe, _host_in(STORAGE_VARIABLE) if host else None)

    def control_plane(self, location: str) -> str:
        """The Vertex AI API of a region, with its version: the SDK's own, v1beta1."""
        if self.emulator_host:
            return f"http://{self.emulator_host}/v1beta1"
        return f"https://{location}-aiplatform.{self.universe}/v1beta1"

    def storage(self) -> str:
        """Cloud Storage."""
        return f"http://{self.storage_emulator}" if self.storage_emulator else f"https://storage.{self.universe}"

    def billing(self) -> str:
        """The Cloud Billing Catalog; the emulator has none, so that a request there is answered with 404."""
        return f"http://{self.emulator_host}" if self.emulator_host else f"https://cloudbilling.{self.universe}"

    def logging(self) -> str:
        """Cloud Logging."""
        return f"http://{self.emulator_host}" if self.emulator_host else f"https://logging.{self.universe}"

    def monitoring(self) -> str:
        """Cloud Monitoring, which has Prometheus' query API."""
        return f"http://{self.emulator_host}" if self.emulator_host else f"https://monitoring.{self.universe}"

    def dashboard(self, uri: str) -> str:
        """The base URL of a dashboard from a cluster's ``RAY_DASHBOARD_URI``, which has no scheme."""
        if self.emulator_host:
            return f"http://{self.emulator_host}/{uri.rstrip('/').rsplit('/', 1)[-1]}"
        return f"https://{uri.rstrip('/')}"

    def service_usage(self) -> str:
        """Service Usage: which APIs are enabled, and the limits of quotas."""
        return self._cloud("serviceusage")

    def resource_manager(self) -> str:
        """Cloud Resource Manager: permissions on projects."""
        return self._cloud("cloudresourcemanager")

    def iam(self) -> str:
        """Identity and Access Management: service accounts."""
        return self._cloud("iam")

    def compute(self) -> str:
        """Compute Engine."""
        return self._cloud("compute")

    def kms(self) -> str:
        """Cloud KMS."""
        return self._cloud("cloudkms")

    def _cloud(self, name: str) -> str:
        return f"http://{self.emulator_host}" if self.emulator_host else f"https://{name}.{self.universe}"

    def token_may_go_to(self, url: str) -> bool:
        """Whether a request to this URL may carry the access token (design rule 5)."""
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        if self.emulator_host:
            hosts = (self.emulator_host, self.storage_emulator)
            return parts.scheme in ("http", "ws") and parts.netloc in hosts
        # The whole authority is matched, not only its end: another parser might read a strange one differently.
        if parts.scheme not in ("https", "wss") or not _HOST.fullmatch(parts.netloc):
            return False
        return parts.netloc.endswith(("." + self.universe, DASHBOARD_SUFFIX))


def _host_in(variable: str) -> str | None:
    return os.environ.get(variable, "").strip().removeprefix("http://").rstrip("/") or None
