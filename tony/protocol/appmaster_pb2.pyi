from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FromExecutor(_message.Message):
    __slots__ = ("hello", "ready", "beat", "started", "result", "user_stopped", "url", "note", "left", "defect", "stacks")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    USER_STOPPED_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    DEFECT_FIELD_NUMBER: _ClassVar[int]
    STACKS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ready: Ready
    beat: Beat
    started: Started
    result: Result
    user_stopped: UserStopped
    url: Url
    note: Note
    left: Left
    defect: Defect
    stacks: Stacks
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., started: _Optional[_Union[Started, _Mapping]] = ..., result: _Optional[_Union[Result, _Mapping]] = ..., user_stopped: _Optional[_Union[UserStopped, _Mapping]] = ..., url: _Optional[_Union[Url, _Mapping]] = ..., note: _Optional[_Union[Note, _Mapping]] = ..., left: _Optional[_Union[Left, _Mapping]] = ..., defect: _Optional[_Union[Defect, _Mapping]] = ..., stacks: _Optional[_Union[Stacks, _Mapping]] = ...) -> None: ...

class ToExecutor(_message.Message):
    __slots__ = ("welcome", "refused", "release", "stop_user", "leave", "result_ack", "send_output", "beat_now", "dump_stacks", "live_on")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    STOP_USER_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    RESULT_ACK_FIELD_NUMBER: _ClassVar[int]
    SEND_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    BEAT_NOW_FIELD_NUMBER: _ClassVar[int]
    DUMP_STACKS_FIELD_NUMBER: _ClassVar[int]
    LIVE_ON_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    refused: Refused
    release: Release
    stop_user: StopUser
    leave: Leave
    result_ack: ResultAck
    send_output: SendOutput
    beat_now: BeatNow
    dump_stacks: DumpStacks
    live_on: LiveOn
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., release: _Optional[_Union[Release, _Mapping]] = ..., stop_user: _Optional[_Union[StopUser, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ..., result_ack: _Optional[_Union[ResultAck, _Mapping]] = ..., send_output: _Optional[_Union[SendOutput, _Mapping]] = ..., beat_now: _Optional[_Union[BeatNow, _Mapping]] = ..., dump_stacks: _Optional[_Union[DumpStacks, _Mapping]] = ..., live_on: _Optional[_Union[LiveOn, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("application_id", "role", "index", "incarnation", "container_id", "host", "pid", "generation", "user_running", "result", "ready", "gpus", "version", "stood_still_s")
    APPLICATION_ID_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CONTAINER_ID_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    USER_RUNNING_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STOOD_STILL_S_FIELD_NUMBER: _ClassVar[int]
    application_id: str
    role: str
    index: int
    incarnation: int
    container_id: str
    host: str
    pid: int
    generation: int
    user_running: bool
    result: Result
    ready: Ready
    gpus: _containers.RepeatedScalarFieldContainer[str]
    version: str
    stood_still_s: float
    def __init__(self, application_id: _Optional[str] = ..., role: _Optional[str] = ..., index: _Optional[int] = ..., incarnation: _Optional[int] = ..., container_id: _Optional[str] = ..., host: _Optional[str] = ..., pid: _Optional[int] = ..., generation: _Optional[int] = ..., user_running: bool = ..., result: _Optional[_Union[Result, _Mapping]] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., gpus: _Optional[_Iterable[str]] = ..., version: _Optional[str] = ..., stood_still_s: _Optional[float] = ...) -> None: ...

class Ready(_message.Message):
    __slots__ = ("generation", "port", "tensorboard_port", "kept")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    TENSORBOARD_PORT_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    generation: int
    port: int
    tensorboard_port: int
    kept: bool
    def __init__(self, generation: _Optional[int] = ..., port: _Optional[int] = ..., tensorboard_port: _Optional[int] = ..., kept: bool = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("sequence", "metrics", "progress")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ProgressEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    metrics: _containers.ScalarMap[str, float]
    progress: _containers.ScalarMap[str, float]
    def __init__(self, sequence: _Optional[int] = ..., metrics: _Optional[_Mapping[str, float]] = ..., progress: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("generation", "pid")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    generation: int
    pid: int
    def __init__(self, generation: _Optional[int] = ..., pid: _Optional[int] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("generation", "phase", "exit_code", "signal", "reason", "message", "tail", "traceback", "seconds")
    class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        RUN: _ClassVar[Result.Phase]
        PREPARE: _ClassVar[Result.Phase]
        START: _ClassVar[Result.Phase]
    RUN: Result.Phase
    PREPARE: Result.Phase
    START: Result.Phase
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    phase: Result.Phase
    exit_code: int
    signal: str
    reason: str
    message: str
    tail: _containers.RepeatedScalarFieldContainer[str]
    traceback: str
    seconds: float
    def __init__(self, generation: _Optional[int] = ..., phase: _Optional[_Union[Result.Phase, str]] = ..., exit_code: _Optional[int] = ..., signal: _Optional[str] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., tail: _Optional[_Iterable[str]] = ..., traceback: _Optional[str] = ..., seconds: _Optional[float] = ...) -> None: ...

class UserStopped(_message.Message):
    __slots__ = ("generation", "exit_code", "signal")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    generation: int
    exit_code: int
    signal: str
    def __init__(self, generation: _Optional[int] = ..., exit_code: _Optional[int] = ..., signal: _Optional[str] = ...) -> None: ...

class Url(_message.Message):
    __slots__ = ("kind", "url")
    KIND_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    kind: str
    url: str
    def __init__(self, kind: _Optional[str] = ..., url: _Optional[str] = ...) -> None: ...

class Note(_message.Message):
    __slots__ = ("text", "reason")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    text: str
    reason: str
    def __init__(self, text: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Left(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Defect(_message.Message):
    __slots__ = ("message", "traceback")
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TRACEBACK_FIELD_NUMBER: _ClassVar[int]
    message: str
    traceback: str
    def __init__(self, message: _Optional[str] = ..., traceback: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("token", "beat_s", "lease_s", "lost_s", "workspace", "generation")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    BEAT_S_FIELD_NUMBER: _ClassVar[int]
    LEASE_S_FIELD_NUMBER: _ClassVar[int]
    LOST_S_FIELD_NUMBER: _ClassVar[int]
    WORKSPACE_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    token: str
    beat_s: float
    lease_s: float
    lost_s: float
    workspace: Workspace
    generation: int
    def __init__(self, token: _Optional[str] = ..., beat_s: _Optional[float] = ..., lease_s: _Optional[float] = ..., lost_s: _Optional[float] = ..., workspace: _Optional[_Union[Workspace, _Mapping]] = ..., generation: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Workspace(_message.Message):
    __slots__ = ("environment", "source", "files", "user_python")
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    USER_PYTHON_FIELD_NUMBER: _ClassVar[int]
    environment: Archive
    source: Archive
    files: _containers.RepeatedCompositeFieldContainer[Archive]
    user_python: str
    def __init__(self, environment: _Optional[_Union[Archive, _Mapping]] = ..., source: _Optional[_Union[Archive, _Mapping]] = ..., files: _Optional[_Iterable[_Union[Archive, _Mapping]]] = ..., user_python: _Optional[str] = ...) -> None: ...

class Archive(_message.Message):
    __slots__ = ("name", "sha256", "size", "target", "unpack")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    UNPACK_FIELD_NUMBER: _ClassVar[int]
    name: str
    sha256: str
    size: int
    target: str
    unpack: bool
    def __init__(self, name: _Optional[str] = ..., sha256: _Optional[str] = ..., size: _Optional[int] = ..., target: _Optional[str] = ..., unpack: bool = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("generation", "command", "environment", "hold_ports", "stop_grace_s", "packed_environment", "processes", "peers")
    class EnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class PackedEnvironmentEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: bytes
        def __init__(self, key: _Optional[str] = ..., value: _Optional[bytes] = ...) -> None: ...
    class PeersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    HOLD_PORTS_FIELD_NUMBER: _ClassVar[int]
    STOP_GRACE_S_FIELD_NUMBER: _ClassVar[int]
    PACKED_ENVIRONMENT_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    command: _containers.RepeatedScalarFieldContainer[str]
    environment: _containers.ScalarMap[str, str]
    hold_ports: bool
    stop_grace_s: float
    packed_environment: _containers.ScalarMap[str, bytes]
    processes: int
    peers: _containers.ScalarMap[str, str]
    def __init__(self, generation: _Optional[int] = ..., command: _Optional[_Iterable[str]] = ..., environment: _Optional[_Mapping[str, str]] = ..., hold_ports: bool = ..., stop_grace_s: _Optional[float] = ..., packed_environment: _Optional[_Mapping[str, bytes]] = ..., processes: _Optional[int] = ..., peers: _Optional[_Mapping[str, str]] = ...) -> None: ...

class StopUser(_message.Message):
    __slots__ = ("generation", "grace_s", "reason", "next_generation")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NEXT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    grace_s: float
    reason: str
    next_generation: int
    def __init__(self, generation: _Optional[int] = ..., grace_s: _Optional[float] = ..., reason: _Optional[str] = ..., next_generation: _Optional[int] = ...) -> None: ...

class LiveOn(_message.Message):
    __slots__ = ("generation", "next_generation", "grace_s", "reason")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    NEXT_GENERATION_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    generation: int
    next_generation: int
    grace_s: float
    reason: str
    def __init__(self, generation: _Optional[int] = ..., next_generation: _Optional[int] = ..., grace_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ("grace_s", "reason")
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    grace_s: float
    reason: str
    def __init__(self, grace_s: _Optional[float] = ..., reason: _Optional[str] = ...) -> None: ...

class ResultAck(_message.Message):
    __slots__ = ("generation",)
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    generation: int
    def __init__(self, generation: _Optional[int] = ...) -> None: ...

class DumpStacks(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class Stacks(_message.Message):
    __slots__ = ("request_id", "text")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    text: str
    def __init__(self, request_id: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class BeatNow(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SendOutput(_message.Message):
    __slots__ = ("request_id", "stream", "tail_lines", "follow")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    stream: str
    tail_lines: int
    follow: bool
    def __init__(self, request_id: _Optional[str] = ..., stream: _Optional[str] = ..., tail_lines: _Optional[int] = ..., follow: bool = ...) -> None: ...

class OutputChunk(_message.Message):
    __slots__ = ("task", "stream", "data", "dropped", "incarnation")
    TASK_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    task: str
    stream: str
    data: bytes
    dropped: int
    incarnation: int
    def __init__(self, task: _Optional[str] = ..., stream: _Optional[str] = ..., data: _Optional[bytes] = ..., dropped: _Optional[int] = ..., incarnation: _Optional[int] = ...) -> None: ...

class OutputDone(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SnapshotReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("since",)
    SINCE_FIELD_NUMBER: _ClassVar[int]
    since: int
    def __init__(self, since: _Optional[int] = ...) -> None: ...

class EventLine(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class OutputRequest(_message.Message):
    __slots__ = ("tasks", "stream", "tail_lines", "follow")
    TASKS_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TAIL_LINES_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    stream: str
    tail_lines: int
    follow: bool
    def __init__(self, tasks: _Optional[_Iterable[str]] = ..., stream: _Optional[str] = ..., tail_lines: _Optional[int] = ..., follow: bool = ...) -> None: ...

class StacksRequest(_message.Message):
    __slots__ = ("tasks",)
    TASKS_FIELD_NUMBER: _ClassVar[int]
    tasks: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, tasks: _Optional[_Iterable[str]] = ...) -> None: ...

class TaskStacks(_message.Message):
    __slots__ = ("task", "host", "text")
    TASK_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    task: str
    host: str
    text: str
    def __init__(self, task: _Optional[str] = ..., host: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ("reason", "grace_s", "by")
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_S_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    reason: str
    grace_s: float
    by: str
    def __init__(self, reason: _Optional[str] = ..., grace_s: _Optional[float] = ..., by: _Optional[str] = ...) -> None: ...

class StopReply(_message.Message):
    __slots__ = ("state",)
    STATE_FIELD_NUMBER: _ClassVar[int]
    state: str
    def __init__(self, state: _Optional[str] = ...) -> None: ...

class ResizeRequest(_message.Message):
    __slots__ = ("size", "by")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    size: int
    by: str
    def __init__(self, size: _Optional[int] = ..., by: _Optional[str] = ...) -> None: ...

class ResizeReply(_message.Message):
    __slots__ = ("problem",)
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    problem: str
    def __init__(self, problem: _Optional[str] = ...) -> None: ...
