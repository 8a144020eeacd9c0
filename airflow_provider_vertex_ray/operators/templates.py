"""Rendering of template fields: what is text by its meaning stays text, whatever rendering the DAG has chosen.

Airflow's native rendering (``render_template_as_native_obj=True``) evaluates every string as a Python literal, also one
without a template: ``"3.10"`` becomes 3.1 and the label ``"1"`` becomes a number. Both renderings cut off the last
newline of a string, and turn an enumeration that is a string into its name. Here:

- A string without a template stays that string.
- A template in a field, or in a part of a field, that means text renders to text, with both renderings.
- A template that stands for a whole list or dict renders to that list or dict with native rendering.
- Fields that take values of any type, such as the arguments of a function, are rendered as Airflow renders them.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    Base = BaseOperator
else:
    Base = object


class Rendering(Enum):
    """The type that a template renders to, if the DAG renders natively; otherwise every template renders to text."""

    TEXT = "text"
    SHAPE = "a list or dict as it is, anything else as text"
    ANY = "what Airflow's native rendering evaluates it to"


ANY_VALUE = frozenset(
    {
        "container_spec",
        "fn_constructor_kwargs",
        "fn_kwargs",
        "instances",
        "op_args",
        "op_kwargs",
        "parameters",
        "price_table",
        "range_partitioning",
        "replicas",
        "schema_fields",
        "time_partitioning",
        "total_nodes",
        "traffic_split",
    }
)
"""Template fields whose values can have any type."""

STRUCTURES = frozenset(
    {
        "bigquery_labels",
        "cluster_fields",
        "columns",
        "entrypoint_resources",
        "env_vars",
        "excludes",
        "impersonation_chain",
        "jobs",
        "label_filter",
        "locations",
        "labels",
        "metadata",
        "metrics",
        "py_modules",
        "queries",
        "runtime_env",
        "spec",
        "statuses",
        "version_aliases",
        "worker_node_types",
    }
)
"""Template fields that are lists or dicts of strings: a template for the whole field may render to a list or dict."""

_SHAPES = frozenset({"entrypoint", "head_node_type", "custom_images", "nfs_mounts", "psc_interface_config"})
"""Template fields that are a string or a structure, such as a command or its list of arguments."""


def rendering_of(field: str, path: tuple[Any, ...]) -> Rendering:
    """Return how a template inside a template field is rendered.

    :param field: name of the field
    :param path: keys and indexes of the string inside the field; empty for the field itself
    """
    if field in ANY_VALUE:
        return Rendering.ANY
    if not path:
        if field in STRUCTURES:
            return Rendering.ANY
        return Rendering.SHAPE if field in _SHAPES else Rendering.TEXT
    if field == "jobs":
        # The fields of a job mean what the operator's fields of the same name mean.
        return Rendering.SHAPE if len(path) == 1 else rendering_of(str(path[1]), path[2:])
    if field in ("spec", "worker_node_types", "head_node_type"):
        return Rendering.TEXT if "labels" in path[:-1] else Rendering.SHAPE
    if field == "runtime_env" and (len(path) == 1 or path[0] in ("pip", "uv", "config")):
        return Rendering.SHAPE
    return Rendering.TEXT


class TemplatesMixin(Base):
    """Renders the template fields of an operator or sensor by the rules of this module."""

    _field: str | None = None
    _text_env: jinja2.Environment | None = None

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, *rest: Any, **more: Any
    ) -> None:
        if parent is not self:
            super()._do_render_template_fields(parent, template_fields, context, jinja_env, *rest, **more)
            return
        dag = self.get_dag() if self._is_native() else None
        # The native environment evaluates the blocks inside a template too.
        plain = dag.get_template_env(force_sandboxed=True) if dag is not None else jinja_env
        self._text_env = plain.overlay(keep_trailing_newline=True)
        try:
            for field in template_fields:
                self._field = field
                super()._do_render_template_fields(parent, [field], context, jinja_env, *rest, **more)
        finally:
            self._field = self._text_env = None

    def _is_native(self) -> bool:
        own = getattr(self, "render_template_as_native_obj", None)
        return bool(getattr(self.get_dag(), "render_template_as_native_obj", False) if own is None else own)

    def render_template(
        self, content: Any, context: Context, jinja_env: Any = None, seen_oids: set[int] | None = None
    ) -> Any:
        """Render the templates in a value; texts stay texts.

        :param content: the value
        :param context: Airflow's context
        :param jinja_env: environment of the DAG
        :param seen_oids: as in Airflow
        :return: the rendered value
        """
        if self._field is None or self._text_env is None or jinja_env is None:
            return super().render_template(content, context, jinja_env, seen_oids)
        return self._rendered(content, (), context, jinja_env, set() if seen_oids is None else seen_oids)

    def _rendered(self, value: Any, path: tuple[Any, ...], context: Context, env: Any, seen: set[int]) -> Any:
        if isinstance(value, str):
            return self._rendered_text(value, path, context, env, seen)
        if value.__class__ is dict:
            return {key: self._rendered(item, (*path, key), context, env, seen) for key, item in value.items()}
        if value.__class__ in (list, tuple, set):
            return value.__class__(
                self._rendered(item, (*path, place), context, env, seen) for place, item in enumerate(value)
            )
        return super().render_template(value, context, env, seen)

    def _rendered_text(self, value: str, path: tuple[Any, ...], context: Context, env: Any, seen: set[int]) -> Any:
        # An enumeration that is a string is its value; str() of it is "Colour.RED".
        text = str.__str__(value)
        if text.endswith(tuple(self.template_ext)):
            return super().render_template(text, context, env, seen)
        if not _has_syntax(text, env):
            return text
        how = rendering_of(str(self._field), path)
        if how is Rendering.ANY and self._is_native():
            return super().render_template(text, context, env, seen)
        if self._is_native():
            template = env.from_string(text)
            nodes = list(template.root_render_func(template.new_context(cast("dict[str, Any]", context))))
            if len(nodes) == 1 and _is_kept(nodes[0], how, path):
                return nodes[0]
        assert self._text_env is not None  # noqa: S101 (set for the time of the rendering)
        template = self._text_env.from_string(text)
        return "".join(map(str, template.root_render_func(template.new_context(cast("dict[str, Any]", context)))))


def _is_kept(value: Any, how: Rendering, path: tuple[Any, ...]) -> bool:
    """Tell whether the value of a template is kept, although its field or part may mean text."""
    if value is None:
        return not path or how is Rendering.SHAPE
    return how is Rendering.SHAPE and isinstance(value, (list, tuple, dict))


def _has_syntax(text: str, env: Any) -> bool:
    """Tell whether a text contains anything that Jinja would evaluate or remove, apart from its last newline."""
    if env.line_statement_prefix or env.line_comment_prefix:
        return True
    return any(mark in text for mark in (env.variable_start_string, env.block_start_string, env.comment_start_string))
