"""Ways to write imports and calls: each is right afterwards, or is listed."""

from __future__ import annotations

import ast
import builtins
import re
import runpy
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("libcst")

from airflow_provider_vertex_ray.migrate.command import main
from airflow_provider_vertex_ray.migrate.names import CLASSES, OPERATOR_MODULES
from airflow_provider_vertex_ray.migrate.rewriter import Cluster, migrate

SHARED = Cluster("shared", "us-central1")
JOBS = "airflow.providers.google.cloud.operators.ray"
CLUSTERS = "airflow.providers.google.cloud.operators.vertex_ai.ray"
SUBMIT = f"from {JOBS} import RaySubmitJobOperator\n"
ASTRO = "from ray_provider.operators import SubmitRayJob\n"
RAY = "from ray_provider.decorators import ray\n"
TASK = "from airflow.sdk import task\n"
PLACE = 'cluster_id="shared", location="us-central1"'
OLD_CLASSES = {name for module in OPERATOR_MODULES for name in CLASSES[module]}
MENTION = re.compile(
    rf"ray_provider[\w.]*|[\w.]*google\.cloud\.(?:operators|hooks)[\w.]*\bray\b|\b(?:{'|'.join(OLD_CLASSES)})\b"
)


class Form(NamedTuple):
    """A way to write something.

    :param text: the DAG file
    :param parts: texts that the rewritten file contains
    :param left: what is left to do: the line, and a part of the note
    """

    text: str
    parts: tuple[str, ...]
    left: tuple[tuple[int, str], ...] = ()


FORMS = {
    # The decorator.
    "bare decorator": Form(
        f"{RAY}@ray.task\ndef f(): ...\n", ("import vertex_ray_task\n", f"@vertex_ray_task({PLACE})")
    ),
    "bare decorator, with Airflow's own": Form(
        f"{TASK}{RAY}@ray.task\ndef f(): ...\n", (f"{TASK}@task.vertex_ray({PLACE})\n",)
    ),
    "decorator without settings": Form(f"{RAY}@ray.task()\ndef f(): ...\n", (f"@vertex_ray_task({PLACE})",)),
    "decorator under an alias": Form(
        "from ray_provider.decorators import ray as r\n@r.task\ndef f(): ...\n", (f"@vertex_ray_task({PLACE})",)
    ),
    "decorator with setup": Form(
        f"from airflow.sdk import setup\n{RAY}@setup\n@ray.task(config={{'num_cpus': 1}})\ndef f(): ...\n",
        ("@setup\n@vertex_ray_task(**{", '"entrypoint_num_cpus": 1}'),
    ),
    "decorator of a function that imports Ray": Form(
        f"{RAY}@ray.task\ndef f():\n    import ray\n    return ray.nodes()\n",
        (f"@vertex_ray_task({PLACE})\n", "import ray\n    return ray.nodes()"),
    ),
    "decorator as a call": Form(
        f"{RAY}def f(): ...\nray.task(f)()\n", ('vertex_ray_task(f, location="us-central1", cluster_id="shared")()',)
    ),
    "decorator as a value": Form(f"{RAY}t = ray.task\n", ("t = vertex_ray_task\n",), ((2, "as a value"),)),
    "decorator with unpacked settings": Form(
        f"{RAY}@ray.task(**X)\ndef f(): ...\n", ("@vertex_ray_task(**X",), ((2, "by name"),)
    ),
    "decorator by its module": Form(
        "from ray_provider import decorators\n@decorators.ray.task\ndef f(): ...\n",
        ("@decorators.ray.task\n",),
        ((1, "by name"), (2, "not rewritten")),
    ),
    "decorator's class elsewhere": Form(
        f"{RAY}f(ray)\n", (RAY, "f(ray)\n"), ((1, "stays for what else uses it"), (2, "not rewritten"))
    ),
    "decorator that another file imports": Form(RAY, (RAY,), ((1, "stays for what else uses it"),)),
    "decorator by a star": Form(
        "from ray_provider.decorators import *\n@ray.task\ndef f(): ...\n",
        ("@ray.task\n",),
        ((1, "Name what is imported"),),
    ),
    "task known only in a function": Form(
        f"def g():\n    {TASK}{RAY}@ray.task\ndef f(): ...\n", ("import vertex_ray_task\n", "@vertex_ray_task(")
    ),
    "override of settings": Form(
        f"{RAY}@ray.task\ndef f(): ...\nf.override(config={{}})()\n", ("f.override(config",), ((4, "override"),)
    ),
    # Imports.
    "several statements on a line": Form(f"{SUBMIT.strip()}; X = 1\n", ("import VertexRaySubmitJobOperator; X = 1\n",)),
    "last of several statements, removed": Form(
        f"{TASK}X = 1; {RAY}@ray.task\ndef f(): ...\n", ("\nX = 1\n@task.vertex_ray(",)
    ),
    "block on the line of its if": Form(
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING: {SUBMIT}",
        ("if TYPE_CHECKING: from airflow_provider_vertex_ray",),
    ),
    "try around imports": Form(
        f"{TASK}try:\n    {RAY}except ImportError:\n    {RAY}@ray.task\ndef f(): ...\n", ("try:\n    pass\nexcept",)
    ),
    "fallback of an import": Form(
        f"try:\n    {SUBMIT}except ImportError:\n    RaySubmitJobOperator = None\n",
        ("    VertexRaySubmitJobOperator = None\n",),
    ),
    "module under an alias": Form(
        "from airflow.providers.google.cloud.operators import bigquery, ray as r\n"
        "job = r.RaySubmitJobOperator(cluster_address='c')\njob.output\n",
        (
            "from airflow_provider_vertex_ray.operators import job as r\n",
            "from airflow.providers.google.cloud.operators import bigquery\n",
            "r.VertexRaySubmitJobOperator(cluster_id='c', wait_for_completion=False)",
            'job.output["submission_id"]',
        ),
    ),
    "module by its name": Form(
        "from airflow.providers.google.cloud.operators.vertex_ai import ray\n"
        "ray.GetRayClusterOperator(cluster_name='c')\n",
        ("import cluster as ray\n", "ray.VertexRayGetClusterOperator(cluster_id='c')"),
    ),
    "module by import as": Form(
        f"import {JOBS} as vr\nvr.RaySubmitJobOperator(cluster_address='c')\n",
        ("import airflow_provider_vertex_ray.operators.job as vr\n", "vr.VertexRaySubmitJobOperator(cluster_id='c', "),
    ),
    "module by import": Form(
        f"import {JOBS}\n{JOBS}.RaySubmitJobOperator()\n", (), ((1, "by name"), (2, "not rewritten"))
    ),
    "module by its package": Form(
        "from airflow.providers.google.cloud import operators\noperators.ray.RaySubmitJobOperator()\n",
        (),
        ((2, "not rewritten"),),
    ),
    "module as a value": Form(
        "from airflow.providers.google.cloud.operators import ray as r\ngetattr(r, NAME)\n", (), ((2, "not rewritten"),)
    ),
    "module's other names": Form(
        "from airflow.providers.google.cloud.operators import ray as r\nr.RayJobBaseOperator\n",
        (),
        ((2, "not rewritten"),),
    ),
    "module of astro-provider-ray": Form(
        "from ray_provider.operators import ray as r\nr.SubmitRayJob()\n", (), ((1, "by name"), (2, "not rewritten"))
    ),
    "package of astro-provider-ray": Form("import ray_provider\n", (), ((1, "by name"),)),
    "hook": Form("from ray_provider.hooks import RayHook\nRayHook()\n", (), ((1, "no counterpart"),)),
    "star": Form(
        f"from {CLUSTERS} import *\nGetRayClusterOperator()\n", ("\nGetRay",), ((1, "Name what is imported"),)
    ),
    "import in a function": Form(
        f"def f():\n    {SUBMIT}    return RaySubmitJobOperator()\ndef g():\n    from other import RayStopJobOperator\n"
        "    return RayStopJobOperator(job_id='j')\n",
        ("return VertexRaySubmitJobOperator(", "return RayStopJobOperator(job_id='j')"),
    ),
    "relative import": Form(
        "from .ray_provider.operators import SubmitRayJob\nSubmitRayJob(conn_id='c')\n", ("conn_id='c'",)
    ),
    "comments in a list of names": Form(
        f"from {JOBS} import (  # jobs\n    # one\n    RaySubmitJobOperator,  # two\n    RayStopJobOperator as S,\n)\n",
        ("(  # jobs\n    # one\n    VertexRaySubmitJobOperator,  # two\n    VertexRayStopJobOperator as S,\n)\n",),
    ),
    "comments in a list of names that is split": Form(
        "from ray_provider.operators import (\n    SubmitRayJob,  # one\n    SetupRayCluster,\n)  # two\n",
        ("# one\nfrom airflow_provider_vertex_ray.operators.job import VertexRaySubmitJobOperator  # two\nfrom ",),
    ),
    "import by a text": Form(f"import importlib\nimportlib.import_module('{JOBS}')\n", (), ((2, "The text"),)),
    "docstring": Form(f'"""Uses {JOBS} today."""\nX = 1\n', ()),
    # Calls.
    "partial": Form(
        f"{SUBMIT}x = RaySubmitJobOperator.partial(cluster_address='c').expand(entrypoint=['a'])\nx.output\n",
        (".partial(cluster_id='c', wait_for_completion=False).expand(entrypoint=['a'])\nx.output[\"submission_id\"]",),
    ),
    "partial with mapped names": Form(
        f"{SUBMIT}RaySubmitJobOperator.partial().expand(cluster_address=['c'], wait_for_job_done=[True])\n",
        (".partial().expand(cluster_id=['c'], wait_for_completion=[True])",),
    ),
    "partial of astro-provider-ray": Form(
        f"{ASTRO}SubmitRayJob.partial(conn_id='c', num_cpus=1).expand(entrypoint=['a'], memory=[1])\n",
        (
            '.partial(entrypoint_num_cpus=1, location="us-central1", cluster_id="shared")',
            ".expand(entrypoint=['a'], entrypoint_memory=[1])",
        ),
    ),
    "partial with a mapped argument that has no meaning": Form(
        f"{ASTRO}SubmitRayJob.partial().expand(xcom_task_key=['a'])\n", (), ((2, "xcom_task_key has no meaning"),)
    ),
    "partial that is expanded elsewhere": Form(
        f"{ASTRO}p = SubmitRayJob.partial()\np.expand(memory=[1])\n", (), ((2, "Rename the arguments"),)
    ),
    "partial expanded by dicts": Form(
        f"{ASTRO}SubmitRayJob.partial().expand_kwargs([{{'memory': 1}}, {{'entrypoint': 'a'}}])\n",
        (),
        ((2, "memory has another name"),),
    ),
    "partial expanded by what is not seen": Form(
        f"{ASTRO}SubmitRayJob.partial().expand_kwargs(x)\n", (), ((2, "not seen"),)
    ),
    "unpacked settings": Form(f"{ASTRO}SubmitRayJob(**X)\n", (), ((2, "not seen"),)),
    "unpacked settings that are seen": Form(
        f"{ASTRO}X = {{'conn_id': 'c'}}\nSubmitRayJob(**X)\n", (), ((3, "conn_id has another name or no meaning"),)
    ),
    "unpacked settings with the same names": Form(
        f"{ASTRO}X = {{'entrypoint': 'a'}}\nSubmitRayJob(**X)\n", ("VertexRaySubmitJobOperator(**X, ",)
    ),
    "unpacked settings of the Google provider": Form(f"{SUBMIT}RaySubmitJobOperator(**X)\n", ("(**X, wait",)),
    "defaults": Form(
        f"{ASTRO}X = {{'job_timeout_seconds': 1, 'retries': 2}}\nDAG('d', default_args=X)\nSubmitRayJob()\n",
        (),
        ((3, "job_timeout_seconds is job_timeout here"),),
    ),
    "positional arguments": Form(f"{SUBMIT}RaySubmitJobOperator('a')\n", (), ((2, "by name"),)),
    "subclass": Form(
        f"{SUBMIT}class My(RaySubmitJobOperator): ...\n",
        ("class My(VertexRaySubmitJobOperator)",),
        ((2, "My extends"),),
    ),
    "isinstance and annotation": Form(
        f"{SUBMIT}def f(x: list[RaySubmitJobOperator]): return isinstance(x, (RaySubmitJobOperator, int))\n",
        ("list[VertexRaySubmitJobOperator]", "(VertexRaySubmitJobOperator, int)"),
    ),
    "class as a value": Form(f"{SUBMIT}X = RaySubmitJobOperator\n", ("X = VertexRay",), ((2, "used as a value"),)),
    "class as a text": Form(f"{SUBMIT}__all__ = ['RaySubmitJobOperator']\n", (), ((2, "The text"),)),
    "alias": Form(f"from {JOBS} import RaySubmitJobOperator as S\nS(job_id='a')\n", ("as S\nS(submission_id='a'",)),
    "alias that is the same name": Form(
        f"from {JOBS} import RaySubmitJobOperator as RaySubmitJobOperator\nRaySubmitJobOperator()\n",
        ("import VertexRaySubmitJobOperator\nVertexRaySubmitJobOperator(",),
    ),
    "alias that is the same name, with comments": Form(
        f"from {JOBS} import (\n    RaySubmitJobOperator as RaySubmitJobOperator,  # one\n)\nRaySubmitJobOperator()\n",
        ("    VertexRaySubmitJobOperator,  # one\n)\nVertexRaySubmitJobOperator(",),
    ),
    "global name": Form(
        f"{SUBMIT}def f():\n    global RaySubmitJobOperator\n    RaySubmitJobOperator = None\n",
        ("global VertexRaySubmitJobOperator\n    VertexRaySubmitJobOperator = None",),
    ),
    "comments between arguments": Form(
        f"{SUBMIT}RaySubmitJobOperator(\n    task_id='a',  # one\n    # two\n    **X,\n)\n",
        ("    task_id='a',  # one\n    wait_for_completion=False,\n    # two\n    **X,\n",),
    ),
    "comments between arguments of the decorator": Form(
        f"{RAY}@ray.task(\n    config={{'num_cpus': 1}},  # one\n    retries=1,\n)\ndef f(): ...\n",
        ('"entrypoint_num_cpus": 1},  # one\n    retries=1,\n)',),
    ),
    "same name as an attribute and a keyword": Form(
        f"{SUBMIT}def f(x): return x.RaySubmitJobs(RaySubmitJobOperator=RaySubmitJobOperator())\n",
        ("x.RaySubmitJobs(RaySubmitJobOperator=VertexRaySubmitJobOperator(",),
        (),
    ),
    "outputs of other assignments": Form(
        f"{SUBMIT}a = b = RaySubmitJobOperator()\nc: object = RaySubmitJobOperator()\n"
        "f(a.output, b.output, c.output)\n",
        ('a.output["submission_id"], b.output["submission_id"], c.output["submission_id"]',),
    ),
}


def unresolved(text: str) -> set[str]:
    """Return the names that a file reads and never binds."""
    read, bound = set[str](), set(dir(builtins))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
    return read - bound


@pytest.mark.parametrize("name", FORMS)
def test_form_is_right_afterwards_or_listed(name: str, tmp_path: Path) -> None:
    text, parts, left = FORMS[name]
    found = migrate(text, SHARED)
    compile(found.text, name, "exec")
    assert unresolved(found.text) <= unresolved(text), found.text
    for part in parts:
        assert part in found.text
    assert [line for line, _ in found.left] == [line for line, _ in left], found
    for (_, note), (_, expected) in zip(found.left, left, strict=True):
        assert expected in note
    before = dict(enumerate(text.splitlines(), 1))
    listed = {before[line] for line, _ in found.left}
    for line in found.text.splitlines():
        # The line is one that is listed, or is as right as it was: a docstring, a name of another package.
        assert not MENTION.search(line) or line in listed or name in UNRELATED, found.text
    file = tmp_path / "dag.py"
    file.write_text(text)
    place = ["--cluster-id", "shared", "--location", "us-central1"]
    assert main([*place, str(file)]) == bool(left)
    assert migrate(found.text, SHARED).text == found.text


UNRELATED = {
    "docstring",
    "import in a function",
    "relative import",
    "same name as an attribute and a keyword",
    # The star is listed; what it binds is not known.
    "star",
    "decorator by a star",
}


def test_mapped_tasks_and_bare_decorators_are_tasks(tmp_path: Path) -> None:
    text = (
        "from datetime import datetime\nfrom airflow.providers.common.compat.sdk import DAG, task\n"
        f"{RAY}{SUBMIT}{ASTRO}"
        "with DAG('forms', schedule=None, start_date=datetime(2026, 1, 1)) as dag:\n"
        "    @ray.task\n    def bare(): return 1\n"
        "    bare()\n"
        "    RaySubmitJobOperator.partial(task_id='google', cluster_address='c').expand(entrypoint=['a', 'b'])\n"
        "    SubmitRayJob.partial(task_id='astro', conn_id='c', num_cpus=1).expand(entrypoint=['a', 'b'])\n"
    )
    found = migrate(text, SHARED)
    assert found.left == []
    # A file, because the decorator reads the source of its function.
    file = tmp_path / "forms.py"
    file.write_text(found.text)
    dag: Any = runpy.run_path(str(file))["dag"]
    google, astro = (dag.get_task(name).partial_kwargs for name in ("google", "astro"))
    assert (google["cluster_id"], google["wait_for_completion"]) == ("c", False)
    assert (astro["cluster_id"], astro["entrypoint_num_cpus"]) == ("shared", 1)
    assert dag.get_task("bare").cluster_id == "shared"
