"""The specification of a cluster, with the SDK's own names.

A DAG that was written for ``vertex_ray`` or the Google provider only has to change an import. Importing this module
costs no more than importing the standard library, so DAG files may do so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_vertex_ray.core.checks import refuse_templates
from airflow_provider_vertex_ray.core.cluster import spec_rules
from airflow_provider_vertex_ray.core.cluster.machines import disk_type
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

# An arbitrary region: the hash must not depend on where a cluster is.
_HASH_LOCATION = "us-central1"


@dataclass(frozen=True)
class ClusterSpec(SpecFields):
    """The specification of a Ray cluster. Parts may be classes of this package or of ``vertex_ray``, or dicts.

    Strings that contain a Jinja template are accepted as they are; call ``validate`` once they are rendered.

    :param head_node_type: machine of the head; None for ``Resources()``. The head is one node and does not autoscale.
    :param worker_node_types: worker types, at least one, because **the head runs no work**. Workers with the head's
        machine type and accelerator share its pool, its disks and its image.
    :param ray_version: ``2.47`` or ``2.42``, or a later version, with a warning; the option ``[vertex_ray]
        ray_versions`` adds versions
    :param python_version: Python version of the cluster; None for the SDK's choice: 3.11 for Ray 2.47, 3.10 for Ray
        2.42. The attribute then holds that version.
    :param network: peered network, ``projects/NUMBER/global/networks/NAME``; cannot be combined with
        ``psc_interface_config``
    :param service_account: e-mail address of the service account that jobs run as
    :param custom_images: images to use instead of the service's own, for the head and the workers
    :param enable_metrics_collection: whether Ray's metrics are sent to Cloud Monitoring
    :param enable_logging: whether Ray's logs are sent to Cloud Logging
    :param psc_interface_config: Private Service Connect interface
    :param reserved_ip_ranges: names of IP ranges that are reserved in ``network``
    :param nfs_mounts: NFS shares that are mounted on all nodes
    :param labels: labels of the cluster, at most 64
    :param encryption_spec_key_name: Cloud KMS key in the region of the cluster; not available in the SDK
    :param allow_small_head: whether to accept a head with less than 16 vCPUs or 60 GB of memory, whose dashboard may
        never answer
    :param display_name: display name of the cluster; not available in the SDK
    :param ray_cluster_autoscaling_spec: the API's ``RayClusterAutoscalingSpec`` as a dict with ``idleTimeoutMinutes``
        and ``upscalingSpeed``, passed through as it is; not available in the SDK
    :raises InvalidArgumentError: a value breaks a rule; the error names the field, the value and the rule
    """

    def __post_init__(self) -> None:
        self._normalise()
        spec_rules.check_spec(self)

    @classmethod
    def from_value(cls, value: ClusterSpec | Mapping[str, Any]) -> ClusterSpec:
        """Return a spec from a spec or from a dict of its fields, such as rendered templates produce.

        :raises InvalidArgumentError: a key is unknown, or a value breaks a rule
        """
        if isinstance(value, ClusterSpec):
            return value
        if not isinstance(value, Mapping):
            raise InvalidArgumentError("spec", value, "Use a ClusterSpec, or a dict with its fields.")
        refuse_unknown_keys(value, {item.name for item in dataclasses.fields(cls)}, "")
        return cls(**value)

    @classmethod
    def from_persistent_resource(cls, resource: Mapping[str, Any], location: str | None = None) -> ClusterSpec:
        """Return the spec of an existing cluster from the API's JSON.

        The result is not validated until it is written again, because a cluster may have been created elsewhere under
        other rules. What a spec cannot express is left out, such as the current size of an autoscaling pool.

        :param resource: a PersistentResource, as returned by the API or as sent to it
        :param location: region of the cluster, which distinguishes the service's images from custom ones; default: the
            region in its name
        :raises InvalidArgumentError: the resource is not a Ray cluster
        """
        spec = object.__new__(cls)
        for name, value in read_body(resource, location).items():
            object.__setattr__(spec, name, value)
        return spec

    def validate(self) -> None:
        """Validate every rule again, and that no template is left, after rendering and before a request.

        :raises InvalidArgumentError: a value breaks a rule, or a template was not rendered
        """
        refuse_templates(self)
        spec_rules.check_spec(self)

    def warnings(self) -> list[str]:
        """Return warnings about values that the service accepts but that may have an unwanted effect, for a log."""
        return spec_rules.spec_warnings(self)

    def to_persistent_resource(self, location: str) -> dict[str, Any]:
        """Return the v1beta1 PersistentResource that creates the cluster.

        It equals, field for field, what ``vertex_ray.create_ray_cluster`` sends; only what the SDK lacks is added.

        :param location: region of the cluster; its continent determines the registry of the images
        :raises InvalidArgumentError: the spec is not valid, a template is left, or the location is not a region
        """
        validate_location(location)
        self.validate()
        spec_rules.check_key_location(self.encryption_spec_key_name, location)
        if self.psc_interface_config is not None:
            spec_rules.check_attachment_location(self.psc_interface_config.network_attachment, location)
        return write_body(self, location)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain dicts and lists, which Airflow can render and ``from_value`` reads."""
        plain: dict[str, Any] = _plain({item.name: getattr(self, item.name) for item in dataclasses.fields(self)})
        return plain

    def with_labels(self, extra: Mapping[str, str]) -> ClusterSpec:
        """Return the same spec with ``extra`` labels, which take precedence over its own labels."""
        return dataclasses.replace(self, labels={**self.labels, **extra})

    def spec_hash(self) -> str:
        """Return 12 hexadecimal digits that differ between specs of different clusters, for a label.

        Labels, the display name and the region do not count, nor does it matter whether a default is written out.

        :raises InvalidArgumentError: a value other than a label is still a template
        """
        for item in dataclasses.fields(self):
            if item.name not in ("labels", "display_name"):
                refuse_templates(getattr(self, item.name), item.name)
        body = write_body(self, _HASH_LOCATION)
        body.pop("labels", None)
        body.pop("displayName", None)
        for pool in body["resourcePools"]:
            default = disk_type(pool["machineSpec"]["machineType"], "pd-ssd")
            pool["diskSpec"] = {"bootDiskType": default, "bootDiskSizeGb": 100, **pool["diskSpec"]}
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
            raise InvalidArgumentError("labels", labels, "Use a dict of strings.")
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
        for name in ("network", "service_account", "encryption_spec_key_name", "display_name"):
            # An empty string means "none" on the wire, and is what an empty Airflow Variable renders to.
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
