"""The Airflow connection to Google Cloud: its project, and its credentials with as few imports as it allows.

The Google provider's base hook imports three clients of its own (Secret Manager, gcloud-aio, the discovery client): a
second of CPU time in each worker process. A connection without a key, impersonation or another such setting needs
none of them: its credentials are the Application Default Credentials. For every other connection the base hook decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook, Connection

from airflow_provider_vertex_ray.core.http.addresses import Addresses
from airflow_provider_vertex_ray.core.http.auth import CredentialsTokenSource, EmulatorTokenSource, TokenSource
from airflow_provider_vertex_ray.errors import CredentialsError, InvalidArgumentError

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

DEFAULT_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
"""OAuth scope of a connection that names none, as in the Google provider."""

PREFIX = "extra__google_cloud_platform__"
"""Prefix of the extra fields in connections from before Airflow 2.3."""

CONNECTION_TYPE = "google_cloud_platform"
"""Type of the Airflow connections to Google Cloud."""

GOOGLE_CONNECTIONS = ("google", "gcp", "generic")
"""Beginnings of the types of connections that may have Google's credentials."""

PLAIN_FIELDS = {"project", "scope", "num_retries"}
"""Extra fields that leave the choice of credentials to Google's own search (Application Default Credentials)."""


def check_connection(gcp_conn_id: object, impersonation_chain: object) -> None:
    """Validate what names the credentials, before anything is asked for.

    :raises InvalidArgumentError: the connection's id or the impersonation chain is not text.
    """
    if not isinstance(gcp_conn_id, str) or not gcp_conn_id:
        raise InvalidArgumentError("gcp_conn_id", gcp_conn_id, "Use the id of an Airflow connection.")
    chain = impersonation_chain
    accounts = [chain] if isinstance(chain, str) else chain if isinstance(chain, list | tuple) else None
    if chain is not None and not (accounts and all(isinstance(each, str) and each for each in accounts)):
        rule = "Use the e-mail address of a service account, a list of them, or None."
        raise InvalidArgumentError("impersonation_chain", chain, rule)


def read_connection(conn_id: str, read: Callable[[str], Any]) -> Any:
    """Return the Airflow connection; an empty one if there is none and the emulator, which needs none, is used.

    :param conn_id: id of the connection.
    :param read: ``get_connection`` of an Airflow hook.
    :raises InvalidArgumentError: the connection does not exist, or is one to something else than Google Cloud.
    """
    try:
        found = read(conn_id)
    except AirflowNotFoundException:
        if Addresses.from_environment().emulator_host:
            return Connection(conn_id=conn_id, conn_type=CONNECTION_TYPE)
        variable = f"AIRFLOW_CONN_{conn_id.upper()}"
        rule = (
            f"The Airflow connection does not exist. Create it with 'airflow connections add {conn_id} --conn-type "
            f"{CONNECTION_TYPE}', or set {variable} for the scheduler, the workers and the triggerer, such as "
            "google-cloud-platform://?project=my-project."
        )
        raise InvalidArgumentError("gcp_conn_id", conn_id, rule) from None
    kind = found.conn_type or ""
    if kind and not kind.startswith(GOOGLE_CONNECTIONS):
        rule = f"Use a connection of the type {CONNECTION_TYPE}; this one has the type {kind}."
        raise InvalidArgumentError("gcp_conn_id", conn_id, rule)
    return found


Find = Callable[[], "tuple[Any, str | None]"]
"""Finds the credentials of a connection, and their project."""


def project_of(conn_id: str, named: str | None, find: Find) -> str | None:
    """Return the project of a connection: the one that it names, else that of its credentials.

    :param conn_id: id of the connection.
    :param named: the project that the connection itself names.
    :param find: finds its credentials, of which the emulator needs none.
    :raises CredentialsError: it has none, or they cannot be read.
    """
    if named or Addresses.from_environment().emulator_host:
        return named or None
    return _credentials_of(conn_id, find)[1]


def token_source_of(conn_id: str, find: Find) -> TokenSource:
    """Return the source of access tokens: a connection's credentials, or the emulator if one is configured.

    :param conn_id: id of the connection.
    :param find: finds its credentials.
    :raises CredentialsError: it has none, or they cannot be read.
    """
    host = Addresses.from_environment().emulator_host
    return EmulatorTokenSource(host) if host else CredentialsTokenSource(_credentials_of(conn_id, find)[0])


def _credentials_of(conn_id: str, find: Find) -> tuple[Any, str | None]:
    from google.auth.exceptions import GoogleAuthError

    try:
        return find()
    except (GoogleAuthError, AirflowException, OSError, ValueError) as error:
        # The first line only: what follows may quote a key.
        why = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CredentialsError(f"The Airflow connection {conn_id!r} gives no credentials: {why}") from None


class GoogleConnection:
    """An Airflow connection of type ``google_cloud_platform``, read once. Everything here blocks.

    :param gcp_conn_id: id of the connection.
    :param impersonation_chain: Service account to impersonate, or a chain of them; default: the connection's.
    :raises InvalidArgumentError: the connection's id or the impersonation chain is not text, the connection does not
        exist, or it is one to something else than Google Cloud.
    """

    def __init__(self, gcp_conn_id: str, impersonation_chain: str | Sequence[str] | None = None) -> None:
        check_connection(gcp_conn_id, impersonation_chain)
        self._id = gcp_conn_id
        self._chain = impersonation_chain
        self._extras: Any = read_connection(gcp_conn_id, BaseHook.get_connection).extra_dejson
        self._found: tuple[Credentials, str | None] | None = None

    @property
    def named_project(self) -> str | None:
        """The project that the connection itself names."""
        return field_of(self._extras, "project") or None

    def project(self) -> str | None:
        """Return the project: the one that the connection names, else that of its credentials."""
        return project_of(self._id, self.named_project, self.credentials_and_project)

    def token_source(self) -> TokenSource:
        """Return the source of access tokens: the connection's credentials, or the emulator if one is configured."""
        return token_source_of(self._id, self.credentials_and_project)

    def token_source_and_project(self) -> tuple[TokenSource, str | None]:
        """Return what a session needs of the connection."""
        return self.token_source(), self.project()

    def credentials_and_project(self) -> tuple[Credentials, str | None]:
        """Return what ``GoogleBaseHook.get_credentials_and_project_id`` returns for this connection.

        :raises GoogleAuthError: there are no credentials, or they cannot be read.
        :raises AirflowException: the connection's settings are invalid or contradict each other.
        """
        if self._found is None:
            plain = self._chain is None and is_plain(self._extras)
            self._found = self._default_credentials() if plain else self._base_hook_credentials()
        return self._found

    def _default_credentials(self) -> tuple[Credentials, str | None]:
        import google.auth

        scope = field_of(self._extras, "scope")
        scopes = [each.strip() for each in scope.split(",")] if scope else [DEFAULT_SCOPE]
        credentials, project = google.auth.default(scopes=scopes)
        return credentials, self.named_project or project or ""

    def _base_hook_credentials(self) -> tuple[Credentials, str | None]:
        from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

        hook = GoogleBaseHook(gcp_conn_id=self._id, impersonation_chain=self._chain)
        return hook.get_credentials_and_project_id()


def field_of(extras: Any, name: str) -> Any:
    """Return a field of a connection's extras, under its name or, if that is missing, its prefixed name.

    :return: the value; None for an empty text, which is what forms store for an empty field.
    """
    value = extras[name] if name in extras else extras.get(PREFIX + name)
    return None if value == "" else value


def is_plain(extras: Any) -> bool:
    """Tell whether a connection's credentials are the Application Default Credentials, with nothing added.

    A field that is not known here and is not empty says no: a later Google provider may give it a meaning.

    :param extras: the connection's extras.
    """
    if not isinstance(extras, Mapping):
        return False
    set_fields = {str(key).removeprefix(PREFIX) for key, value in extras.items() if value}
    scope = field_of(extras, "scope")
    return set_fields <= PLAIN_FIELDS and (scope is None or isinstance(scope, str))
