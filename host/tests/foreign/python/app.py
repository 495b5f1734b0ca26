"""Greets who asks, and echoes what is posted. The large one: it imports and keeps what applications do."""

# Not used: what is imported is in the component, compiled, and in the memory of each of its instances.
import asyncio, dataclasses, datetime, decimal, email, hashlib, http, json, logging, random, re, urllib.parse, uuid  # noqa

from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import Fields, Method_Post, OutgoingBody, OutgoingResponse, ResponseOutparam

# As a table would be that is read at start: more than 64 MiB are an instance's from its first instruction.
TABLE = bytearray(56 << 20)


class IncomingHandler(exports.IncomingHandler):
    def handle(self, request, response_out):
        response = OutgoingResponse(Fields())
        body = response.body()
        ResponseOutparam.set(response_out, Ok(response))
        with body.write() as stream:
            for chunk in echo(request) if isinstance(request.method(), Method_Post) else greet(request):
                stream.blocking_write_and_flush(chunk)
        OutgoingBody.finish(body, None)


def greet(request):
    name = b"".join(request.headers().get("x-name")).decode()
    yield f"Hello {name}, here is Python".encode()


def echo(request):
    with request.consume() as body, body.stream() as stream:
        while True:
            try:
                yield stream.blocking_read(4096)  # the most that one write takes
            except Err as end:
                if isinstance(end.value, StreamError_Closed):
                    return
                raise
