"""Long-running operations: started by create, update and delete; polled by get, list and wait."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from vertex_ray_emulator.wire.errors import ApiError
from vertex_ray_emulator.wire.protos import Api, convert

Operation: Any = operations_pb2.Operation
WAIT_SECONDS = 30
"""Timeout of a wait for which the caller sets none."""


@dataclass
class LongRunningOperation:
    """A long-running operation.

    :param name: ``projects/…/persistentResources/…/operations/N``, and likewise for models and endpoints.
    :param kind: kind of its metadata: ``Create``, ``Update`` or ``Delete`` for a cluster, or the name of the RPC, such
        as ``DeployModel``.
    :param api: version of the API that the caller used, which is the version of the ``Any`` fields.
    :param created: time of the start.
    :param updated: time of the last change.
    :param response: response of an operation that succeeded; None for an empty one.
    :param error: error of an operation that failed.
    :param finished: set once the operation has succeeded or failed.
    """

    name: str
    kind: str
    api: Api
    created: Any
    updated: Any
    response: Any | None = None
    error: ApiError | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def done(self) -> bool:
        """Whether the operation has succeeded or failed."""
        return self.finished.is_set()

    def render(self, api: Api | None = None) -> Any:
        """Return the ``google.longrunning.Operation`` message.

        :param api: version of the API that the caller polls with; by default the one that started the operation.
        """
        api = api or self.api
        message = Operation(name=self.name, done=self.done)
        metadata = api.metadata(self.kind)()
        metadata.generic_metadata.create_time.CopyFrom(self.created)
        metadata.generic_metadata.update_time.CopyFrom(self.updated)
        message.metadata.Pack(metadata)
        if self.error is not None:
            message.error.code, message.error.message = self.error.number, self.error.message
        elif self.done:
            response = empty_pb2.Empty() if self.response is None else convert(self.response, api)
            message.response.Pack(response)
        return message


class Operations:
    """All operations since the start of the emulator.

    :param now: returns the current time as a protobuf timestamp.
    """

    def __init__(self, now: Any) -> None:
        self._now = now
        self._all: dict[str, LongRunningOperation] = {}

    def begin(self, resource_name: str, kind: str, api: Api) -> LongRunningOperation:
        """Start an operation on a resource."""
        name = f"{resource_name}/operations/{secrets.randbelow(9 * 10**18) + 10**18}"
        operation = LongRunningOperation(name, kind, api, self._now(), self._now())
        self._all[name] = operation
        return operation

    def succeed(self, operation: LongRunningOperation, response: Any | None) -> None:
        """Complete an operation with a response: a v1beta1 resource, or None for a delete."""
        if not operation.done:
            operation.updated = self._now()
            if response is not None:
                # A copy, because the response must not change when the resource does.
                operation.response = type(response)()
                operation.response.CopyFrom(response)
            operation.finished.set()

    def fail(self, operation: LongRunningOperation, error: ApiError) -> None:
        """Complete an operation with an error."""
        if not operation.done:
            operation.updated = self._now()
            operation.error = error
            operation.finished.set()

    def get(self, name: str) -> LongRunningOperation:
        """Return the operation with a name.

        :raises ApiError: NOT_FOUND if it does not exist.
        """
        operation = self._all.get(name)
        if operation is None:
            raise ApiError("NOT_FOUND", f"The operation {name!r} does not exist.")
        return operation

    async def wait(self, name: str, seconds: float) -> LongRunningOperation:
        """Wait until an operation is done, or for a number of seconds, and return it as it is then."""
        operation = self.get(name)
        if not operation.done and seconds > 0:
            try:
                await asyncio.wait_for(operation.finished.wait(), seconds)
            except asyncio.TimeoutError:
                return operation
        return operation

    def listing(self, parent: str) -> list[LongRunningOperation]:
        """Return the operations below a location or a resource, newest first."""
        return [op for name, op in reversed(self._all.items()) if name.startswith(parent + "/")]

    def cancel(self, name: str) -> None:
        """Refuse to cancel an operation: no source mentions an operation of these services that can be cancelled.

        :raises ApiError: UNIMPLEMENTED while it runs; a finished operation is left unchanged, as the API documents.
        """
        if not self.get(name).done:
            raise ApiError("UNIMPLEMENTED", f"The operation {name!r} cannot be cancelled.")

    def delete(self, name: str) -> None:
        """Delete a finished operation.

        :raises ApiError: FAILED_PRECONDITION while it runs.
        """
        if not self.get(name).done:
            raise ApiError("FAILED_PRECONDITION", f"The operation {name!r} is not done.")
        del self._all[name]
