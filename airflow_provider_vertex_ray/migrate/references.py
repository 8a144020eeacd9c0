"""Finds what in a DAG file refers to the packages that are replaced: by scope, not by spelling."""

from __future__ import annotations

import re

import libcst as cst
from libcst import matchers as m
from libcst.metadata import PositionProvider, QualifiedNameProvider, QualifiedNameSource, ScopeProvider

from airflow_provider_vertex_ray.migrate import names

__all__ = ["References", "text_of"]

_OLD_IN_TEXT = re.compile(rf"(?<![\w.])(?:{'|'.join(map(re.escape, names.OLD_MODULES))})(?=\W|$)")
_MAPPING = ("expand", "expand_kwargs")


def text_of(node: cst.BaseExpression) -> str | None:
    """Return the value of a string literal; None for any other expression."""
    if isinstance(node, (cst.SimpleString, cst.ConcatenatedString)):
        value = node.evaluated_value
        return value if isinstance(value, str) else None
    return None


class References(cst.CSTVisitor):
    """Finds what refers to the packages that are replaced, and lists what no rewriting can settle."""

    METADATA_DEPENDENCIES = (PositionProvider, QualifiedNameProvider, ScopeProvider)

    def __init__(self) -> None:
        self.classes: dict[cst.CSTNode, tuple[str, str]] = {}
        """Expressions that are a class which has another name here: its module and name there."""
        self.decorators: set[cst.CSTNode] = set()
        """Expressions that are astro-provider-ray's decorator."""
        self.expanded: dict[cst.CSTNode, cst.Call] = {}
        """Calls of ``partial``, with the call of ``expand`` or ``expand_kwargs`` on each."""
        self.left: list[tuple[int, str]] = []
        """What must be done by hand, each with its line."""
        self.uses_ray_otherwise = False
        """Whether the import of astro-provider-ray's decorator must stay."""
        self._settled: set[cst.CSTNode] = set()
        self._plain: set[cst.CSTNode] = set()
        self._texts: list[tuple[cst.CSTNode, str]] = []
        self._locals: set[str] = set()
        self._rays: set[str] = set()
        self._globals: list[cst.Name] = []

    def made_by(self, call: cst.Call) -> tuple[str, str, str] | None:
        """Return the class that a call makes a task of: module, name, and ``partial``, ``expand`` or nothing."""
        func = call.func
        if func in self.classes:
            return (*self.classes[func], "")
        if not isinstance(func, cst.Attribute):
            return None
        how = func.attr.value
        if how == "partial" and func.value in self.classes:
            return (*self.classes[func.value], how)
        if how in _MAPPING and isinstance(func.value, cst.Call):
            inner = self.made_by(func.value)
            return (*inner[:2], how) if inner is not None and inner[2] == "partial" else None
        return None

    # --- places in which a new name is all that a class needs -------------------------------------------------------

    def visit_Call(self, node: cst.Call) -> None:
        func = node.func
        self._plain.add(func)
        if isinstance(func, cst.Attribute):
            if func.attr.value == "partial":
                self._plain.add(func.value)
            if func.attr.value in _MAPPING and isinstance(func.value, cst.Call):
                self.expanded[func.value] = node
        if isinstance(func, cst.Name) and func.value in ("isinstance", "issubclass"):
            for arg in node.args[1:]:
                self._all_plain(arg)

    def visit_Decorator(self, node: cst.Decorator) -> None:
        self._plain.add(node.decorator)

    def visit_Annotation(self, node: cst.Annotation) -> None:
        self._all_plain(node)

    def visit_AssignTarget(self, node: cst.AssignTarget) -> None:
        # The fallback of an import, such as "except ImportError: RaySubmitJobOperator = None".
        self._bind(node.target)

    def visit_NameItem(self, node: cst.NameItem) -> None:
        self._globals.append(cst.ensure_type(node.name, cst.Name))
        self._settled.add(node.name)

    def _bind(self, node: cst.BaseExpression) -> None:
        """Look at a name that is bound, in its scope, to something else as well."""
        scope = self.get_metadata(ScopeProvider, node, None)
        if isinstance(node, cst.Name) and scope is not None:
            for found in scope.get_qualified_names_for(node.value):
                self._is_class(node, found.name)
            self._settled.add(node)

    def visit_ClassDef(self, node: cst.ClassDef) -> None:
        for base in node.bases:
            found = self._class_of(base.value)
            if found is not None and found[0] != names.SDK_RESOURCES:
                self._plain.add(base.value)
                self._list(
                    node, f"{node.name.value} extends {found[1]}: check its methods, and the arguments of its calls"
                )

    def _all_plain(self, node: cst.CSTNode) -> None:
        self._plain.update(m.findall(node, m.Name() | m.Attribute()))

    # --- names ------------------------------------------------------------------------------------------------------

    def visit_Import(self, node: cst.Import) -> bool:
        return False

    def visit_ImportFrom(self, node: cst.ImportFrom) -> bool:
        return False

    def visit_Module(self, node: cst.Module) -> None:
        # Before anything is looked at: a function may come before the import of what it uses.
        for each in m.findall(node, m.ImportFrom()):
            line = cst.ensure_type(each, cst.ImportFrom)
            module = cst.Module([]).code_for_node(line.module) if line.module is not None else ""
            for alias in () if isinstance(line.names, cst.ImportStar) else line.names:
                name = str(alias.evaluated_name)
                self._locals.add(alias.evaluated_alias or name)
                if module in names.ASTRO_DECORATORS and name == "ray":
                    self._rays.add(alias.evaluated_alias or name)

    def visit_Arg(self, node: cst.Arg) -> None:
        if node.keyword is not None:
            self._settled.add(node.keyword)

    def visit_Attribute(self, node: cst.Attribute) -> None:
        self._settled.add(node.attr)
        if node not in self._settled and _is_dotted_name(node):
            self._refer(node)

    def visit_Name(self, node: cst.Name) -> None:
        if node not in self._settled:
            self._refer(node)

    def _refer(self, node: cst.Name | cst.Attribute) -> None:
        found = self._class_of(node)
        if found is not None:
            self._settle(node)
            self.classes[node] = found
            if node not in self._plain and found[0] != names.SDK_RESOURCES:
                self._list(node, f"{found[1]} is used as a value: check the arguments of its calls")
            return
        full = self._imported(node)
        if full & names.ASTRO_TASK and self._is_ray(node):
            self._settle(node)
            self.decorators.add(node)
            if node not in self._plain:
                self._list(node, "The decorator is used as a value: check the arguments of its calls")
            return
        if isinstance(node, cst.Attribute) and self._class_of(node.value) is not None:
            return
        old = sorted(name for name in full if names.is_old(name) or name.startswith(f"{names.SDK_RESOURCES}."))
        if not old:
            return
        self._settle(node)
        rays = {name for name in full for ray in names.ASTRO_RAY if f"{name}.".startswith(f"{ray}.")}
        self.uses_ray_otherwise = self.uses_ray_otherwise or bool(rays)
        # Other names are listed where they are imported.
        if isinstance(node, cst.Attribute) or rays or full & set(names.MODULES):
            self._list(node, f"{old[0]} is not rewritten")

    def _class_of(self, node: cst.BaseExpression) -> tuple[str, str] | None:
        # "a.b.C" stays as it is: its import binds "a", which may be used elsewhere.
        if isinstance(node, cst.Name) or (isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name)):
            for full in sorted(self._imported(node)):
                module, _, name = full.rpartition(".")
                whole = isinstance(node, cst.Name) or (module in names.MODULES and module in self._imported(node.value))
                if whole and name in names.CLASSES.get(module, {}):
                    return module, name
        return None

    def _is_ray(self, node: cst.BaseExpression) -> bool:
        """Tell whether this is ``ray.task``, whose import is rewritten, rather than ``decorators.ray.task``."""
        return isinstance(node, cst.Attribute) and isinstance(node.value, cst.Name) and node.value.value in self._rays

    def _is_class(self, node: cst.Name, full: str) -> None:
        module, _, name = full.rpartition(".")
        if name in names.CLASSES.get(module, {}):
            self.classes[node] = (module, name)

    def _imported(self, node: cst.CSTNode) -> set[str]:
        found = self.get_metadata(QualifiedNameProvider, node, set())
        return {each.name for each in found or () if each.source is QualifiedNameSource.IMPORT}

    def _settle(self, node: cst.BaseExpression) -> None:
        """Look no further into an expression."""
        self._settled.add(node)
        while isinstance(node, cst.Attribute):
            node = node.value
            self._settled.add(node)

    # --- strings ----------------------------------------------------------------------------------------------------

    def visit_Expr(self, node: cst.Expr) -> bool:
        # No string that is a statement, such as a docstring, imports anything.
        return not isinstance(node.value, (cst.SimpleString, cst.ConcatenatedString))

    def visit_SimpleString(self, node: cst.SimpleString) -> None:
        text = text_of(node)
        if text is not None:
            self._texts.append((node, text))

    def leave_Module(self, original_node: cst.Module) -> None:
        named = {node.value: found for node, found in self.classes.items() if isinstance(node, cst.Name)}
        # libcst knows no scope of these.
        self.classes.update({node: named[node.value] for node in self._globals if node.value in named})
        theirs = {name for known in (names.CLASSES[module] for module in names.OPERATOR_MODULES) for name in known}
        for node, text in self._texts:
            if _OLD_IN_TEXT.search(text) or text in self._locals & theirs:
                self._list(node, f"The text {text!r} names what is replaced")

    def _list(self, node: cst.CSTNode, note: str) -> None:
        self.left.append((int(self.get_metadata(PositionProvider, node).start.line), note))


def _is_dotted_name(node: cst.BaseExpression) -> bool:
    while isinstance(node, cst.Attribute):
        node = node.value
    return isinstance(node, cst.Name)
