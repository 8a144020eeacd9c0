"""Cloud KMS: a key for a cluster's disks.

Source: https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys/get, which needs
``cloudkms.cryptoKeys.get``.
"""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_vertex_ray.api.cloud_call import read_json
from airflow_provider_vertex_ray.api.transport import Transport

ENCRYPT = "ENCRYPT_DECRYPT"
ENABLED = "ENABLED"


@dataclass(frozen=True)
class EncryptionKey:
    """A key.

    :param purpose: ``ENCRYPT_DECRYPT`` for one that can encrypt disks.
    :param primary_state: State of its primary version, such as ``ENABLED``; None without one.
    """

    purpose: str
    primary_state: str | None


async def encryption_key(transport: Transport, name: str) -> EncryptionKey:
    """Read ``projects/…/locations/…/keyRings/…/cryptoKeys/…``.

    :raises NoSuchResourceError: There is none.
    :raises VertexRayError: It can not be read.
    """
    found = await read_json(transport, "GET", f"{transport.addresses.kms()}/v1/{name}")
    primary = found.get("primary") or {}
    return EncryptionKey(str(found.get("purpose", "")), primary.get("state"))
