"""What a cluster should look like, in the SDK's own words.

A DAG written for ``vertex_ray`` or the Google provider only changes an import. Nothing here costs more than
the standard library, so a DAG file may import it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.checks import refuse_templates
from airflow_provider_vertex_ray.core.cluster import spec_rules as rules
from airflow_provider_vertex_ray.core.cluster.name import validate_location
from airflow_provider_vertex_ray.core.cluster.pools import (
    default_python_version,
    parse_official_image,
)
from airflow_provider_vertex_ray.core.cluster.resource_json import read_body, write_body
from airflow_provider_vertex_ray.core.cluster.spec_fields import SpecFields
from airflow_provider_vertex_ray.core.cluster.spec_parts import (
    NfsMount,
    NodeImages,
    PscIConfig,
    Resources,
    as_part,
    as_resources,
    as_sequence,
    refuse_unknown_keys,
)
from airflow_provider_vertex_ray.errors import InvalidArgumentError

__all__ = ["ClusterSpec"]

# Any would do: the hash must not depend on where a cluster is.
_HASH_LOCATION = "us-central1"


@dataclass(frozen=True)
class ClusterSpec(SpecFields):
    """A Ray cluster to be made. Parts may be ours, ``vertex_ray``'s, or dicts.

    Strings with a Jinja template in them are taken as they are; :meth:`validate` judges them when rendered.

    :param head_node_type: machine of the head; None is ``Resources()``. One node, no autoscaling.
    :param worker_node_types: kinds of workers, at least one: **the head runs no work**. Those with the head's
        machine and accelerator share its pool, its disks and its image.
    :param ray_version: ``2.47`` or ``2.42``.
    :param python_version: of the cluster; None is what the SDK takes for that Ray: 3.11 for 2.47, 3.10 for
        2.42. The attribute then has that version.
    :param network: peered network, ``projects/NUMBER/global/networks/NAME``; not together with
        ``psc_interface_config``.
    :param service_account: e-mail of the account that jobs run as.
    :param custom_images: images in place of the service's; both are required.
    :param enable_metrics_collection: send Ray's metrics to Cloud Monitoring.
    :param enable_logging: send Ray's logs to Cloud Logging.
    :param psc_interface_config: Private Service Connect interface.
    :param reserved_ip_ranges: names of ranges reserved in ``network``.
    :param nfs_mounts: shares for all nodes.
    :param labels: up to 64.
    :param encryption_spec_key_name: Cloud KMS key of the cluster's region. The SDK does not have this.
    :raises InvalidArgumentError: a rule is broken; it names field, value and rule.
    """

    def __post_init__(self) -> None:
        self._normalise()
        rules.check_spec(self)

    @classmethod
    def from_value(cls, value: ClusterSpec | Mapping[str, Any]) -> ClusterSpec:
        """Return a spec from a spec or from a dict of its fields, as rendered templates leave it.

        :raises InvalidArgumentError: a key is unknown or a rule is broken.
        """
        if isinstance(value, ClusterSpec):
            return value
        if not isinstance(value, Mapping):
            raise InvalidArgumentError("spec", value, "give a ClusterSpec, or a dict with its fields")
        refuse_unknown_keys(value, {item.name for item in dataclasses.fields(cls)}, "")
        return cls(**value)

    @classmethod
    def from_persistent_resource(cls, resource: Mapping[str, Any], location: str | None = None) -> ClusterSpec:
        """Read the spec of an existing cluster from the API's JSON.

        The result is not validated: a cluster may have been made elsewhere under other rules, and must still
        be readable. Writing it back validates. What a spec can not express is left out: display name, DNS
        peering, reservations, and today's size of an autoscaling pool.

        :param resource: a PersistentResource, as returned by the API or as sent.
        :param location: its region; default: from its name. It tells the service's images from custom ones.
        :raises InvalidArgumentError: the resource is not a Ray cluster.
        """
        spec = object.__new__(cls)
        for name, value in read_body(resource, location).items():
            object.__setattr__(spec, name, value)
        return spec

    def validate(self) -> None:
        """Check every rule again, and that no template is left: for use after rendering, before a call.

        :raises InvalidArgumentError: a rule is broken or a template was not rendered.
        """
        refuse_templates(self)
        rules.check_spec(self)

    def warnings(self) -> list[str]:
        """Return what the service accepts but may not do what was meant, as sentences for a log."""
        return rules.spec_warnings(self)

    def to_persistent_resource(self, location: str) -> dict[str, Any]:
        """Return the v1beta1 PersistentResource to send.

        It is what ``vertex_ray.create_ray_cluster`` sends, field for field; only the encryption key is ours.

        :param location: region; the images' registry follows its continent.
        :raises InvalidArgumentError: the spec is not valid, a template is left, or the location is not a region.
        """
        validate_location(location)
        self.validate()
        rules.check_key_location(self.encryption_spec_key_name, location)
        return write_body(self, location)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain dicts and lists, for Airflow to render; :meth:`from_value` reads it."""
        plain: dict[str, Any] = _plain({item.name: getattr(self, item.name) for item in dataclasses.fields(self)})
        return plain

    def with_labels(self, extra: Mapping[str, str]) -> ClusterSpec:
        """Return the same spec with ``extra`` labels, which go before its own of the same key."""
        return dataclasses.replace(self, labels={**self.labels, **extra})

    def spec_hash(self) -> str:
        """Return 12 hexadecimal digits that differ when another cluster is asked for.

        Labels do not count, nor the region, nor whether a default was written out. It fits a label's value.

        :raises InvalidArgumentError: something other than a label is still a template.
        """
        for item in dataclasses.fields(self):
            if item.name != "labels":
                refuse_templates(getattr(self, item.name), item.name)
        body = write_body(self, _HASH_LOCATION)
        body.pop("labels", None)
        for pool in body["resourcePools"]:
            pool["diskSpec"] = {"bootDiskType": "pd-ssd", "bootDiskSizeGb": 100, **pool["diskSpec"]}
        images = body["resourceRuntimeSpec"]["raySpec"]["resourcePoolImages"]
        for pool_id, image in images.items():
            official = parse_official_image(image)
            images[pool_id] = dataclasses.astuple(official)[1:] if official else image
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _normalise(self) -> None:
        head = Resources() if self.head_node_type is None else self.head_node_type
        workers = as_sequence(self.worker_node_types, "worker_node_types")
        mounts = as_sequence(self.nfs_mounts, "nfs_mounts")
        labels = {} if self.labels is None else self.labels
        if not isinstance(labels, Mapping):
            raise InvalidArgumentError("labels", labels, "give a dict of texts")
        values: dict[str, object] = {
            "head_node_type": as_resources(head, "head_node_type"),
            "worker_node_types": tuple(
                as_resources(worker, f"worker_node_types[{place}]") for place, worker in enumerate(workers)
            ),
            "nfs_mounts": tuple(as_part(NfsMount, mount, f"nfs_mounts[{place}]") for place, mount in enumerate(mounts)),
            "reserved_ip_ranges": as_sequence(self.reserved_ip_ranges, "reserved_ip_ranges"),
            "labels": dict(labels),
        }
        if self.custom_images is not None:
            values["custom_images"] = as_part(NodeImages, self.custom_images, "custom_images")
        if self.psc_interface_config is not None:
            values["psc_interface_config"] = as_part(PscIConfig, self.psc_interface_config, "psc_interface_config")
        if self.python_version is None and isinstance(self.ray_version, str):
            values["python_version"] = default_python_version(self.ray_version)
        for name in ("network", "service_account", "encryption_spec_key_name"):
            # An empty text is "none" on the wire, and what an empty Airflow Variable renders to.
            values[name] = getattr(self, name) or None
        for name, value in values.items():
            object.__setattr__(self, name, value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
