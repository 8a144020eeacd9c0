"""Cloud Storage: whether a bucket is there, and what the caller may do in it. Nothing is written.

Source: https://cloud.google.com/storage/docs/json_api/v1/buckets/testIamPermissions, which needs no permission.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlencode

from airflow_provider_vertex_ray.api.cloud_call import NoSuchResourceError, read_json
from airflow_provider_vertex_ray.api.leases import parse_lease_uri
from airflow_provider_vertex_ray.api.transport import Transport
from airflow_provider_vertex_ray.errors import ServiceError
from airflow_provider_vertex_ray.spec_error import SpecError


async def permissions_in(transport: Transport, bucket: str, permissions: Sequence[str]) -> set[str] | None:
    """Those of the permissions that the transport's account has in a bucket.

    None where the server knows no permissions, as an emulator of Cloud Storage does not: then the bucket is there.

    :raises NoSuchResourceError: There is no such bucket.
    :raises VertexRayError: It can not be told.
    """
    url = f"{transport.addresses.storage()}/storage/v1/b/{bucket}"
    query = urlencode([("permissions", permission) for permission in permissions])
    try:
        found = await read_json(transport, "GET", f"{url}/iam/testPermissions?{query}")
    except NoSuchResourceError:
        raise
    except ServiceError as error:
        # The page of a server that has no such method, and not Cloud Storage's own answer.
        if error.details.get("http_status") != 404:
            raise
        await read_json(transport, "GET", url)
        return None
    return set(found.get("permissions") or [])


def bucket_uri(bucket: str) -> str:
    """A bucket's name, or a URI in it, as a ``gs://`` URI.

    :raises SpecError: It is none.
    """
    uri = bucket if isinstance(bucket, str) and "://" in bucket else f"gs://{bucket}"
    try:
        parse_lease_uri(uri)
    except SpecError as error:
        raise SpecError("bucket", bucket, "give a bucket's name, or gs://BUCKET/FOLDER") from error
    return uri
