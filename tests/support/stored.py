"""What Airflow makes of an event or an XCom: through its own encoders and the rules of its database."""

from __future__ import annotations

import json
from typing import Any

from airflow.triggers.base import TriggerEvent


def stored(value: Any) -> Any:
    """Encode and decode a value as an event's payload on all its ways.

    :raises Exception: Airflow could not carry or store it
    """
    event = TriggerEvent(value)  # type: ignore[no-untyped-call]
    try:
        import msgspec
        from airflow.sdk.execution_time.comms import _RequestFrame
        from airflow.sdk.serde import deserialize, serialize
    except ImportError:  # Airflow 2.11
        from airflow.serialization.serialized_objects import BaseSerialization

        again = BaseSerialization.deserialize(json.loads(_as_postgres(BaseSerialization.serialize(event.payload))))
        return _as_worker(again)
    # The triggerer's process to its supervisor.
    frame = _RequestFrame(id=1, body=event.model_dump()).as_bytes()
    sent = msgspec.msgpack.decode(bytes(frame[4:]))[1]["payload"]
    # The supervisor into the database, and the worker out of it.
    return _as_worker(deserialize(json.loads(_as_postgres(serialize({"event": sent}))))["event"])


def _as_postgres(value: Any) -> str:
    """Return the text of a JSONB value, which Postgres must accept."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    assert "\\u0000" not in text.replace("\\\\", ""), "Postgres refuses NUL"
    return text.encode("utf-8").decode()


def _as_worker(value: Any) -> Any:
    """Return the value as the worker's XCom holds it."""
    try:
        from airflow.sdk.serde import deserialize, serialize
    except ImportError:
        from airflow.serialization.serde import deserialize, serialize  # type: ignore[no-redef]
    return deserialize(json.loads(_as_postgres(serialize(value))))
