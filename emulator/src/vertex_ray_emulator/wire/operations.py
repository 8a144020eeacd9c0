"""Long-running operations: made by create, update and delete; polled by get, list and wait."""

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
# How long a wait lasts at most for a caller that does not say.
WAIT_SECONDS = 30


@dataclass
class Running:
    """One operation.

    :param name: ``projects/…/persistentResources/…/operations/N``; of models and endpoints likewise.
    :param kind: Which metadata message it carries: ``Create``, ``Update``, ``Delete`` or ``Reboot`` (a cluster), or the
        RPC's name, such as ``DeployModel``.
    :param api: The version that the caller used; the ``Any`` fields are of this version.
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
        """Whether it has come to a response or an error."""
        return self.finished.is_set()

    def render(self, api: Api | None = None) -> Any:
        """The ``google.longrunning.Operation`` message.

        :param api: The version that the poller asks in; by default that of the creator.
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

    :param now: Gives the present time as a protobuf timestamp.
    """

    def __init__(self, now: Any) -> None:
        self._now = now
        self._all: dict[str, Running] = {}

    def begin(self, resource_name: str, kind: str, api: Api) -> Running:
        """A new operation on a resource."""
        name = f"{resource_name}/operations/{secrets.randbelow(9 * 10**18) + 10**18}"
        operation = Running(name, kind, api, self._now(), self._now())
        self._all[name] = operation
        return operation

    def succeed(self, operation: Running, response: Any | None) -> None:
        """End an operation well; the response is a v1beta1 resource, None for a delete."""
        if not operation.done:
            operation.updated = self._now()
            if response is not None:
                # A copy: the operation's answer must not change with the resource's later life.
                operation.response = type(response)()
                operation.response.CopyFrom(response)
            operation.finished.set()

    def fail(self, operation: Running, error: ApiError) -> None:
        """End an operation with an error."""
        if not operation.done:
            operation.updated = self._now()
            operation.error = error
            operation.finished.set()

    def get(self, name: str) -> Running:
        """The operation of a name.

        :raises ApiError: NOT_FOUND.
        """
        operation = self._all.get(name)
        if operation is None:
            raise ApiError("NOT_FOUND", f"The operation {name!r} does not exist.")
        return operation

    async def wait(self, name: str, seconds: float) -> Running:
        """The operation once it is done, or after so many seconds as it is then."""
        operation = self.get(name)
        if not operation.done and seconds > 0:
            try:
                await asyncio.wait_for(operation.finished.wait(), seconds)
            except asyncio.TimeoutError:
                return operation
        return operation

    def listing(self, parent: str) -> list[Running]:
        """The operations below a location or a resource, the newest first."""
        return [op for name, op in reversed(self._all.items()) if name.startswith(parent + "/")]

    def cancel(self, name: str) -> None:
        """Refuse: nothing tells of an operation of these services that could be cancelled.

        :raises ApiError: UNIMPLEMENTED while it runs; a finished one is left as it is, as the API says.
        """
        if not self.get(name).done:
            raise ApiError("UNIMPLEMENTED", f"The operation {name!r} can not be cancelled.")

    def delete(self, name: str) -> None:
        """Forget a finished operation.

        :raises ApiError: FAILED_PRECONDITION while it runs.
        """
        if not self.get(name).done:
            raise ApiError("FAILED_PRECONDITION", f"The operation {name!r} is not done.")
        del self._all[name]
