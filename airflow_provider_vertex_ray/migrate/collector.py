"""Collects what the names in a DAG file stand for, before anything is changed."""

from __future__ import annotations

import libcst as cst
from libcst import matchers as m

from airflow_provider_vertex_ray.migrate.references import References, text_of

__all__ = ["Collector", "dotted", "keys_of"]


def dotted(node: cst.BaseExpression | None) -> str:
    """Return the text of an expression, such as ``ray.task``; empty for None."""
    return "" if node is None else cst.Module([]).code_for_node(node)


def keys_of(node: cst.Dict) -> set[str | None]:
    """Return the keys of a dict that is written out; None stands for those that are not."""
    return {text_of(each.key) if isinstance(each, cst.DictElement) else None for each in node.elements}


class Collector(cst.CSTVisitor):
    """Collects what the names in a file stand for, before anything is changed."""

    def __init__(self, references: References) -> None:
        self.references = references
        self.configs: set[str] = set()
        """Names of dicts, and of functions that return dicts, which configure that decorator."""
        self.dicts: dict[str, set[str | None]] = {}
        """Names of variables that are dicts, written out, with their keys; None is a key that is not."""
        self.functions: dict[str, cst.FunctionDef] = {}
        """Functions of the module, by name."""
        self.create_tasks: list[str] = []
        """Ids of the tasks that create a cluster."""
        self.outputs: dict[str, str] = {}
        """Variables that hold tasks which return something else here: the XCom that takes its place."""
        self.has_task = False
        """Whether the whole module knows Airflow's own ``task``."""
        self._depth = 0

    def visit_ImportFrom(self, node: cst.ImportFrom) -> None:
        if self._depth or isinstance(node.names, cst.ImportStar):
            return
        here = {alias.evaluated_alias or str(alias.evaluated_name) for alias in node.names}
        if "task" in here and dotted(node.module).partition(".")[0] == "airflow":
            self.has_task = True

    # What is imported in a function, or only for type checking, is not known elsewhere.
    def visit_FunctionDef(self, node: cst.FunctionDef) -> None:
        self._depth += 1

    def leave_FunctionDef(self, original_node: cst.FunctionDef) -> None:
        self._depth -= 1

    def visit_If(self, node: cst.If) -> None:
        self._depth += 1

    def leave_If(self, original_node: cst.If) -> None:
        self._depth -= 1

    def visit_Call(self, node: cst.Call) -> None:
        arguments = {arg.keyword.value: arg.value for arg in node.args if arg.keyword is not None}
        if node.func in self.references.decorators and isinstance(arguments.get("config"), cst.Name):
            self.configs.add(dotted(arguments["config"]))
        _, there, how = self.references.made_by(node) or ("", "", "")
        task_id = text_of(arguments["task_id"]) if "task_id" in arguments else None
        if there in ("SetupRayCluster", "CreateRayClusterOperator") and task_id:
            # A mapped task sets up several.
            self.create_tasks += [task_id] if not how else [task_id] * 2

    def visit_Module(self, node: cst.Module) -> None:
        self.functions = {line.name.value: line for line in node.body if isinstance(line, cst.FunctionDef)}

    def leave_Module(self, original_node: cst.Module) -> None:
        # A function that returns a copy of a dict is configured where the dict is.
        for name in self.configs & set(self.functions):
            used = [cst.ensure_type(each, cst.Name) for each in m.findall(self.functions[name], m.Name())]
            self.configs |= set(self.dicts) & {each.value for each in used}

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
        for each in node.targets:
            self._assigned(each.target, node.value)

    def visit_AnnAssign(self, node: cst.AnnAssign) -> None:
        if node.value is not None:
            self._assigned(node.target, node.value)

    def visit_NamedExpr(self, node: cst.NamedExpr) -> None:
        self._assigned(node.target, node.value)

    def _assigned(self, target: cst.BaseExpression, value: cst.BaseExpression) -> None:
        if isinstance(value, cst.Dict):
            self.dicts.setdefault(dotted(target), set()).update(keys_of(value))
        if isinstance(target, cst.Subscript) and dotted(target.value) in self.dicts:
            self.dicts[dotted(target.value)].add(None)
        key = self.output_of(value)
        if key is not None and isinstance(target, (cst.Name, cst.Attribute)):
            self.outputs[dotted(target)] = key

    def output_of(self, task: cst.BaseExpression) -> str | None:
        """Return the XCom that takes the place of a task's return value; None if that stays as it is."""
        if not isinstance(task, cst.Call):
            return self.outputs.get(dotted(task))
        _, there, how = self.references.made_by(task) or ("", "", "")
        kept = {"CreateRayClusterOperator": "cluster_id", "RaySubmitJobOperator": "submission_id"}
        return kept.get(there) if how != "partial" else None
