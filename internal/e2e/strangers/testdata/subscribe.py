"""A subscriber over the websockets library, and a reader of Server-Sent Events over the
standard library. Each is cut off, and goes on behind the last item that it had."""

import asyncio
import http.client
import json
import sys
from urllib.parse import urlsplit

import websockets

URL, TOTAL = sys.argv[1], int(sys.argv[2])


class Tally:
    def __init__(self):
        self.seen = {}

    def add(self, text):
        n = int(text.split(" ")[0])
        self.seen[n] = self.seen.get(n, 0) + 1

    def all(self):
        return len(self.seen) == TOTAL

    def tell(self, what):
        print(what, len(self.seen), '"lost"', TOTAL - len(self.seen), '"twice"', sum(n > 1 for n in self.seen.values()), flush=True)


async def subscribe(tally, last, cut_behind):
    async with websockets.connect(URL, ping_interval=None) as ws:
        await ws.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "rpc.subscribe",
                                  "params": {"method": "wall", "params": "x", "from": last}}))
        ident = json.loads(await ws.recv())["result"]
        for _ in range(cut_behind):
            said = json.loads(await ws.recv())["params"]
            assert said["subscription"] == ident and "missed" not in said, said
            if "error" in said:
                return last
            tally.add(said["result"])
            last = said["at"]
            if tally.all():
                await ws.send(json.dumps({"jsonrpc": "2.0", "id": 2, "method": "rpc.unsubscribe", "params": [ident]}))
                print('unsubscribed', json.dumps(json.loads(await ws.recv())["result"]), flush=True)
                break
        ws.transport.abort()
        return last


def read(tally, last, cut_behind):
    at = urlsplit(URL)
    conn = http.client.HTTPConnection(at.hostname, at.port)
    conn.request("GET", at.path + "?method=wall&params=%22x%22", headers={"Last-Event-ID": last} if last else {})
    answer = conn.getresponse()
    assert answer.status == 200, answer.read()
    ident = None
    for line in answer:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            assert value == "failed", line
            break
        if name == "id":
            ident = value
        if name == "data":
            tally.add(json.loads(value))
            last, cut_behind = ident, cut_behind - 1
            if tally.all() or cut_behind == 0:
                break
    conn.sock and conn.sock.close()
    answer.close()
    return last


for what in ("websocket", "events"):
    tally, last, cut_behind = Tally(), "", 700
    while not tally.all():
        if what == "websocket":
            last = asyncio.run(subscribe(tally, last, cut_behind))
        else:
            last = read(tally, last, cut_behind)
        cut_behind += 700
    tally.tell(what)
