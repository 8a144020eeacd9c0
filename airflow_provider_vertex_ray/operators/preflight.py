"""Operator that checks the prerequisites of a cluster before it is created."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.preflight.report import Status, choose_checks
from airflow_provider_vertex_ray.errors import PreflightFailedError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.quota import VertexRayQuotaLink
from airflow_provider_vertex_ray.operators.arguments import check_strings, spec_fields
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.leases import check_lease

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

XCOM_KEY = "return_value"
_NAMED = 3
_LEVELS = {
    Status.FAIL: logging.ERROR,
    Status.COULD_NOT_CHECK: logging.WARNING,
    Status.WARN: logging.WARNING,
    Status.PASS: logging.INFO,
}
"""Log levels of the findings, by which the log view can be filtered."""


class VertexRayPreflightOperator(VertexRayBaseOperator):
    """Check whether a cluster can be created and used, and report the command that fixes each problem.

    The checks cover what the spec needs: the spec itself, the versions of Ray and Python, the project's APIs, the
    caller's permissions, ``actAs`` on the service account, training quotas, machine types and accelerators in the
    region, network peering or attachment, the encryption key, and buckets. They change nothing.

    The task log shows the findings as a table. The result, which a failed task also returns, has ``worst``, ``counts``
    by status, and ``findings``, each with ``check``, ``status`` (``pass``, ``warn``, ``fail`` or ``could_not_check``),
    ``subject``, ``found`` and ``remedy``.

    :param spec: spec of the cluster to check: a ``ClusterSpec``, or a dict of its fields. (templated)
    :param checks: names of the checks to run, from ``preflight.CHECKS``. None: all that apply.
    :param bucket: bucket that jobs use: ``my-bucket`` or ``gs://my-bucket/folder``. (templated)
    :param lease_uri: Cloud Storage folder with the leases of shared clusters. (templated)
    :raises InvalidArgumentError: an argument is invalid; raised before any request.
    :raises PreflightFailedError: at least one finding has the status ``fail``.
    """

    template_fields: Sequence[str] = ("spec", "bucket", "lease_uri", *VertexRayBaseOperator.connection_fields)
    operator_extra_links = (VertexRayQuotaLink(),)

    def __init__(
        self,
        *,
        spec: ClusterSpec | dict[str, Any],
        checks: Sequence[str] | None = None,
        bucket: str | None = None,
        lease_uri: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.spec = spec_fields(spec)
        check_strings(bucket=bucket)
        self.checks = None if checks is None else list(choose_checks(checks))
        if isinstance(bucket, str) and not has_template(bucket):
            from airflow_provider_vertex_ray.core.preflight.lookups import bucket_uri

            bucket_uri(bucket)
        check_lease(lease_uri)
        self.bucket = bucket
        self.lease_uri = lease_uri

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the checks, log the findings, and fail if one of them has the status ``fail``."""
        from airflow_provider_vertex_ray.core.threads import run_sync
        from airflow_provider_vertex_ray.hooks.calls.preflight import PreflightCalls

        calls = PreflightCalls(
            self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None
        )
        # A template that renders to an empty string means that the argument is not set.
        report = run_sync(
            lambda: calls.preflight(
                self.spec, checks=self.checks, bucket=self.bucket or None, lease_uri=self.lease_uri or None
            )
        )
        persist_link_facts(context, project_id=report.project, location=report.location)
        for status, line in report.rows():
            self.log.log(_LEVELS[status], "%s", line)
        result = report.to_dict()
        failed = report.of(Status.FAIL)
        if failed:
            context["ti"].xcom_push(key=XCOM_KEY, value=result)
            named = "; ".join(finding.line() for finding in failed[:_NAMED])
            more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            raise PreflightFailedError(
                f"{len(failed)} of {len(report.findings)} findings prevent the cluster from working: {named}{more}.",
                {"findings": [finding.to_dict() for finding in failed]},
            )
        return result
