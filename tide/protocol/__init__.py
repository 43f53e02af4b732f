"""The messages of PROTOCOL.md: requests, responses and problems, read, checked and written.

Pure: no I/O, no clock, no loop. Client, server and tests run this same code.
"""

from tide.protocol.events import COMMENT, HEARTBEAT, Event, EventReader, encode_event
from tide.protocol.messages import (
    DEFAULT_LIMIT,
    VERSION,
    BadOp,
    Op,
    Problem,
    Request,
    Response,
    Result,
    ResultStatus,
    encode_op,
)
from tide.protocol.parsing import parse_page, parse_request, parse_response, readable

__all__ = [
    "COMMENT",
    "DEFAULT_LIMIT",
    "HEARTBEAT",
    "VERSION",
    "BadOp",
    "Event",
    "EventReader",
    "Op",
    "Problem",
    "Request",
    "Response",
    "Result",
    "ResultStatus",
    "encode_event",
    "encode_op",
    "parse_page",
    "parse_request",
    "parse_response",
    "readable",
]
