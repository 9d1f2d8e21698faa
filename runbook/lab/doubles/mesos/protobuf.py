"""JSON converted to the protobuf messages of Mesos' API, with the errors of its own converter.

Fields that a table does not list are ignored, as protobuf ignores unknown ones. Source: `stout/protobuf.hpp` and
`stout/json.hpp` of Mesos, and the recorded payloads in tests/payloads/mesos-0.28.0/nine-chapters/answers.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

Json = dict[str, Any]


class ConversionError(ValueError):
    """A body that is no such message; the text is Mesos'."""


@dataclass(frozen=True)
class Field:
    """A field of a message: a JSON kind (`string`, `number`, `boolean`), an enum's names, or another message."""

    type: str | tuple[str, ...] | Message
    required: bool = False
    repeated: bool = False


@dataclass(frozen=True)
class Message:
    """The fields of a message in the order of its descriptor, which is that of the missing ones in an error."""

    fields: dict[str, Field]


def parse(body: bytes) -> Any:
    """The JSON of a body. Raises `ConversionError` as picojson words it: the line, and what is left of it."""
    text = body.decode(errors="replace")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            raise ConversionError(
                f"Parsed JSON included non-whitespace trailing characters: {text[error.pos :].rstrip()}"
            ) from error
        rest = text[error.pos :].partition("\n")[0]
        for literal in ("null", "true", "false"):  # which picojson reads as far as they match
            if rest[:1] == literal[0]:
                rest = rest[
                    sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(rest, literal, strict=False))) :
                ]
                break
        raise ConversionError(f"syntax error at line {error.lineno} near: {rest}") from error


def parse_message(body: bytes, message: Message) -> Json:
    """The message in a body. Raises `ConversionError`."""
    value = parse(body)
    if not isinstance(value, dict):
        raise ConversionError("Unexpected JSON type parsed")
    return convert(value, message)


def parse_messages(body: bytes, message: Message) -> list[Json]:
    """The messages of an array in a body. Raises `ConversionError`."""
    value = parse(body)
    if not isinstance(value, list):
        raise ConversionError("Unexpected JSON type parsed")
    return [convert(element, message) for element in value]


def convert(value: Any, message: Message) -> Json:
    """The known and set fields of a message. Raises `ConversionError` where it is none or lacks a required field."""
    if not isinstance(value, dict):
        raise ConversionError("Expecting a JSON object")
    found = _convert(value, message)
    if missing := list(_missing(found, message)):
        raise ConversionError(f"Missing required fields: {', '.join(missing)}")
    return found


def _convert(value: Json, message: Message) -> Json:
    found = {}
    for name in sorted(value):
        field = message.fields.get(name)
        if field is None or value[name] is None:
            continue
        if not isinstance(value[name], list):
            content = _single(name, field, value[name])
            found[name] = [content] if field.repeated else content
        elif not field.repeated:
            raise ConversionError(f"Not expecting a JSON array for field '{name}'")
        elif value[name]:
            found[name] = [_single(name, field, element) for element in value[name]]
    return found


def _single(name: str, field: Field, value: Any) -> Any:
    kind = {dict: "object", str: "string", bool: "boolean", int: "number", float: "number"}.get(type(value), "null")
    if isinstance(field.type, Message) and kind == "object":
        return _convert(value, field.type)
    if isinstance(field.type, tuple) and kind == "string":
        if value not in field.type:
            raise ConversionError(f"Failed to find enum for '{value}'")
    elif kind != field.type:
        raise ConversionError(f"Not expecting a JSON {kind} for field '{name}'")
    return value


def _missing(found: Json, message: Message, prefix: str = "") -> list[str]:
    """The paths of required fields that are not set: a message's own before those of its parts."""
    missing = [prefix + name for name, field in message.fields.items() if field.required and name not in found]
    for name, field in message.fields.items():
        if isinstance(field.type, Message) and name in found:
            if not field.repeated:
                missing += _missing(found[name], field.type, f"{prefix}{name}.")
                continue
            for number, element in enumerate(found[name]):
                missing += _missing(element, field.type, f"{prefix}{name}[{number}].")
    return missing


def _required(type: str | tuple[str, ...] | Message) -> Field:
    return Field(type, required=True)


def _repeated(type: str | tuple[str, ...] | Message) -> Field:
    return Field(type, repeated=True)


# include/mesos/v1/mesos.proto, include/mesos/v1/scheduler/scheduler.proto, include/mesos/maintenance/maintenance.proto

ID = Message({"value": _required("string")})
MACHINE_ID = Message({"hostname": Field("string"), "ip": Field("string")})
_NANOSECONDS = Message({"nanoseconds": _required("number")})
_UNAVAILABILITY = Message({"start": _required(_NANOSECONDS), "duration": Field(_NANOSECONDS)})
_WINDOW = Message({"machine_ids": _repeated(MACHINE_ID), "unavailability": _required(_UNAVAILABILITY)})
SCHEDULE = Message({"windows": _repeated(_WINDOW)})

_FRAMEWORK_INFO = Message({"user": _required("string"), "name": _required("string"), "id": Field(ID)})
_RESOURCE = Message({"name": _required("string"), "type": _required(("SCALAR", "RANGES", "SET", "TEXT"))})
_TASK_INFO = Message(
    {
        "name": _required("string"),
        "task_id": _required(ID),
        "agent_id": _required(ID),
        "resources": _repeated(_RESOURCE),
    }
)
_OPERATION = Message(
    {
        "type": _required(("LAUNCH", "RESERVE", "UNRESERVE", "CREATE", "DESTROY")),
        "launch": Field(Message({"task_infos": _repeated(_TASK_INFO)})),
    }
)
_FILTERS = Field(Message({"refuse_seconds": Field("number")}))
_TASK = Message({"task_id": _required(ID), "agent_id": Field(ID)})
CALL = Message(
    {
        "framework_id": Field(ID),
        "type": _required(
            (
                *("SUBSCRIBE", "TEARDOWN", "ACCEPT", "DECLINE", "REVIVE", "KILL", "SHUTDOWN", "ACKNOWLEDGE"),
                *("RECONCILE", "MESSAGE", "REQUEST", "SUPPRESS"),
            )
        ),
        "subscribe": Field(Message({"framework_info": _required(_FRAMEWORK_INFO), "force": Field("boolean")})),
        "accept": Field(
            Message({"offer_ids": _repeated(ID), "operations": _repeated(_OPERATION), "filters": _FILTERS})
        ),
        "decline": Field(Message({"offer_ids": _repeated(ID), "filters": _FILTERS})),
        "kill": Field(_TASK),
        "shutdown": Field(Message({"executor_id": _required(ID), "agent_id": _required(ID)})),
        "acknowledge": Field(
            Message({"agent_id": _required(ID), "task_id": _required(ID), "uuid": _required("string")})
        ),
        "reconcile": Field(Message({"tasks": _repeated(_TASK)})),
        "message": Field(
            Message({"agent_id": _required(ID), "executor_id": _required(ID), "data": _required("string")})
        ),
        "request": Field(Message({})),
    }
)
