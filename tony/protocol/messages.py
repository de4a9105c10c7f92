"""The messages of the wire, by name, and the bounds that both ends keep. No gRPC here."""

from __future__ import annotations

from tony.protocol.appmaster_pb2 import (
    Archive,
    Beat,
    BeatNow,
    Defect,
    DumpStacks,
    EventLine,
    EventsRequest,
    FromExecutor,
    Hello,
    Leave,
    Left,
    LiveOn,
    Note,
    OutputChunk,
    OutputDone,
    OutputRequest,
    Ready,
    Refused,
    Release,
    ResizeReply,
    ResizeRequest,
    Result,
    ResultAck,
    SendOutput,
    SnapshotReply,
    SnapshotRequest,
    Stacks,
    StacksRequest,
    Started,
    StopReply,
    StopRequest,
    StopUser,
    TaskStacks,
    ToExecutor,
    Url,
    UserStopped,
    Welcome,
    Workspace,
)

CONTROL_LIMIT_BYTES = 1 << 20
"""No control message is larger, except a Release, which carries the cluster spec."""

RELEASE_LIMIT_BYTES = 4 << 20
"""Bound of what an executor accepts: gRPC's own default."""

CHUNK_LIMIT_BYTES = 64 << 10
"""Bound of one chunk of output."""

OWNER_KEY = "tony-owner-key"
TOKEN = "tony-token"
TASK = "tony-task"
INCARNATION = "tony-incarnation"
REQUEST_ID = "tony-request-id"
"""Names of the metadata that calls carry."""

__all__ = [
    "CHUNK_LIMIT_BYTES",
    "CONTROL_LIMIT_BYTES",
    "INCARNATION",
    "OWNER_KEY",
    "RELEASE_LIMIT_BYTES",
    "REQUEST_ID",
    "TASK",
    "TOKEN",
    "Archive",
    "Beat",
    "BeatNow",
    "Defect",
    "DumpStacks",
    "EventLine",
    "EventsRequest",
    "FromExecutor",
    "Hello",
    "Leave",
    "Left",
    "LiveOn",
    "Note",
    "OutputChunk",
    "OutputDone",
    "OutputRequest",
    "Ready",
    "Refused",
    "Release",
    "Result",
    "ResizeReply",
    "ResizeRequest",
    "ResultAck",
    "SendOutput",
    "SnapshotReply",
    "SnapshotRequest",
    "Stacks",
    "StacksRequest",
    "Started",
    "StopReply",
    "StopRequest",
    "StopUser",
    "TaskStacks",
    "ToExecutor",
    "Url",
    "UserStopped",
    "Welcome",
    "Workspace",
]
