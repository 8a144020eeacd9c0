"""Hypothesis strategies for cluster specs that the service takes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

LOCATIONS = (
    "us-central1",
    "us-east5",
    "europe-west4",
    "asia-northeast1",
    "me-west1",
    "southamerica-east1",
    "northamerica-northeast1",
    "australia-southeast1",
)

# Machine type, accelerator and count, as Vertex AI offers them together.
MACHINES: tuple[tuple[str, str | None, int], ...] = (
    ("n1-standard-16", None, 0),
    ("n1-standard-16", "NVIDIA_TESLA_T4", 1),
    ("n1-standard-16", "NVIDIA_TESLA_T4", 2),
    ("n1-standard-32", "NVIDIA_TESLA_V100", 4),
    ("n1-highmem-8", None, 0),
    ("n2-standard-32", None, 0),
    ("e2-standard-16", None, 0),
    ("c2-standard-30", None, 0),
    ("g2-standard-48", "NVIDIA_L4", 4),
    ("a2-highgpu-1g", "NVIDIA_TESLA_A100", 1),
    ("a3-highgpu-8g", "NVIDIA_H100_80GB", 8),
)

HEADS = tuple(kind for kind in MACHINES if kind[0] not in ("n1-highmem-8", "a2-highgpu-1g"))
"""Those that are large enough for a head."""

_IMAGES = st.sampled_from(
    (
        "us-docker.pkg.dev/my-project/ray/ray-cpu.2-47.py311:latest",
        "europe-docker.pkg.dev/my-project/ray/gpu:1.0",
        # The service's own, named outright: must not be mistaken for "no custom image".
        "us-docker.pkg.dev/vertex-ai/training/ray-cpu.2-42.py310:latest",
        "asia-docker.pkg.dev/vertex-ai/training/ray-gpu.2-47.py311:latest",
        "us-docker.pkg.dev/vertex-ai/training/ray-gpu.2-42.py310:latest",
    )
)
_LABEL_LETTERS = "abz09_-é字"
_LABEL_KEYS = st.builds(str.__add__, st.sampled_from("axé字"), st.text(_LABEL_LETTERS, max_size=20))
_LABEL_VALUES = st.text(_LABEL_LETTERS, max_size=30)
_NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True)
_VERSIONS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    (
        {},
        {"ray_version": "2.47"},
        {"ray_version": "2.42"},
        {"python_version": "3.11"},
        {"ray_version": "2.47", "python_version": "3.11"},
        {"ray_version": "2.42", "python_version": "3.10"},
        {"ray_version": "2.42", "python_version": "3.11"},
        {"ray_version": "2.47", "python_version": None},
    )
)


@st.composite
def autoscaling(draw: st.DrawFn) -> dict[str, int]:
    """Bounds; now and then one of them is left to its default."""
    low = draw(st.integers(1, 6))
    high = draw(st.integers(low + 1, 12))
    shortened = {"max_replica_count": high} if low == 1 else {}
    return draw(st.sampled_from([{"min_replica_count": low, "max_replica_count": high}, shortened or {}]))


def _machine(kind: tuple[str, str | None, int], *, explicit: bool) -> dict[str, Any]:
    machine_type, accelerator, count = kind
    found: dict[str, Any] = {}
    if explicit or machine_type != "n1-standard-16":
        found["machine_type"] = machine_type
    if explicit or accelerator is not None:
        found["accelerator_type"] = accelerator
        found["accelerator_count"] = count
    return found


def _disk() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "boot_disk_type": st.sampled_from(("pd-ssd", "pd-standard", None)),
            "boot_disk_size_gb": st.one_of(st.none(), st.integers(100, 64_000)),
        },
    )


@st.composite
def spec_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Keyword arguments that both ``vertex_ray.create_ray_cluster`` and ``ClusterSpec`` take.

    Fields are left out now and then, so that defaults are compared too. Some worker types have the head's machine.
    """
    fields: dict[str, Any] = dict(draw(_VERSIONS))
    images = draw(st.one_of(st.none(), st.none(), st.fixed_dictionaries({"head": _IMAGES, "worker": _IMAGES})))
    if images:
        fields["custom_images"] = images

    head_kind = draw(st.sampled_from(HEADS))
    head = {**_machine(head_kind, explicit=draw(st.booleans())), **draw(_disk())}
    head_image = draw(st.one_of(st.none(), st.none(), _IMAGES))
    if head_image:
        head["custom_image"] = head_image
    if draw(st.booleans()):
        head["node_count"] = 1
    if draw(st.booleans()) or head_kind != MACHINES[0] or head:
        fields["head_node_type"] = head

    # The head's own machine is made likely: its workers are the ones with the odd rules.
    kinds = draw(st.lists(st.one_of(st.just(head_kind), st.sampled_from(MACHINES)), min_size=1, max_size=4))
    # Several worker types may share the head's pool, if none of them autoscales.
    fixed = kinds.count(head_kind) > 1
    fields["worker_node_types"] = [_worker(draw, kind, head_kind, head, images, fixed=fixed) for kind in kinds]

    fields |= draw(
        st.one_of(
            st.just({}),
            st.fixed_dictionaries({"network": _NAMES.map("projects/123456789012/global/networks/{}".format)}),
            st.fixed_dictionaries(
                {
                    "network": _NAMES.map("projects/123456789012/global/networks/{}".format),
                    "reserved_ip_ranges": st.lists(_NAMES, max_size=2, unique=True),
                }
            ),
            st.fixed_dictionaries(
                {
                    "psc_interface_config": st.fixed_dictionaries(
                        {
                            # One with a region would have to be in that of the cluster.
                            "network_attachment": _NAMES
                        }
                    )
                }
            ),
        )
    )
    fields |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "service_account": _NAMES.map("{}@my-project.iam.gserviceaccount.com".format),
                "enable_metrics_collection": st.booleans(),
                "enable_logging": st.booleans(),
                "labels": st.dictionaries(_LABEL_KEYS, _LABEL_VALUES, max_size=4),
                "nfs_mounts": st.lists(
                    st.fixed_dictionaries(
                        {
                            "server": st.sampled_from(("10.0.0.2", "nfs.example.com")),
                            "path": _NAMES.map("/{}".format),
                            "mount_point": _NAMES,
                        }
                    ),
                    max_size=2,
                ),
            },
        )
    )
    return fields


def _worker(
    draw: st.DrawFn,
    kind: tuple[str, str | None, int],
    head_kind: tuple[str, str | None, int],
    head: dict[str, Any],
    images: dict[str, str] | None,
    *,
    fixed: bool,
) -> dict[str, Any]:
    worker = _machine(kind, explicit=draw(st.booleans()))
    if kind == head_kind:
        worker |= {name: head[name] for name in ("boot_disk_type", "boot_disk_size_gb") if name in head}
        head_image = head.get("custom_image") or (images or {}).get("head")
        if head_image and (images or draw(st.booleans())):
            worker["custom_image"] = head_image
    else:
        worker |= draw(_disk())
        image = draw(st.one_of(st.none(), st.none(), _IMAGES))
        if image:
            worker["custom_image"] = image
    if draw(st.booleans()):
        worker["node_count"] = draw(st.integers(1, 12))
    if draw(st.integers(0, 2)) == 0 and not (fixed and kind == head_kind):
        worker["autoscaling_spec"] = draw(autoscaling())
    return worker
