"""Rewrites the imports, classes and arguments in a DAG file, and notes what it could not decide.

libcst rather than ``ast``: it keeps comments and the layout, so that the difference shows only what has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from airflow_provider_vertex_ray.migrate import names
from airflow_provider_vertex_ray.migrate.collector import Collector, dotted, text_of

__all__ = ["Cluster", "Migrated", "migrate"]


@dataclass(frozen=True)
class Cluster:
    """The cluster on which the jobs of astro-provider-ray run from now on; there, a connection names it.

    :param cluster_id: id or full resource name; None if the DAG creates it
    :param location: region; None if the id is a full name
    """

    cluster_id: str | None = None
    location: str | None = None


@dataclass
class Migrated:
    """A rewritten file.

    :param text: its text
    :param changes: what was changed and is worth a look, each with its line in the old file
    :param left: what must be done by hand, each with its line in the old file
    """

    text: str
    changes: list[tuple[int, str]] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)


def migrate(text: str, cluster: Cluster | None = None) -> Migrated:
    """Return a DAG file as it is written for this package.

    :param text: the file
    :param cluster: where jobs run whose cluster is not named in the file
    :raises libcst.ParserSyntaxError: the file is not valid Python
    """
    module = cst.parse_module(text)
    found = Collector()
    module.visit(found)
    rewriter = _Rewriter(found, cluster or Cluster())
    result = Migrated(MetadataWrapper(module).visit(rewriter).code)
    result.changes, result.left = sorted(set(rewriter.changes)), sorted(set(rewriter.left))
    return result


class _Rewriter(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, found: Collector, cluster: Cluster) -> None:
        super().__init__()
        self._found = found
        self._cluster = cluster
        self.changes: list[tuple[int, str]] = []
        self.left: list[tuple[int, str]] = []
        self._inside: list[str] = []

    def _line(self, node: cst.CSTNode) -> int:
        return int(self.get_metadata(PositionProvider, node).start.line)

    def _changed(self, node: cst.CSTNode, text: str) -> None:
        self.changes.append((self._line(node), text))

    def _to_do(self, node: cst.CSTNode, text: str) -> None:
        self.left.append((self._line(node), text))

    # --- imports ----------------------------------------------------------------------------------------------------

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement] | cst.RemovalSentinel:
        old = original_node.body[0]
        if len(updated_node.body) != 1 or not isinstance(old, cst.ImportFrom):
            return updated_node
        new = list(self._imports(original_node, old))
        if not new:
            return cst.RemoveFromParent()
        if new == [old]:
            return original_node
        lines: list[cst.BaseStatement] = [updated_node.with_changes(body=[new[0]])]
        lines += [cst.SimpleStatementLine([each]) for each in new[1:]]
        return cst.FlattenSentinel(lines)

    def _imports(self, line: cst.CSTNode, node: cst.ImportFrom) -> Iterator[cst.ImportFrom]:
        module = dotted(node.module)
        known = names.CLASSES.get(module, {})
        if module in names.ASTRO_DECORATORS:
            # Otherwise Airflow's own "task" knows it.
            if not self._found.has_task:
                yield _import("airflow_provider_vertex_ray.decorators.job", [("vertex_ray_task", None)])
            return
        if module == "google.cloud.aiplatform.vertex_ray.util" and not isinstance(node.names, cst.ImportStar):
            aliases = {str(alias.evaluated_name): alias.evaluated_alias for alias in node.names}
            if set(aliases) == {"resources"}:
                yield _import("airflow_provider_vertex_ray", [("cluster_spec", aliases["resources"] or "resources")])
                return
        if not known:
            yield node
            return
        if isinstance(node.names, cst.ImportStar):
            self._to_do(line, f"Name what is imported from {module}")
            yield node
            return
        kept: list[cst.ImportAlias] = []
        moved: dict[str, list[tuple[str, str | None]]] = {}
        for alias in node.names:
            name = str(alias.evaluated_name)
            if name in known:
                target, here = known[name]
                moved.setdefault(target, []).append((here, alias.evaluated_alias))
            else:
                self._to_do(line, f"{module}.{name} has no counterpart")
                kept.append(alias.with_changes(comma=cst.MaybeSentinel.DEFAULT))
        for target, found in moved.items():
            yield _import(target, found)
        if kept:
            yield node.with_changes(names=kept)

    # --- classes and arguments --------------------------------------------------------------------------------------

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        module, there = self._found.classes.get(original_node.value, ("", ""))
        # A local alias keeps its name.
        if there == original_node.value:
            return updated_node.with_changes(value=names.CLASSES[module][there][1])
        return updated_node

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        name = dotted(original_node.func)
        last = name.rpartition(".")[2]
        if name.rpartition(".")[0] in self._found.astro and last == "task":
            return self._decorator(original_node, updated_node)
        if ("vertex_ray" in name.split(".") and last in names.SDK_CALLS) or last == "JobSubmissionClient":
            self._to_do(original_node, f"{name} works as it is, in a worker slot; consider {names.SDK_CALLS[last]}")
        module, there = self._found.classes.get(name, ("", ""))
        if not there or module == names.SDK_RESOURCES:
            return self._dag_arguments(name, updated_node)
        if any(arg.keyword is None and not arg.star for arg in original_node.args):
            self._to_do(original_node, f"Give the arguments of {there} by name")
        if module in names.ASTRO_OPERATORS:
            return self._astro_call(original_node, updated_node, there)
        return self._google_call(original_node, updated_node, there)

    def _dag_arguments(self, name: str, call: cst.Call) -> cst.Call:
        if name not in ("DAG", "dag"):
            return call
        args = [
            arg.with_changes(keyword=cst.Name("schedule")) if _keyword(arg) == "schedule_interval" else arg
            for arg in call.args
        ]
        return call.with_changes(args=args)

    def _google_call(self, old: cst.Call, call: cst.Call, there: str) -> cst.Call:
        given = {_keyword(arg) for arg in call.args}
        args = []
        for arg, before in zip(call.args, old.args, strict=True):
            keyword, value = _keyword(arg), arg.value
            if keyword in names.GOOGLE_ARGUMENTS:
                arg = arg.with_changes(keyword=cst.Name(names.GOOGLE_ARGUMENTS[keyword]))
            if keyword == "cluster_address" and isinstance(value, cst.SimpleString):
                # The address leads to its cluster too, but only by a list of all clusters.
                text = value.value.replace("['dashboard_address']", "['name']")
                arg = arg.with_changes(value=cst.SimpleString(text.replace('["dashboard_address"]', '["name"]')))
            if keyword == "runtime_env":
                arg = arg.with_changes(value=arg.value.visit(_WithoutRay(self, before)))
            args.append(arg)
        if there == "CreateRayClusterOperator":
            args = self._new_versions(old, args)
        if there == "RaySubmitJobOperator" and "wait_for_job_done" not in given:
            args = _with(args, "wait_for_completion", "False")
            self._changed(old, "wait_for_completion=False is the default of the Google provider")
        return call.with_changes(args=args)

    def _new_versions(self, old: cst.Call, args: list[cst.Arg]) -> list[cst.Arg]:
        version = next((text_of(arg.value) for arg in args if _keyword(arg) == "ray_version"), None)
        if version not in names.OLD_RAY:
            return args
        self._changed(old, f"Vertex AI no longer offers Ray {version}; the cluster gets {_listed(names.NEW_VERSIONS)}")
        return [
            arg.with_changes(value=cst.SimpleString(f'"{names.NEW_VERSIONS[_keyword(arg)]}"'))
            if _keyword(arg) in names.NEW_VERSIONS
            else arg
            for arg in args
        ]

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        variable = dotted(original_node.value)
        if original_node.attr.value == "output" and variable in self._found.outputs:
            return _expression(f"{dotted(updated_node)}[{self._found.outputs[variable]!r}]".replace("'", '"'))
        return updated_node

    def leave_Subscript(self, original_node: cst.Subscript, updated_node: cst.Subscript) -> cst.BaseExpression:
        # What names an XCom already stays as it is.
        inner = original_node.value
        if isinstance(inner, cst.Attribute) and inner.attr.value == "output":
            return updated_node.with_changes(value=inner)
        return updated_node

    # --- astro-provider-ray -----------------------------------------------------------------------------------------

    def _astro_call(self, old: cst.Call, call: cst.Call, there: str) -> cst.Call:
        args = []
        for arg in call.args:
            keyword = _keyword(arg)
            here = names.ASTRO_ARGUMENTS.get(keyword, keyword)
            if here is None:
                self._dropped(old, keyword, there)
                continue
            args.append(arg.with_changes(keyword=cst.Name(here)) if keyword else arg)
        for name, value in self._place(old, creates=there == "SetupRayCluster"):
            args = _with(args, name, value)
        if args and call.args[-1] not in args:
            # The last one's comma and line break.
            last = call.args[-1]
            args[-1] = args[-1].with_changes(comma=last.comma, whitespace_after_arg=last.whitespace_after_arg)
        return call.with_changes(args=args)

    def _dropped(self, old: cst.CSTNode, setting: str, there: str) -> None:
        if setting not in ("ray_cluster_yaml", "use_gpu") or there == "DeleteRayCluster":
            return
        instead = (
            "set worker_node_types of the cluster instead"
            if there == "SetupRayCluster"
            else "the job makes no cluster, and runs on the one that cluster_id names"
        )
        self._changed(old, f"{setting} is for Kubernetes; {instead}")

    def _place(self, old: cst.CSTNode, *, creates: bool = False) -> Iterator[tuple[str, str]]:
        """Yield the arguments that name a cluster."""
        cluster = self._cluster
        if not creates:
            # What the DAG sets up comes first: its teardown must not delete the cluster that the command names.
            if len(self._found.create_tasks) == 1:
                (task,) = self._found.create_tasks
                yield "cluster_id", f"\"{{{{ ti.xcom_pull(task_ids='{task}', key='cluster_id') }}}}\""
            elif self._found.create_tasks:
                self._to_do(old, "Set cluster_id: the DAG file sets up several clusters")
            elif cluster.cluster_id:
                yield "cluster_id", repr(cluster.cluster_id).replace("'", '"')
            else:
                self._to_do(old, "Set cluster_id, or run vertex-ray-migrate with --cluster-id")
        if cluster.location:
            yield "location", repr(cluster.location).replace("'", '"')
        elif not (cluster.cluster_id or "").startswith("projects/"):
            self._to_do(old, "Set location, or run vertex-ray-migrate with --location")

    def _decorator(self, old: cst.Call, call: cst.Call) -> cst.Call:
        args: list[cst.Arg] = []
        for arg in call.args:
            if _keyword(arg) != "config":
                args.append(arg)
            elif isinstance(arg.value, cst.Dict):
                args.append(cst.Arg(self._config(old, arg.value), star="**"))
            else:
                args.append(cst.Arg(_expression(self._named_config(old, dotted(arg.value))), star="**"))
        head = "task.vertex_ray" if self._found.has_task else "vertex_ray_task"
        return call.with_changes(func=_expression(head), args=args)

    def _named_config(self, old: cst.CSTNode, shown: str) -> str:
        """Return the expression for the settings of a decorator that are not written at its place."""
        if shown in self._found.functions:
            why = self._found.why_not_called(shown)
            shown_call = f"{shown}()"
        else:
            why = None if shown in self._found.dicts else f"what {shown} contains is not seen in this file"
            shown_call = shown
        if why is not None:
            self._to_do(old, f"Give the settings as arguments of the decorator: {why}")
        return shown_call

    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._inside.append(node.name.value)

    def leave_FunctionDef(self, original_node: cst.FunctionDef, updated_node: cst.FunctionDef) -> cst.FunctionDef:
        self._inside.pop()
        return updated_node

    def leave_Assign(self, original_node: cst.Assign, updated_node: cst.Assign) -> cst.Assign:
        target = original_node.targets[0].target
        if dotted(target) in self._found.configs and isinstance(updated_node.value, cst.Dict):
            return updated_node.with_changes(value=self._config(original_node, updated_node.value))
        return updated_node

    def leave_Return(self, original_node: cst.Return, updated_node: cst.Return) -> cst.Return:
        if set(self._inside) & self._found.configs and isinstance(updated_node.value, cst.Dict):
            return updated_node.with_changes(value=self._config(original_node, updated_node.value))
        return updated_node

    def _config(self, old: cst.CSTNode, config: cst.Dict) -> cst.Dict:
        elements: list[cst.BaseDictElement] = []
        for element in config.elements:
            key = text_of(element.key) if isinstance(element, cst.DictElement) else None
            here = names.ASTRO_ARGUMENTS.get(key or "", key)
            if key is not None and here is None:
                self._dropped(old, key, "the decorator")
                continue
            elements.append(element.with_changes(key=cst.SimpleString(f'"{here}"')) if key else element)
        like = next((each for each in config.elements if isinstance(each.comma, cst.Comma)), None)
        for name, value in self._place(old):
            new = cst.DictElement(cst.SimpleString(f'"{name}"'), _expression(value))
            comma = like.comma if like is not None else cst.MaybeSentinel.DEFAULT
            if elements and not isinstance(elements[-1].comma, cst.Comma):
                elements[-1] = elements[-1].with_changes(comma=comma)
            elements.insert(0, new.with_changes(comma=comma))
        if elements:
            last = config.elements[-1].comma if config.elements else cst.MaybeSentinel.DEFAULT
            elements[-1] = elements[-1].with_changes(comma=last)
        return config.with_changes(elements=elements)


class _WithoutRay(cst.CSTTransformer):
    """Removes Ray from lists of packages: the cluster has it, and another version would not fit."""

    def __init__(self, rewriter: _Rewriter, place: cst.CSTNode) -> None:
        super().__init__()
        self._rewriter = rewriter
        self._place = place

    def leave_List(self, original_node: cst.List, updated_node: cst.List) -> cst.List:
        kept = [each for each in updated_node.elements if not self._is_ray(each)]
        if len(kept) < len(updated_node.elements):
            self._rewriter._changed(self._place, "The cluster has Ray already; removed it from the packages")
            if not kept:
                return cst.List([])
            last = updated_node.elements[-1].comma
            return updated_node.with_changes(elements=[*kept[:-1], kept[-1].with_changes(comma=last)])
        return updated_node

    def _is_ray(self, element: cst.BaseElement) -> bool:
        text = text_of(element.value) or ""
        return text.partition("==")[0].partition("[")[0].strip() == "ray" and "==" in text


def _listed(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {value}" for name, value in versions.items())


def _keyword(arg: cst.Arg) -> str:
    return arg.keyword.value if arg.keyword is not None else ""


def _expression(text: str) -> cst.BaseExpression:
    return cst.parse_expression(text)


def _with(args: Sequence[cst.Arg], name: str, value: str) -> list[cst.Arg]:
    """Return the arguments with one more, laid out as the others, unless it is there already."""
    if any(_keyword(arg) == name for arg in args):
        return list(args)
    new = cst.Arg(
        _expression(value),
        keyword=cst.Name(name),
        equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
    )
    if not args:
        return [new]
    first = args[0]
    return [first, new.with_changes(comma=first.comma), *args[1:]]


def _import(module: str, found: Sequence[tuple[str, str | None]]) -> cst.ImportFrom:
    listed = ", ".join(name if alias in (None, name) else f"{name} as {alias}" for name, alias in sorted(found))
    if len(f"from {module} import {listed}") > 110:
        inside = "".join(f"    {name.strip()},\n" for name in listed.split(", "))
        listed = f"(\n{inside})"
    statement = cst.parse_statement(f"from {module} import {listed}\n")
    return cst.ensure_type(cst.ensure_type(statement, cst.SimpleStatementLine).body[0], cst.ImportFrom)
