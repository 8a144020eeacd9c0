"""The plugin as each process of Airflow loads it, on both of its lines."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_provider_vertex_ray.links.page_address import PREFIX, base_path
from airflow_provider_vertex_ray.plugins.ray_clusters import LazyApp, VertexRayPlugin
from tests.plugins.conftest import AIRFLOW_3

_CHILD = """
import json, sys
import airflow.plugins_manager
before = set(sys.modules)
import airflow_provider_vertex_ray.plugins.ray_clusters
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_loading_the_plugin_is_cheap() -> None:
    done = subprocess.run([sys.executable, "-c", _CHILD], capture_output=True, text=True, timeout=240, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert [name for name in loaded if name.split(".")[0] in ("fastapi", "aiohttp", "jinja2", "ray", "google")] == []
    # The root may be there already: Airflow asks it for the provider's info.
    assert {name for name in loaded if name.startswith("airflow_provider_vertex_ray.")} == {
        "airflow_provider_vertex_ray.links",
        "airflow_provider_vertex_ray.links.page_address",
        "airflow_provider_vertex_ray.plugins",
        "airflow_provider_vertex_ray.plugins.ray_clusters",
    }
    assert len(loaded) < 60


def test_airflow_loads_the_plugin() -> None:
    plugin = VertexRayPlugin()
    plugin.validate()
    assert plugin.name == "vertex_ray"


@pytest.mark.skipif(AIRFLOW_3, reason="the page is there on Airflow 3")
def test_plugin_is_empty_on_airflow_2() -> None:
    for attribute in ("fastapi_apps", "external_views", "appbuilder_views", "flask_blueprints"):
        assert getattr(VertexRayPlugin, attribute, []) == []


@pytest.mark.skipif(not AIRFLOW_3, reason="there is no page on Airflow 2")
def test_plugin_adds_page_and_navigation_on_airflow_3() -> None:
    (app,) = VertexRayPlugin.fastapi_apps
    assert app["url_prefix"] == PREFIX
    assert isinstance(app["app"], LazyApp)
    (view,) = VertexRayPlugin.external_views
    assert (view["destination"], view["href"]) == ("nav", "/ray-clusters/")
    # Airflow's own icon, which follows its colours and which screen readers leave out.
    assert "icon" not in view


@pytest.mark.parametrize(
    ("url", "path"),
    [("", ""), ("http://h:80", ""), ("https://h/", ""), ("https://h/airflow/", "/airflow"), ("/a/b", "/a/b")],
)
def test_base_path_of_airflow_is_respected(monkeypatch: pytest.MonkeyPatch, url: str, path: str) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", url)
    assert base_path() == path
