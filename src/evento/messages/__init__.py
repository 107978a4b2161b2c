"""Payloads, envelopes, metadata and their codec."""

from evento.messages.codec import MAX_PAYLOAD_BYTES, decode, seal, seal_result, seal_state, unseal_result
from evento.messages.definition import PayloadDefinition, PayloadKind, Source, definition_of, result_type_of
from evento.messages.envelopes import (
    CommandMessage,
    EventMessage,
    EventRecord,
    InvocationMessage,
    Message,
    QueryMessage,
    Reply,
    Request,
    from_micros,
    now_micros,
    to_micros,
)
from evento.messages.ids import derived_id, is_keepable, new_id
from evento.messages.metadata import EMPTY_METADATA, Metadata
from evento.messages.payloads import (
    AggregateId,
    Command,
    DomainCommand,
    DomainEvent,
    Event,
    Payload,
    Query,
    ServiceCommand,
    ServiceEvent,
    View,
)
from evento.messages.schema import json_schema

__all__ = [
    "EMPTY_METADATA",
    "MAX_PAYLOAD_BYTES",
    "AggregateId",
    "Command",
    "CommandMessage",
    "DomainCommand",
    "DomainEvent",
    "Event",
    "EventMessage",
    "EventRecord",
    "InvocationMessage",
    "Message",
    "Metadata",
    "Payload",
    "PayloadDefinition",
    "PayloadKind",
    "Query",
    "QueryMessage",
    "Reply",
    "Request",
    "ServiceCommand",
    "ServiceEvent",
    "Source",
    "View",
    "decode",
    "definition_of",
    "derived_id",
    "from_micros",
    "json_schema",
    "is_keepable",
    "new_id",
    "now_micros",
    "result_type_of",
    "seal",
    "seal_result",
    "seal_state",
    "to_micros",
    "unseal_result",
]
