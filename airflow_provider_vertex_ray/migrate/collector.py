"""Collects what the names in a DAG file stand for, before anything is changed."""

from __future__ import annotations

import libcst as cst
from libcst import matchers as m

from airflow_provider_vertex_ray.migrate import names

__all__ = ["Collector", "dotted", "text_of"]


def dotted(node: cst.BaseExpression | None) -> str:
    """Return the text of an expression, such as ``ray.task``; empty for None."""
    return "" if node is None else cst.Module([]).code_for_node(node)


def text_of(node: cst.BaseExpression) -> str | None:
    """Return the value of a string literal; None for any other expression."""
    if isinstance(node, (cst.SimpleString, cst.ConcatenatedString)):
        value = node.evaluated_value
        return value if isinstance(value, str) else None
    return None


class Collector(cst.CSTVisitor):
    """Collects what the names in a file stand for, before anything is changed."""

    def __init__(self) -> None:
        self.classes: dict[str, tuple[str, str]] = {}
        """Local names of classes that have another name here: their module and name there."""
        self.astro: set[str] = set()
        """Local names of astro-provider-ray's decorator."""
        self.configs: set[str] = set()
        """Names of dicts, and of functions that return dicts, which configure that decorator."""
        self.dicts: set[str] = set()
        """Names of variables that are dicts, written out."""
        self.functions: dict[str, cst.FunctionDef] = {}
        """Functions of the module, by name."""
        self.create_tasks: list[str] = []
        """Ids of the tasks that create a cluster."""
        self.outputs: dict[str, str] = {}
        """Variables that hold tasks which return something else here: the XCom that takes its place."""
        self.has_task = False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        module = dotted(node.module)
        if isinstance(node.names, cst.ImportStar):
            return
        for alias in node.names:
            name, local = str(alias.evaluated_name), alias.evaluated_alias or str(alias.evaluated_name)
            if name in names.CLASSES.get(module, {}):
                self.classes[local] = (module, name)
            if module in names.ASTRO_DECORATORS and name == "ray":
                self.astro.add(local)
            if local == "task" and module.partition(".")[0] == "airflow":
                self.has_task = True

    def visit_Call(self, node: cst.Call) -> None:
        arguments = {arg.keyword.value: arg.value for arg in node.args if arg.keyword is not None}
        name = dotted(node.func)
        if name.rpartition(".")[0] in self.astro and isinstance(arguments.get("config"), cst.Name):
            self.configs.add(dotted(arguments["config"]))
        _, there = self.classes.get(name, ("", ""))
        task_id = text_of(arguments["task_id"]) if "task_id" in arguments else None
        if there in ("SetupRayCluster", "CreateRayClusterOperator") and task_id:
            self.create_tasks.append(task_id)

    def visit_Module(self, node: cst.Module) -> None:
        self.functions = {line.name.value: line for line in node.body if isinstance(line, cst.FunctionDef)}

    def leave_Module(self, original_node: cst.Module) -> None:
        # A function that returns a copy of a dict is configured where the dict is.
        for name in self.configs & set(self.functions):
            used = [cst.ensure_type(each, cst.Name) for each in m.findall(self.functions[name], m.Name())]
            self.configs |= self.dicts & {each.value for each in used}

    def why_not_called(self, name: str) -> str | None:
        """Return why a function cannot be called while the file is read; None if it can."""
        function = self.functions[name]
        given = function.params
        if any(each.default is None for each in (*given.posonly_params, *given.params, *given.kwonly_params)):
            return f"{name} has parameters, such as a context that is known only when the task runs"
        returned = [cst.ensure_type(each, cst.Return).value for each in m.findall(function.body, m.Return())]
        if not all(isinstance(each, cst.Dict) for each in returned):
            return f"{name} does not return a dict that is written out"
        return None

    def visit_Assign(self, node: cst.Assign) -> None:
        target, value = node.targets[0].target, node.value
        if isinstance(value, cst.Dict):
            self.dicts.add(dotted(target))
        if isinstance(target, cst.Name) and isinstance(value, cst.Call):
            _, there = self.classes.get(dotted(value.func), ("", ""))
            kept = {"CreateRayClusterOperator": "cluster_id", "RaySubmitJobOperator": "submission_id"}.get(there)
            if kept:
                self.outputs[target.value] = kept
