"""The wheel, as a user gets it: built, installed into a new environment, and seen by Airflow there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence
from configparser import ConfigParser
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__ as airflow_version

import airflow_provider_vertex_ray
from airflow_provider_vertex_ray import __version__, get_provider_info
from airflow_provider_vertex_ray.links.page_address import HAS_PAGE

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = "airflow_provider_vertex_ray"
DISTRIBUTION = "airflow-provider-vertex-ray"
# Parts of the page that only Airflow's API server imports, which Airflow 2 does not have.
AIRFLOW_3_ONLY = (
    {f"plugins.page.{name}" for name in ("access", "actions", "app", "download")}
    if airflow_version.startswith("2.")
    else set[str]()
)


@dataclass(frozen=True)
class Installed:
    """A new environment with the wheel in it."""

    folder: Path
    airflow_home: Path

    def run(self, command: Sequence[str], code: int = 0) -> str:
        """Run something of the environment and give what it printed."""
        done = subprocess.run(
            [str(self.folder / "bin" / command[0]), *command[1:]],
            # Elsewhere than in the repository, so that nothing of it is found by chance.
            cwd=self.folder,
            env=_clean_environment() | {"AIRFLOW_HOME": str(self.airflow_home), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr[-4000:]}"
        return done.stdout


_AIRFLOW_COMMANDS = """
import contextlib, io, json, sys
from airflow.cli import cli_parser
parser, said = cli_parser.get_parser(), []
for arguments in json.loads(sys.argv[1]):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        given = parser.parse_args(arguments)
        given.func(given)
    said.append(output.getvalue())
print("\\n" + json.dumps(said))
"""


@pytest.fixture(scope="module")
def airflow(installed: Installed) -> dict[str, str]:
    """What commands of the ``airflow`` of that environment print; in one process, as the imports take seconds."""
    commands = (
        "providers list -o json",
        f"providers get {DISTRIBUTION} --full -o json",
        "plugins -o json",
        "config list --section vertex_ray -d -e",
        "providers links -o json",
    )
    arguments = json.dumps([command.split() for command in commands])
    said = installed.run(["python", "-c", _AIRFLOW_COMMANDS, arguments]).splitlines()[-1]
    return dict(zip(commands, json.loads(said), strict=True))


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, env=_clean_environment(), capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``pip wheel`` makes of the repository. The build's own requirement, hatchling, is a development one too."""
    folder = tmp_path_factory.mktemp("wheel")
    _pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(folder), str(REPOSITORY))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """A new environment with the wheel alone; Airflow and the other requirements are lent by this one."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=600)
    python = folder / "bin" / "python"
    _pip("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    (site,) = folder.glob("lib/python*/site-packages")
    # A path file lends the packages in this folder, but not what its own path files lead to: an editable install of
    # this repository stays unseen.
    lent = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (site / "lent.pth").write_text("\n".join(lent) + "\n")
    return Installed(folder, tmp_path_factory.mktemp("airflow"))


def _names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"{PACKAGE}-{__version__}-py3-none-any.whl"
    names = _names(wheel)
    root = Path(airflow_provider_vertex_ray.__file__).parent
    on_disk = {f"{PACKAGE}/{file.relative_to(root).as_posix()}" for file in root.rglob("*.py")}
    shipped = {name for name in names if not name.startswith(f"{PACKAGE}-{__version__}.dist-info/")}
    assert on_disk <= shipped
    assert {name.split("/")[0] for name in shipped} == {PACKAGE}
    assert {Path(name).suffix for name in shipped - on_disk} <= {".typed", ".json", ".html", ".css", ".js", ".svg"}
    tables = {"core/cluster/ray_versions.json", "core/serving/containers.json"}
    assert {name for name in shipped if name.endswith(".json")} == {f"{PACKAGE}/{table}" for table in tables}
    assert f"{PACKAGE}/py.typed" in shipped
    assert not [name for name in names if "emulator" in name]
    page = {
        f"{PACKAGE}/{file.relative_to(root).as_posix()}" for file in (root / "plugins").rglob("*") if file.is_file()
    }
    assert {name for name in page if not name.endswith(".pyc")} <= shipped
    for part in ("templates/page.html", "static/page.css", "static/page.js", "static/theme.js"):
        assert f"{PACKAGE}/plugins/{part}" in shipped


def test_the_wheels_metadata(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        folder = f"{PACKAGE}-{__version__}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode()
        entry_points = archive.read(f"{folder}/entry_points.txt").decode()
    assert f"\nName: {DISTRIBUTION}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert any("LICENSE" in name for name in _names(wheel))
    for requirement in (
        "apache-airflow!=3.0.*,>=2.11",
        "apache-airflow-providers-google",
        "google-cloud-aiplatform",
        "aiohttp",
    ):
        assert f"\nRequires-Dist: {requirement}" in metadata
    # A Ray in the base would change the one in a Composer image.
    rays = [line for line in metadata.splitlines() if line.startswith("Requires-Dist: ray")]
    assert rays
    assert all("extra == 'client'" in line for line in rays)
    assert f"provider_info = {PACKAGE}:get_provider_info" in entry_points
    assert "emulator" not in entry_points
    assert f"vertex-ray-preflight = {PACKAGE}.hooks.preflight_command:main" in entry_points
    assert f"[airflow.plugins]\nvertex_ray = {PACKAGE}.plugins.ray_clusters:VertexRayPlugin" in entry_points


def test_the_installed_package_is_the_wheels(installed: Installed) -> None:
    code = f"import {PACKAGE} as p; print(p.__file__, p.__version__)"
    file, version = installed.run(["python", "-c", code]).split()
    assert Path(file).is_relative_to(installed.folder)
    assert version == __version__


def test_every_module_can_be_imported_there(installed: Installed) -> None:
    code = (
        f"import importlib, pkgutil, {PACKAGE} as p\n"
        "names = [m.name for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.')]\n"
        "names = [name for name in names if not name.endswith('__main__')]\n"
        f"names = [name for name in names if name.removeprefix(p.__name__ + '.') not in {AIRFLOW_3_ONLY}]\n"
        "[importlib.import_module(name) for name in names]\n"
        "print(len(names))"
    )
    root = Path(airflow_provider_vertex_ray.__file__).parent
    # Each folder counts once, as a package; a folder without __init__ holds files that are no modules of the package.
    expected = [
        file
        for file in root.rglob("*.py")
        if file.name != "__main__.py" and file != root / "__init__.py" and (file.parent / "__init__.py").exists()
        if ".".join(file.relative_to(root).with_suffix("").parts) not in AIRFLOW_3_ONLY
    ]
    assert int(installed.run(["python", "-c", code]).split()[-1]) == len(expected)


def test_airflow_lists_the_provider(airflow: dict[str, str]) -> None:
    listed = json.loads(_json_of(airflow["providers list -o json"]))
    ours = [entry for entry in listed if entry["package_name"] == DISTRIBUTION]
    assert [entry["version"] for entry in ours] == [__version__]


def test_airflow_shows_the_provider(airflow: dict[str, str]) -> None:
    shown = _json_of(airflow[f"providers get {DISTRIBUTION} --full -o json"])
    assert DISTRIBUTION in shown
    assert f"{PACKAGE}.operators.cluster" in shown
    assert f"{PACKAGE}.triggers.job" in shown


def test_airflow_knows_the_page(airflow: dict[str, str]) -> None:
    shown = _json_of(airflow["plugins -o json"])
    ours = [entry for entry in json.loads(shown) if entry["name"] == "vertex_ray"]
    assert len(ours) == 1
    assert ("ray-clusters" in json.dumps(ours)) == (not airflow_version.startswith("2."))
    options = airflow["config list --section vertex_ray -d -e"]
    assert "page_locations" in options
    assert "page_sources" in options


def test_airflow_knows_the_extra_links(airflow: dict[str, str]) -> None:
    shown = airflow["providers links -o json"]
    for link in get_provider_info()["extra-links"]:
        assert link in shown


def test_the_preflights_command_works_there(installed: Installed) -> None:
    assert "--gcp-conn-id" in installed.run(["vertex-ray-preflight", "--help"])
    installed.run(["vertex-ray-preflight", "--location", "nowhere"], code=2)


def _json_of(output: str) -> str:
    """The JSON in a command's output: Airflow may print warnings of its own before it."""
    return output[min(output.find(start) for start in "[{" if start in output) :]


def _schema() -> dict[str, Any]:
    import airflow

    for folder in airflow.__path__:
        file = Path(folder) / "provider_info.schema.json"
        if file.is_file():
            return dict(json.loads(file.read_text()))
    raise AssertionError(f"no provider_info.schema.json in {list(airflow.__path__)}")


def test_the_provider_info_is_what_this_airflow_takes() -> None:
    import jsonschema  # type: ignore[import-untyped]

    schema = _schema()
    jsonschema.validate(get_provider_info(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**get_provider_info(), "extra-links": "a string"}, schema)
    # The schema lets unknown keys pass, so a spelling mistake would. Airflow 2.11's own knows fewer of them.
    later = {"versions", "integrations", "operators", "sensors", "hooks"}
    assert set(get_provider_info()) <= set(schema["properties"]) | later


def test_everything_in_the_provider_info_exists() -> None:
    info = get_provider_info()
    for kind in ("operators", "sensors", "hooks", "triggers"):
        for entry in info[kind]:
            assert entry["integration-name"] in {each["integration-name"] for each in info["integrations"]}
            for module in entry["python-modules"]:
                import_module(module)
    for path in info["extra-links"]:
        module, _, name = path.rpartition(".")
        assert hasattr(import_module(module), name)


def test_every_extra_link_of_an_operator_is_in_the_provider_info() -> None:
    # Airflow's API server knows only links that are registered.
    told = set(get_provider_info()["extra-links"])
    used = set()
    for entry in get_provider_info()["operators"]:
        for name in entry["python-modules"]:
            for value in vars(import_module(name)).values():
                for link in getattr(value, "operator_extra_links", ()) if isinstance(value, type) else ():
                    used.add(f"{type(link).__module__}.{type(link).__qualname__}")
    # The link to the page, which Airflow 2 does not have.
    assert told - used == (set() if HAS_PAGE else {f"{PACKAGE}.links.page.VertexRayPageLink"})
    assert used <= told


def test_the_entry_point_gives_the_provider_info(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"{PACKAGE}-{__version__}.dist-info/entry_points.txt").decode()
    parser = ConfigParser(delimiters="=")
    parser.read_string(text)
    value = parser["apache_airflow_provider"]["provider_info"]
    assert EntryPoint("provider_info", value, "apache_airflow_provider").load()()["package-name"] == DISTRIBUTION
