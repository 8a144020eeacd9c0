"""Rewrites the imports, classes and arguments in a DAG file, and notes what it could not decide.

libcst rather than ``ast``: it keeps comments and the layout, so that the difference shows only what has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider

from airflow_provider_vertex_ray.migrate import names
from airflow_provider_vertex_ray.migrate.collector import Collector, dotted, keys_of
from airflow_provider_vertex_ray.migrate.imports import NewImports, new_import, new_import_from
from airflow_provider_vertex_ray.migrate.layout import expression, keyword_of, line_of, unpacked, with_argument
from airflow_provider_vertex_ray.migrate.references import References, text_of

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
    # One wrapper, because what is found is known by its node.
    wrapper = MetadataWrapper(cst.parse_module(text))
    references = References()
    wrapper.visit(references)
    found = Collector(references)
    wrapper.module.visit(found)
    rewriter = _Rewriter(found, cluster or Cluster())
    result = Migrated(wrapper.visit(rewriter).code)
    result.changes, result.left = sorted(set(rewriter.changes)), sorted({*rewriter.left, *references.left})
    return result


class _Rewriter(cst.CSTTransformer):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, found: Collector, cluster: Cluster) -> None:
        super().__init__()
        self._found = found
        self._references = found.references
        self._cluster = cluster
        self.changes: list[tuple[int, str]] = []
        self.left: list[tuple[int, str]] = []
        self._inside: list[str] = []
        self._comments: list[cst.Comment] = []

    def _line(self, node: cst.CSTNode) -> int:
        return int(self.get_metadata(PositionProvider, node).start.line)

    def _changed(self, node: cst.CSTNode, text: str) -> None:
        self.changes.append((self._line(node), text))

    def _to_do(self, node: cst.CSTNode, text: str) -> None:
        self.left.append((self._line(node), text))

    # --- imports ----------------------------------------------------------------------------------------------------

    def leave_Import(
        self, original_node: cst.Import, updated_node: cst.Import
    ) -> cst.BaseSmallStatement | cst.FlattenSentinel[cst.BaseSmallStatement] | cst.RemovalSentinel:
        return self._imports(original_node, new_import(original_node))

    def leave_ImportFrom(
        self, original_node: cst.ImportFrom, updated_node: cst.ImportFrom
    ) -> cst.BaseSmallStatement | cst.FlattenSentinel[cst.BaseSmallStatement] | cst.RemovalSentinel:
        found = new_import_from(
            original_node,
            needs_decorator=bool(self._references.decorators) and not self._found.has_task,
            # Where nothing uses it, another file may import it from here.
            keeps_decorator=self._references.uses_ray_otherwise or not self._references.decorators,
        )
        return self._imports(original_node, found)

    def _imports(
        self, old: cst.BaseSmallStatement, found: NewImports
    ) -> cst.BaseSmallStatement | cst.FlattenSentinel[cst.BaseSmallStatement] | cst.RemovalSentinel:
        for note in found.left:
            self._to_do(old, note)
        self._comments += found.comments
        if len(found.statements) == 1:
            return found.statements[0]
        return cst.FlattenSentinel(found.statements) if found.statements else cst.RemoveFromParent()

    def leave_SimpleStatementLine(
        self, original_node: cst.SimpleStatementLine, updated_node: cst.SimpleStatementLine
    ) -> cst.BaseStatement | cst.FlattenSentinel[cst.BaseStatement] | cst.RemovalSentinel:
        comments, self._comments = [cst.EmptyLine(comment=each) for each in self._comments], []
        if list(updated_node.body) == list(original_node.body):
            return updated_node
        if not updated_node.body:
            return cst.RemoveFromParent()
        lines = updated_node.with_changes(leading_lines=[*updated_node.leading_lines, *comments])
        if len(original_node.body) == 1:
            first, *others = updated_node.body
            return cst.FlattenSentinel([lines.with_changes(body=[first]), *map(line_of, others)])
        # What was the last statement of the line may be gone.
        last = updated_node.body[-1].with_changes(semicolon=cst.MaybeSentinel.DEFAULT)
        return lines.with_changes(body=[*updated_node.body[:-1], last])

    # --- classes and arguments --------------------------------------------------------------------------------------

    def leave_Name(self, original_node: cst.Name, updated_node: cst.Name) -> cst.BaseExpression:
        module, there = self._references.classes.get(original_node, ("", ""))
        # A local alias keeps its name.
        if there == original_node.value:
            return updated_node.with_changes(value=names.CLASSES[module][there][1])
        return updated_node

    def leave_Decorator(self, original_node: cst.Decorator, updated_node: cst.Decorator) -> cst.Decorator:
        if original_node.decorator not in self._references.decorators:
            return updated_node
        # Without parentheses, it has no settings, but needs a cluster here.
        bare = cst.Call(updated_node.decorator)
        call = self._decorator(original_node, bare)
        return updated_node.with_changes(decorator=call if call.args else call.func)

    def leave_Call(self, original_node: cst.Call, updated_node: cst.Call) -> cst.BaseExpression:
        name = dotted(original_node.func)
        last = name.rpartition(".")[2]
        if original_node.func in self._references.decorators:
            return self._decorator(original_node, updated_node)
        self._check_settings_elsewhere(original_node, last)
        if ("vertex_ray" in name.split(".") and last in names.SDK_CALLS) or last == "JobSubmissionClient":
            self._to_do(original_node, f"{name} works as it is, in a worker slot; consider {names.SDK_CALLS[last]}")
        module, there, how = self._references.made_by(original_node) or ("", "", "")
        if not there or module == names.SDK_RESOURCES:
            return self._dag_arguments(name, updated_node)
        if how != "expand_kwargs" and any(arg.keyword is None and not arg.star for arg in original_node.args):
            self._to_do(original_node, f"Give the arguments of {there} by name")
        if module in names.ASTRO_OPERATORS:
            return self._astro_call(original_node, updated_node, there, how)
        return self._google_call(original_node, updated_node, there, how)

    def _dag_arguments(self, name: str, call: cst.Call) -> cst.Call:
        if name not in ("DAG", "dag"):
            return call
        args = [
            arg.with_changes(keyword=cst.Name("schedule")) if keyword_of(arg) == "schedule_interval" else arg
            for arg in call.args
        ]
        return call.with_changes(args=args)

    def _google_call(self, old: cst.Call, call: cst.Call, there: str, how: str) -> cst.Call:
        # In a dict that is unpacked, the names there are valid here as well.
        given = {keyword_of(arg) for arg in (*call.args, *self._mapped(old))}
        args = []
        for arg, before in zip(call.args, old.args, strict=True):
            keyword, value = keyword_of(arg), arg.value
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
        if there == "RaySubmitJobOperator" and "wait_for_job_done" not in given and how in ("", "partial"):
            args = with_argument(args, "wait_for_completion", "False")
            self._changed(old, "wait_for_completion=False is the default of the Google provider")
        return call.with_changes(args=args)

    def _mapped(self, partial: cst.Call) -> Sequence[cst.Arg]:
        """Return the arguments of ``expand`` on a call of ``partial``."""
        expanded = self._references.expanded.get(partial)
        return expanded.args if expanded is not None else ()

    def _new_versions(self, old: cst.Call, args: list[cst.Arg]) -> list[cst.Arg]:
        version = next((text_of(arg.value) for arg in args if keyword_of(arg) == "ray_version"), None)
        if version not in names.OLD_RAY:
            return args
        self._changed(old, f"Vertex AI no longer offers Ray {version}; the cluster gets {_listed(names.NEW_VERSIONS)}")
        return [
            arg.with_changes(value=cst.SimpleString(f'"{names.NEW_VERSIONS[keyword_of(arg)]}"'))
            if keyword_of(arg) in names.NEW_VERSIONS
            else arg
            for arg in args
        ]

    def leave_Attribute(self, original_node: cst.Attribute, updated_node: cst.Attribute) -> cst.BaseExpression:
        if original_node in self._references.decorators:
            return expression(self._head())
        module, there = self._references.classes.get(original_node, ("", ""))
        if there:
            return updated_node.with_changes(attr=cst.Name(names.CLASSES[module][there][1]))
        if original_node.attr.value == "output":
            key = self._found.output_of(original_node.value)
            if key is not None:
                return cst.Subscript(updated_node, [cst.SubscriptElement(cst.Index(cst.SimpleString(f'"{key}"')))])
        return updated_node

    def leave_Subscript(self, original_node: cst.Subscript, updated_node: cst.Subscript) -> cst.BaseExpression:
        # What names an XCom already stays as it is.
        inner = original_node.value
        if isinstance(inner, cst.Attribute) and inner.attr.value == "output":
            return updated_node.with_changes(value=inner)
        return updated_node

    # --- astro-provider-ray -----------------------------------------------------------------------------------------

    def _astro_call(self, old: cst.Call, call: cst.Call, there: str, how: str) -> cst.Call:
        self._check_unpacked(old, there)
        if how == "partial" and old not in self._references.expanded:
            self._to_do(old, f"Rename the arguments with which {there} is expanded")
        args = []
        for arg in call.args:
            keyword = keyword_of(arg)
            here = names.ASTRO_ARGUMENTS.get(keyword, keyword)
            if here is None and how == "expand":
                # Without it, the task would be mapped over less, or over nothing.
                self._to_do(old, f"Map {there} over other arguments: {keyword} has no meaning here")
                here = keyword
            if here is None:
                self._dropped(old, keyword, there)
                continue
            args.append(arg.with_changes(keyword=cst.Name(here)) if keyword else arg)
        if how in ("", "partial"):
            for name, value in self._place(old, creates=there == "SetupRayCluster"):
                args = with_argument(args, name, value)
        if args and call.args and call.args[-1] not in args:
            # The last one's comma and line break.
            last = call.args[-1]
            args[-1] = args[-1].with_changes(comma=last.comma, whitespace_after_arg=last.whitespace_after_arg)
        return call.with_changes(args=args)

    def _check_settings_elsewhere(self, old: cst.Call, last: str) -> None:
        """List settings of astro-provider-ray that neither its operators nor its decorators are given directly."""
        given = {keyword_of(arg): arg.value for arg in old.args}
        if last == "override" and "config" in given and self._references.decorators:
            self._to_do(old, "Give the settings as arguments of override")
        defaults = given.get("default_args")
        if defaults is None or not any(module in names.ASTRO_OPERATORS for module, _ in self._classes()):
            return
        keys = keys_of(defaults) if isinstance(defaults, cst.Dict) else self._found.dicts.get(dotted(defaults), set())
        for key in sorted(key for key in keys if key is not None and names.ASTRO_ARGUMENTS.get(key)):
            self._to_do(old, f"default_args: {key} is {names.ASTRO_ARGUMENTS[key]} here")

    def _classes(self) -> set[tuple[str, str]]:
        return set(self._references.classes.values())

    def _check_unpacked(self, old: cst.Call, there: str) -> None:
        """List what is given as a dict, unless the names in it are the same here."""
        dicts: list[cst.BaseExpression] = [arg.value for arg in old.args if arg.star == "**"]
        if isinstance(old.func, cst.Attribute) and old.func.attr.value == "expand_kwargs":
            for arg in old.args:
                elements = arg.value.elements if isinstance(arg.value, (cst.List, cst.Tuple)) else ()
                dicts += [each.value for each in elements] or [arg.value]
        for each in dicts:
            keys = keys_of(each) if isinstance(each, cst.Dict) else self._found.dicts.get(dotted(each), {None})
            for key in sorted(keys & {None, *names.ASTRO_ARGUMENTS}, key=str):
                what = "what it contains is not seen here" if key is None else f"{key} has another name or no meaning"
                self._to_do(old, f"Check {dotted(each)}, which {there} gets: {what}")

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

    def _decorator(self, old: cst.CSTNode, call: cst.Call) -> cst.Call:
        args: list[cst.Arg] = []
        for position, arg in enumerate(call.args):
            if arg.star or (position > 1 and arg.keyword is None):
                self._to_do(old, "Give the settings as arguments of the decorator, by name")
            if keyword_of(arg) != "config":
                args.append(arg)
            elif isinstance(arg.value, cst.Dict):
                args.append(unpacked(arg, self._config(old, arg.value)))
            else:
                args.append(unpacked(arg, expression(self._named_config(old, dotted(arg.value)))))
        if not any(keyword_of(arg) == "config" for arg in call.args):
            for name, value in self._place(old):
                args = with_argument(args, name, value)
        return call.with_changes(func=expression(self._head()), args=args)

    def _head(self) -> str:
        return "task.vertex_ray" if self._found.has_task else "vertex_ray_task"

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
            new = cst.DictElement(cst.SimpleString(f'"{name}"'), expression(value))
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
