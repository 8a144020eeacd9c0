"""Builds parts of a DAG file, laid out as what is around them."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

__all__ = ["expression", "keyword_of", "line_of", "unpacked", "with_argument"]


def keyword_of(arg: cst.Arg) -> str:
    """Return the name of an argument; empty if it has none."""
    return arg.keyword.value if arg.keyword is not None else ""


def line_of(statement: cst.BaseSmallStatement) -> cst.SimpleStatementLine:
    """Return a line with one statement."""
    return cst.SimpleStatementLine([statement])


def unpacked(arg: cst.Arg, value: cst.BaseExpression) -> cst.Arg:
    """Return an argument that is unpacked, in the place and layout of another one."""
    return arg.with_changes(keyword=None, equal=cst.MaybeSentinel.DEFAULT, value=value, star="**")


def expression(text: str) -> cst.BaseExpression:
    """Return an expression from its text."""
    return cst.parse_expression(text)


def with_argument(args: Sequence[cst.Arg], name: str, value: str) -> list[cst.Arg]:
    """Return the arguments with one more, laid out as the others, unless it is there already."""
    if any(keyword_of(arg) == name for arg in args):
        return list(args)
    new = cst.Arg(
        expression(value),
        keyword=cst.Name(name),
        equal=cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace("")),
    )
    if not args:
        return [new]
    first, comma = args[0], args[0].comma
    if not isinstance(comma, cst.Comma) or not isinstance(comma.whitespace_after, cst.ParenthesizedWhitespace):
        return [first, new.with_changes(comma=comma), *args[1:]]
    # A comment at the end of the line belongs to the first argument, one on a line of its own to the next.
    space = comma.whitespace_after
    before = comma.with_changes(whitespace_after=space.with_changes(empty_lines=[]))
    after = comma.with_changes(
        whitespace_after=space.with_changes(first_line=cst.TrailingWhitespace(newline=space.first_line.newline))
    )
    return [first.with_changes(comma=before), new.with_changes(comma=after), *args[1:]]
