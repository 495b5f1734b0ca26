"""Clients of the service under drill: half of them keep their connections, half open one for each request. Run as a program it
prints one line of JSON a second: what came back, counted by kind, and the versions that answered, by the header `x-version`.

    clients.py ADDRESS REQUESTS-A-SECOND [HOST]
"""

import collections
import http.client
import json
import random
import sys
import threading
import time

TOKEN = "a-token-of-the-drills"
TOGETHER = 16

# Path, token, status that must come back, and the share of the requests. Not /health: that of a pod that drains is 503, so that
# balancers look away.
WORK = [("/ping", None, 200, 0.5), ("/app", TOKEN, 200, 0.4), ("/app", "a-wrong-token-of-none", 403, 0.1)]


class Counter:
    """What came back, until somebody takes it."""

    def __init__(self):
        self.lock, self.kinds, self.versions = threading.Lock(), collections.Counter(), collections.Counter()

    def add(self, kind, version=None):
        with self.lock:
            self.kinds[kind] += 1
            if version:
                self.versions[version] += 1

    def take(self):
        with self.lock:
            taken = {"kinds": self.kinds, "versions": self.versions}
            self.kinds, self.versions = collections.Counter(), collections.Counter()
        return taken


def ask(connection, host, keeps):
    [(path, token, wanted, _)] = random.choices(WORK, [share for *_, share in WORK])
    headers = {"Host": host} if host else {}
    if token:
        headers["X-Auth-Token"] = token
    if not keeps:
        headers["Connection"] = "close"
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    response.read()
    return "right" if response.status == wanted else f"{response.status} for {wanted}", response.headers["x-version"]


def client(address, host, keeps, rate, counter):
    connection = None
    while True:
        began = time.monotonic()
        try:
            connection = connection or http.client.HTTPConnection(address, timeout=10)
            counter.add(*ask(connection, host, keeps))
        except Exception as error:  # whatever a client may see of a broken service is what is counted
            counter.add(type(error).__name__)
            connection = None
        if not keeps and connection:
            connection.close()
            connection = None
        time.sleep(max(0, random.uniform(0.5, 1.5) / rate - (time.monotonic() - began)))


def main():
    address, rate, host = sys.argv[1], float(sys.argv[2]), (sys.argv[3:] or [None])[0]
    counter = Counter()
    for number in range(TOGETHER):
        arguments = (address, host, number % 2 == 0, rate / TOGETHER, counter)
        threading.Thread(target=client, args=arguments, daemon=True).start()
    while True:
        time.sleep(1)
        print(json.dumps({"at": time.time(), **counter.take()}), flush=True)


if __name__ == "__main__":
    main()
