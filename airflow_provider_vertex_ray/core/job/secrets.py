"""Secrets among a job's environment variables: which ones they are, and every form in which a log may show them.

A plain setting such as ``ENV=production`` is no secret: masking it would hide ordinary words. A variable is a secret if
its value is a ``Secret``, if its name says so, or if Airflow already masks its value. The names of a job's secrets
are stored in its metadata, so that the triggerer and the page know them too.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from airflow_provider_vertex_ray.core.job.secret_mask import SHORTEST_HIDDEN

__all__ = ["SECRET_NAMES_KEY", "Secret", "forms_of", "secret_names", "secret_values"]

SECRET_NAMES_KEY = "airflow_secret_env"  # noqa: S105 (a name)
"""Key in a job's metadata: the names of the variables that are secrets, as a JSON list."""

_SENSITIVE = re.compile(
    "access_key|access_token|api_key|apikey|auth_header|authorization|bearer|connection_string|credential|dsn|"
    "keyfile|passphrase|passwd|password|private_key|secret|service_key|token|webhook_url"
)
"""Parts of the names of secrets, about those of Airflow's own rule; for jobs that did not come from Airflow."""


LONGEST_CACHED = 200
"""Characters of a name up to which its judgement is remembered."""


class Secret(str):
    """Marks the value of an environment variable as a secret, so that it is masked wherever it would be shown.

    It is a string in every other way, and may contain a template: ``env_vars={"KEY": Secret("{{ var.value.key }}")}``.
    """

    __slots__ = ()


def secret_names(
    variables: Any, marked: Iterable[str] = (), is_secret: Callable[[str, str], bool] | None = None
) -> set[str]:
    """Return the names of the environment variables that are secrets.

    :param variables: the variables; anything but a dict has none
    :param marked: names that are secrets in any case
    :param is_secret: Airflow's own judgement of a name and its value
    """
    if not isinstance(variables, Mapping):
        return set()
    kept = set(marked)
    return {
        name
        for name, value in variables.items()
        if isinstance(name, str)
        and isinstance(value, str)
        and (name in kept or isinstance(value, Secret) or is_sensitive(name) or (is_secret and is_secret(name, value)))
    }


def is_sensitive(name: str) -> bool:
    """Tell whether the name of a variable says that its value is a secret."""
    return _is_sensitive(name) if len(name) <= LONGEST_CACHED else _is_sensitive.__wrapped__(name)


# Each status of a job has the same names.
@functools.lru_cache(maxsize=1024)
def _is_sensitive(name: str) -> bool:
    return _SENSITIVE.search(re.sub(r"\W+", "_", name.lower())) is not None


def secret_values(environment: Any, metadata: Any) -> tuple[str, ...]:
    """Return the secrets of a job in all forms in which its output may show them.

    :param environment: the job's runtime environment
    :param metadata: the job's metadata
    """
    variables: Any = environment.get("env_vars") if isinstance(environment, Mapping) else None
    told = metadata.get(SECRET_NAMES_KEY) if isinstance(metadata, Mapping) else None
    names = secret_names(variables, _names(told))
    return tuple(form for name in sorted(names) for form in forms_of(variables[name])) if names else ()


def _names(told: Any) -> list[str]:
    if not isinstance(told, str):
        return []
    try:
        found = json.loads(told)
    except (ValueError, RecursionError):
        return []
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def forms_of(secret: str) -> list[str]:
    """Return a secret and its encodings: in URLs, in JSON, and in Base64 at any place of a longer text."""
    plain = str(secret)
    forms = [plain, quote(plain, safe="", errors="replace"), quote_plus(plain, errors="replace")]
    forms += [quote(plain, errors="replace"), json.dumps(plain)[1:-1]]
    data = plain.encode("utf-8", "replace")
    for before in range(3):
        # The first and the last character depend on what stands beside the secret.
        text = base64.b64encode(b"\0" * before + data).decode()
        core = text[(0, 2, 3)[before] :].rstrip("=")
        core = core if (before + len(data)) % 3 == 0 else core[:-1]
        if len(core) >= SHORTEST_HIDDEN:
            forms += [core, core.replace("+", "-").replace("/", "_")]
    return list(dict.fromkeys(form for form in forms if len(form) >= SHORTEST_HIDDEN))
