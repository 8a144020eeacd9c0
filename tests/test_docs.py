"""The documentation is complete, its links and names exist, and its code blocks run."""

from __future__ import annotations

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow import __version__
from emulator_support.process import EmulatorProcess

from airflow_provider_vertex_ray import cluster_spec, errors, get_provider_info, log_query, price_table
from airflow_provider_vertex_ray.errors import InvalidArgumentError
from airflow_provider_vertex_ray.task_groups.cluster import VertexRayCluster
from tests.support.docs import ALL_TEXT, DOCS_TEXT, FENCE, PAGES, REPOSITORY, public_classes

PACKAGE = REPOSITORY / "airflow_provider_vertex_ray"
GITHUB = "https://github.com/airflow-provider-vertex-ray/airflow-provider-vertex-ray/"
RAW_FILES = "https://raw.githubusercontent.com/airflow-provider-vertex-ray/airflow-provider-vertex-ray/main/"
INDEX_PAGES = ("README.md", "emulator/README.md")
"""Shown by package indexes, where relative links lead nowhere."""
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FOREIGN_ERRORS = {"ModuleNotFoundError", "ValueError", "ZeroDivisionError", "RayTaskError"}
FILES_OF_READERS = {"first_cluster.py", "first_ray_jobs.py"}


def _documented_errors() -> set[str]:
    found, todo = {InvalidArgumentError.__name__}, [errors.VertexRayError]
    while todo:
        kind = todo.pop()
        found.add(kind.__name__)
        todo += kind.__subclasses__()
    return {name for name in found if name == "InvalidArgumentError" or hasattr(errors, name)}


def _slugs(text: str) -> set[str]:
    plain = FENCE.sub("", text)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in HEADING.findall(plain)}


def _code_blocks(language: str) -> list[Any]:
    return [
        pytest.param(match[2], id=f"{name}-{place}")
        for name, text in PAGES.items()
        for place, match in enumerate(FENCE.finditer(text))
        if match[1] == language
    ]


def test_site_has_every_page() -> None:
    """MkDocs warns about pages that are not in its navigation; this says so without MkDocs."""
    named = re.findall(r"^ +- (?:[^:\n]+: )?([\w/-]+\.md)$", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE)
    pages = {path.relative_to(REPOSITORY / "docs").as_posix() for path in (REPOSITORY / "docs").rglob("*.md")}
    assert sorted(named) == sorted(pages)


def test_reference_has_every_public_class() -> None:
    reference = "\n".join(path.read_text() for path in (REPOSITORY / "docs" / "reference").glob("*.md"))
    named = set(re.findall(r"^::: (airflow_provider_vertex_ray\.\S+)$", reference, re.MULTILINE))
    public = {
        f"{kind.__module__}.{kind.__name__}" for kind in public_classes(("operators", "sensors", "hooks")).values()
    }
    for module in (cluster_spec, price_table, log_query):
        public |= {f"{module.__name__}.{name}" for name in module.__all__}
    public |= {f"{VertexRayCluster.__module__}.{VertexRayCluster.__name__}", errors.__name__}
    public.add(get_provider_info()["task-decorators"][0]["class-name"])
    assert public <= named
    for name in named - {errors.__name__}:
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name


def test_documented_classes_exist() -> None:
    named = set(re.findall(r"\bVertexRay\w+", ALL_TEXT)) - {"VertexRayError", "VertexRayTaskError"}
    known = set(public_classes(("operators", "sensors", "hooks", "triggers")))
    known |= {path.rpartition(".")[2] for path in get_provider_info()["extra-links"]} | {VertexRayCluster.__name__}
    assert named <= known


def test_documented_errors_exist() -> None:
    named = set(re.findall(r"\b[A-Z]\w+Error\b", ALL_TEXT)) - FOREIGN_ERRORS
    assert named <= _documented_errors()


def test_every_error_has_an_entry_that_says_what_to_do() -> None:
    page = PAGES["troubleshooting.md"].partition("## By error type")[2]
    entries = re.findall(r"^#### `(\w+)`$(.*?)(?=^###|\Z)", page, re.MULTILINE | re.DOTALL)
    assert sorted(name for name, _ in entries) == sorted(_documented_errors() - {"VertexRayError"})
    assert [name for name, text in entries if not re.search(r"^\*\*What to do:\*\* \S", text, re.MULTILINE)] == []


@pytest.mark.parametrize(
    "name", ["VertexRayClusterHook", "VertexRayJobHook", "VertexRayMonitoringHook", "VertexRayPreflightHook"]
)
def test_hook_methods_are_documented(name: str) -> None:
    hooks = public_classes(("hooks",))
    for kind, more in ((name, set[str]()), (name.replace("Hook", "AsyncHook"), {"tail_job_logs", "jobs", "log_pages"})):
        own = {key for key, value in vars(hooks[kind]).items() if inspect.isfunction(value) and key[0] != "_"}
        for method in own - more:
            assert f"`{method}`" in DOCS_TEXT, method
    sentence = re.search(rf"`{name}` has (.*?);", DOCS_TEXT, re.DOTALL)
    assert sentence
    for method in re.findall(r"`(\w+)`", sentence[1]):
        assert hasattr(hooks[name], method)


@pytest.mark.parametrize("code", _code_blocks("python"))
def test_python_blocks_compile_and_run(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A module of a file, because the sources of functions and classes are read from there.
    file = tmp_path / "block_of_docs.py"
    file.write_text(code)
    compile(code, str(file), "exec")
    # The SDK and the emulator start things: the soak and tests/test_docs_blocks.py run those blocks.
    starts = re.search(r"^ *(?:import|from) vertex_ray", code, re.MULTILINE)
    needs_airflow_3 = "from airflow.sdk" in code and __version__.startswith("2.")
    if not starts and not needs_airflow_3:
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, file.stem, raising=False)
        import_module(file.stem)


def _links(text: str) -> list[str]:
    """Return the targets of all links and images outside code."""
    return LINK.findall(re.sub(r"`[^`\n]*`", "`code`", FENCE.sub("", text)))


@pytest.mark.parametrize(
    "name",
    [
        *(f"docs/{name}" for name in sorted(PAGES) if name != "README.md"),
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ],
)
def test_relative_links_resolve(name: str) -> None:
    page = REPOSITORY / name
    for target in _links(page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in _slugs(file.read_text()), target


@pytest.mark.parametrize("name", INDEX_PAGES)
def test_index_pages_have_absolute_links_only(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    assert [target for target in _links(text) if not target.startswith("https://")] == []
    for image in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text):
        assert image.startswith(RAW_FILES) or not image.startswith(GITHUB), f"{image} is a page, not an image"


@pytest.mark.parametrize("name", [*INDEX_PAGES, *(f"docs/{name}" for name in PAGES if name != "README.md")])
def test_absolute_links_into_the_repository_resolve(name: str) -> None:
    kinds = {f"{GITHUB}blob/main/": Path.is_file, f"{GITHUB}tree/main/": Path.is_dir, RAW_FILES: Path.is_file}
    for target in _links((REPOSITORY / name).read_text()):
        for prefix, exists in kinds.items():
            if target.startswith(prefix):
                path, _, anchor = target.removeprefix(prefix).partition("#")
                assert exists(REPOSITORY / path), target
                assert not anchor or anchor in _slugs((REPOSITORY / path).read_text()), target


def test_links_stay_in_the_site() -> None:
    """The site has the files of docs/ only; others are linked by their address."""
    assert [(name, target) for name in PAGES for target in _links(PAGES[name]) if target.startswith("../")] == []


def test_documented_files_and_modules_exist() -> None:
    named = set(re.findall(r"`([\w./-]+\.(?:py|txt))`", ALL_TEXT)) - FILES_OF_READERS
    assert {path for path in named if not (REPOSITORY / path).is_file() and not (PACKAGE / path).is_file()} == set()
    for module in re.findall(r"python -m ([\w.]+)", ALL_TEXT):
        import_module(module)


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)", ALL_TEXT)) | set(re.findall(r"^make ([a-z]+)", ALL_TEXT, re.MULTILINE))
    assert {"demo", "test", "lint", "bench", "install"} <= named <= targets


def test_documented_emulator_requests_are_served(fake_emulator: EmulatorProcess) -> None:
    requests = re.findall(r"^\| `(GET|POST) (/emulator/[\w/]+)`.*$", PAGES["emulator.md"], re.MULTILINE)
    rows = dict.fromkeys(requests)
    assert len(rows) >= 8
    deletable = [path for verb, path in rows if re.search(rf"`{verb} {path}`.*`DELETE`", PAGES["emulator.md"])]
    for verb, path in [*rows, *(("DELETE", path) for path in deletable)]:
        status, answer = fake_emulator.request(verb, path, {} if verb == "POST" else None)
        # A request without its arguments may be rejected, but its path must exist.
        assert status in (200, 400, 404), (verb, path, answer)
        assert "Method not found" not in str(answer), path
    assert "Method not found" in str(fake_emulator.request("GET", "/emulator/nothing")[1])


def test_fault_example_arms_its_faults(fake_emulator: EmulatorProcess) -> None:
    (code,) = (match[2] for match in FENCE.finditer(PAGES["emulator.md"]) if "def rehearse" in match[2])
    names: dict[str, Any] = {}
    exec(code, names)
    names["rehearse"](fake_emulator.host)
    assert len(fake_emulator.admin("GET", "faults")["faults"]) == 4


def test_product_renaming_is_mentioned_once() -> None:
    assert DOCS_TEXT.count("Gemini Enterprise Agent Platform") == 1
    assert len(re.findall(r"Managed\s+Service\s+for\s+Apache\s+Airflow", DOCS_TEXT)) == 1


def test_docs_state_that_the_service_was_never_used() -> None:
    assert re.search(r"ever\s+run against the real service\*\*", PAGES["index.md"])
    assert re.search(r"never\s+with\s+the\s+service\s+itself", PAGES["emulator.md"])
