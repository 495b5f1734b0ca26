"""The hello service in Flask: what the benchmark compares with. Same routes, same answers as the hello component."""

import hmac
import os

from flask import Flask, Response, request

TOKENS = [line.strip().encode() for line in os.environ["AUTH_TOKENS"].splitlines() if line.strip()]

app = Flask(__name__)


def answer(status, text):
    return Response(text, status, content_type="application/json")


def presented_token():
    """The one token that the request presents: none when it is missing, empty or ambiguous."""
    values, prefix = request.headers.getlist("X-Auth-Token"), ""
    if not values:
        values, prefix = request.headers.getlist("Authorization"), "bearer "
    # WSGI joins the values of a repeated field with a comma, which no token holds.
    if len(values) != 1 or "," in values[0] or not values[0].lower().startswith(prefix):
        return None
    return values[0][len(prefix) :].encode("latin-1")


@app.get("/app")
def greet():
    token = presented_token()
    # Every one is compared, in constant time.
    if token and any([hmac.compare_digest(token, valid) for valid in TOKENS]):
        return answer(200, '{"message":"Hello World"}')
    return answer(403, '{"error":"Invalid auth token"}')


@app.get("/ping")
def ping():
    return Response("OK", content_type="text/plain; charset=utf-8")


@app.post("/echo")
def echo():
    """For the benchmark alone, as the guest echo is for Taffrail: the body comes back as it comes in."""

    stream = request.stream
    chunks = iter(lambda: stream.read(64 * 1024), b"")
    return Response(chunks, content_type="application/octet-stream")


@app.errorhandler(404)
def not_found(_error):
    return answer(404, '{"error":"Not found"}')


@app.errorhandler(405)
def method_not_allowed(_error):
    response = answer(405, '{"error":"Method not allowed"}')
    response.headers["Allow"] = "GET, HEAD"
    return response
