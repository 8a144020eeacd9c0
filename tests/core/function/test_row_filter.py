"""Which conditions the Storage Read API is given, and which run as a query."""

from __future__ import annotations

import pytest

from airflow_provider_vertex_ray.core.function.row_filter import needs_query

FIELDS = [
    {"name": "x", "type": "INT64"},
    {"name": "day", "type": "DATE"},
    {"name": "date", "type": "DATE"},
    {"name": "tags", "type": "STRING", "mode": "REPEATED"},
    {"name": "address", "type": "RECORD", "fields": [{"name": "city", "type": "STRING"}]},
]


@pytest.mark.parametrize(
    "condition",
    [
        "x > 5",
        "X BETWEEN 1 AND 5.5e3 OR NOT x = -1",
        "day = DATE '2024-05-01' AND `date` IS NOT NULL",
        "x IN (1, 2, 3)",
        "address.city LIKE 'Par%' AND address.`city` <> \"it's\"",
        "(x + 1) * 2 >= 7",
    ],
)
def test_comparisons_with_constants_are_given_to_the_storage_api(condition: str) -> None:
    assert needs_query(condition, FIELDS) is None


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("x IN (SELECT x FROM shop.two)", "SELECT"),
        ("x IN UNNEST([1, 2])", "[1"),
        ("EXISTS (SELECT 1)", "EXISTS"),
        ("DATE(day) = '2024-05-01'", "DATE"),
        ("MOD(x, 2) = 1", "MOD"),
        ("_PARTITIONTIME = TIMESTAMP '2024-05-01'", "_PARTITIONTIME"),
        ("x > 1 GROUP BY x", "GROUP"),
        ("x > 1 -- a comment", "--"),
        ("x > 1 /* a comment */", "/*"),
        ("x > 1; DELETE FROM t", "; "),
        ("x = @limit", "@l"),
        ("'a' IN tags", "IN tags"),
        ("tags = 'a'", "tags"),
        ("address.street = 'a'", "address.street"),
        ("x > CURRENT_DATE", "CURRENT_DATE"),
        ("x = 'not closed", "'n"),
        ("x > 1 # a comment", "# "),
        ("x || 'a' = 'b'", "||"),
        ("CASE WHEN x = 1 THEN TRUE ELSE FALSE END", "CASE"),
    ],
)
def test_everything_else_runs_as_a_query(condition: str, told: str) -> None:
    assert needs_query(condition, FIELDS) == told
