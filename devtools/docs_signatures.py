"""Extension of griffe: a class that hands ``**kwargs`` to its base classes shows their parameters, too.

The reference then has the types and defaults of all parameters that a docstring describes, and a described parameter
that does not exist is still a warning.
"""

from __future__ import annotations

from typing import Any

import griffe


class InheritedParameters(griffe.Extension):
    """Adds the keyword parameters of base classes in the package to a class's ``__init__``."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Complete the signatures of all classes of the package."""
        classes = [found for module in _modules(pkg) for found in module.classes.values() if not found.is_alias]
        for found in classes:
            inherited = _inherited(found)
            if not inherited:
                continue
            own = found.members.get("__init__")
            if not isinstance(own, griffe.Function):
                own = griffe.Function("__init__", parameters=griffe.Parameters(griffe.Parameter("self")))
                found.set_member("__init__", own)
            elif not any(each.kind is griffe.ParameterKind.var_keyword for each in own.parameters):
                continue
            rest = [each for each in own.parameters if each.kind is griffe.ParameterKind.var_keyword]
            kept = [each for each in own.parameters if each not in rest]
            names = {each.name for each in own.parameters}
            own.parameters = griffe.Parameters(*kept, *(each for each in inherited if each.name not in names), *rest)


def _modules(module: griffe.Module) -> list[griffe.Module]:
    inside = [each for each in module.modules.values() if not each.is_alias]
    return [module, *(deeper for each in inside for deeper in _modules(each))]


def _inherited(found: griffe.Class) -> list[griffe.Parameter]:
    """Return the keyword-only parameters of all base classes in the package, the nearest first."""
    parameters: dict[str, griffe.Parameter] = {}
    for base in found.mro():
        init = base.members.get("__init__")
        if isinstance(init, griffe.Function):
            for each in init.parameters:
                if each.kind is griffe.ParameterKind.keyword_only:
                    parameters.setdefault(each.name, each)
    return list(parameters.values())
