from __future__ import annotations

import pytest
from vertex_ray_emulator.google.filters import parse
from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.protos import V1BETA1

MODEL = V1BETA1.message("Model")(display_name="one two", labels={"team": "a", "run": "r-1"})
FIELDS = {"display_name": lambda model: str(model.display_name)}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ('display_name="one two"', True),
        ('displayName = "one two"', True),
        ('display_name!="one two"', False),
        ("display_name:two", True),
        ("labels.team=a", True),
        ('labels.team="b"', False),
        ("labels.team!=b", True),
        ("labels.team:*", True),
        ("labels.other:*", False),
        ("labels.team:a", True),
        ("labels.other=a", False),
        ("labels.team=a AND labels.run=r-1", True),
        ("labels.team=a AND labels.run=r-2", False),
        ("labels.team=a labels.run=r-2", False),
        ("labels.team=b OR labels.run=r-1", True),
        # OR binds closer: false and (true or true).
        ("labels.team=b AND labels.run=r-1 OR labels.run=r-1", False),
        ("(labels.team=b AND labels.run=r-1) OR labels.run=r-1", True),
        ("NOT labels.team=b", True),
        ('NOT (labels.team=a AND display_name="one two")', False),
    ],
)
def test_filter_matches(text: str, fits: bool) -> None:
    assert parse(text, FIELDS, "a Model")(MODEL) is fits


@pytest.mark.parametrize(
    "text", ["labels.team", "labels.team=", "=a", "AND", "(labels.team=a", "labels.team=a)", 'state="x"', 'a="b', "NOT"]
)
def test_invalid_filter_is_rejected(text: str) -> None:
    with pytest.raises(ApiError, match="Invalid filter") as caught:
        parse(text, FIELDS, "a Model")
    assert caught.value.code == "INVALID_ARGUMENT"


def test_filter_that_is_nested_too_deeply_is_rejected() -> None:
    with pytest.raises(ApiError, match="Invalid filter"):
        parse("(" * 3000 + "labels.team=a" + ")" * 3000, FIELDS, "a Model")
