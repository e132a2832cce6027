"""JSON-RPC over the websockets library, whose users send bytes as readily as text.

    websockets_peer.py serve   prints its port, and answers in bytes
    websockets_peer.py URL     prints what it saw
"""

import asyncio
import json
import sys

import websockets

# Nothing is to end because this machine is slow.
PATIENT = {"close_timeout": 300, "ping_interval": None}


def said(what, *values):
    print(what, *(json.dumps(v, separators=(",", ":")) for v in values), flush=True)


def request(method, params, **ident):
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **ident})


async def handler(ws):
    async for message in ws:
        call = json.loads(message)
        method, params = call["method"], call.get("params")
        if method == "note":  # and one back
            await ws.send(request("pushed", params).encode())
            continue
        if method == "leave":
            for i in range(params[0]):
                await ws.send(request("pushed", [i]).encode())
            await ws.close(params[1], "done")
            return
        answer = {"jsonrpc": "2.0", "id": call["id"]}
        if method == "shout":
            answer["result"] = params[0].upper()
        elif method == "kind":
            answer["result"] = type(message).__name__
        elif method == "ping":
            await (await ws.ping())
            answer["result"] = "pong"
        elif method == "batch":  # calls back, in an array
            await ws.send("[" + request("reverse", ["abc"], id=1) + "," + request("note", [1]) + "," + request("broken", ["abc"], id="b") + "]")
            answer["result"] = await ws.recv()
        else:
            answer["error"] = {"code": params[0], "message": "refused", "data": None}
        await ws.send(json.dumps(answer).encode())


async def serve():
    async with websockets.serve(handler, "127.0.0.1", 0, **PATIENT) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def closed(ws):
    n = 0
    try:
        while True:
            message = json.loads(await ws.recv())
            if "method" in message:
                n += 1
    except websockets.ConnectionClosed as e:
        said("closed", n, e.rcvd.code, e.rcvd.reason)


async def client(url):
    async with websockets.connect(url, open_timeout=None, **PATIENT) as ws:
        async def ask(message):
            await ws.send(message)
            answer = await ws.recv()
            said("answer", type(answer).__name__, json.loads(answer))

        await ask(request("shout", ["bytes"], id=1).encode())
        await ask(request("shout", ["text"], id="two"))
        await ask(request("shout", ["none"], id=None).encode())
        await ask(request("subtract", {"minuend": 42, "subtrahend": 23}, id=3))
        for code in 3, -32602, -32000:
            await ask(request("fail", [code], id=code))
        await ask(("[" + request("shout", ["a"], id=1) + "," + request("note", [1]) + "]").encode())
        await ask("{")
        await ask(b"\xff")
        await (await ws.ping())
        for i in range(100):
            await ws.send(request("note", [i]).encode())
        await ask(request("noted", [], id=4))
        await ws.send(request("leave", [100], id=5).encode())
        await closed(ws)
    async with websockets.connect(url, open_timeout=None, **PATIENT) as ws:
        for i in range(100):
            await ws.send(request("note", [i]))
        await ws.close(1001, "bye")
    async with websockets.connect(url, open_timeout=None, **PATIENT) as ws:
        for method in "gone", "noted":
            await ws.send(request(method, [], id=1))
            said(method, json.loads(await ws.recv())["result"])
        await ws.send(request("shout", ["x" * (5 << 18)], id=1))
        await closed(ws)


asyncio.run(serve() if sys.argv[1] == "serve" else client(sys.argv[1]))
