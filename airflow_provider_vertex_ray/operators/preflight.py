"""Before a cluster: what would keep it from being created or used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_vertex_ray.core.checks import has_template
from airflow_provider_vertex_ray.core.cluster.spec import ClusterSpec
from airflow_provider_vertex_ray.core.preflight.report import Status, choose_checks
from airflow_provider_vertex_ray.errors import PreflightFailedError
from airflow_provider_vertex_ray.links.base import persist_link_facts
from airflow_provider_vertex_ray.links.quota import VertexRayQuotaLink
from airflow_provider_vertex_ray.operators.base import VertexRayBaseOperator
from airflow_provider_vertex_ray.operators.leases import check_lease

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

XCOM_KEY = "return_value"
_NAMED = 3


class VertexRayPreflightOperator(VertexRayBaseOperator):
    """Looks whether a cluster could be created and used, and says what mends what is in the way.

    Looked at are, as far as the spec asks for them: the spec itself, the versions of Ray and Python, the project's
    APIs, the caller's permissions, ``actAs`` on the service account, the training quotas, machine types and
    accelerators in the region, the network's peering or attachment, the encryption key, and the buckets. Nothing is
    changed.

    The log has a table. The result (also of a task that fails) has ``worst``, ``counts`` by status, and ``findings``,
    each with ``check``, ``status`` (``pass``, ``warn``, ``fail``, ``could_not_check``), ``subject``, ``found`` and
    ``remedy``.

    :param spec: The cluster that is to be: a ``ClusterSpec``, or a dict of its fields. (templated)
    :param checks: Only these: names of ``preflight.CHECKS``. None: all that apply.
    :param bucket: A bucket that jobs use: ``my-bucket`` or ``gs://my-bucket/folder``. (templated)
    :param lease_uri: Folder in Cloud Storage with the leases of shared clusters. (templated)

    Raises InvalidArgumentError before any call for wrong input; PreflightFailedError when something is ``fail``, and for nothing
    else that is found.
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
        # Judged at DAG parse, kept as a dict so that Airflow renders the templates in it.
        self.spec = ClusterSpec.from_value(spec).to_dict()
        self.checks = None if checks is None else list(choose_checks(checks))
        if isinstance(bucket, str) and not has_template(bucket):
            from airflow_provider_vertex_ray.core.preflight.lookups import bucket_uri

            bucket_uri(bucket)
        check_lease(lease_uri)
        self.bucket = bucket
        self.lease_uri = lease_uri

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, log, and fail where something is in the way."""
        from airflow_provider_vertex_ray.hooks.preflight import VertexRayPreflightHook

        hook = VertexRayPreflightHook(
            self.gcp_conn_id, self.impersonation_chain, self.project_id or None, self.location or None
        )
        # What a template renders to nothing was not asked for.
        report = hook.preflight(
            self.spec, checks=self.checks, bucket=self.bucket or None, lease_uri=self.lease_uri or None
        )
        persist_link_facts(context, project_id=report.project, location=report.location)
        for line in report.table():
            self.log.info("%s", line)
        result = report.to_dict()
        failed = report.of(Status.FAIL)
        if failed:
            context["ti"].xcom_push(key=XCOM_KEY, value=result)
            named = "; ".join(finding.line() for finding in failed[:_NAMED])
            more = f"; and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
            raise PreflightFailedError(
                f"{len(failed)} of {len(report.findings)} findings would keep the cluster from working: {named}{more}.",
                {"findings": [finding.to_dict() for finding in failed]},
            )
        return result
