"""JSON-RPC over aiohttp.

    aiohttp_peer.py serve   prints its port
    aiohttp_peer.py URL     prints what it saw
"""

import asyncio
import json
import sys

import aiohttp
from aiohttp import web


def said(what, *values):
    print(what, *(json.dumps(v, separators=(",", ":")) for v in values), flush=True)


def request(method, params, **ident):
    return {"jsonrpc": "2.0", "method": method, "params": params, **ident}


async def handler(req):
    ws = web.WebSocketResponse(protocols=["jsonrpc"])
    await ws.prepare(req)
    await ws.ping()  # and nothing else
    async for message in ws:
        call = message.json()
        method, params = call["method"], call.get("params")
        answer = {"jsonrpc": "2.0", "id": call.get("id")}
        if method == "shout":
            answer["result"] = params[0].upper()
        elif method == "ask":
            await ws.send_json(request("reverse", {"text": "abc"}, id="q"))
            answer["result"] = await ws.receive_json()
        elif method == "leave":
            for i in range(params[0]):
                await ws.send_json(request("pushed", [i]))
            await ws.close(code=params[1], message=b"done")
            break
        elif method == "fail":
            answer["error"] = {"code": params[0], "message": "refused"}
        if "id" in call:
            await ws.send_json(answer)
    return ws


async def serve():
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def over(session, url, compress):
    async with session.ws_connect(url, compress=compress, protocols=["jsonrpc"]) as ws:
        async def ask(message):
            await ws.send_json(message)
            return await ws.receive_json()

        await ws.ping()  # and nothing else
        for i in range(3):
            said("shout", len((await ask(request("shout", ["the same words " * 200], id=i)))["result"]))
        for code in 3, -32602, -32000:
            said("refused", (await ask(request("fail", [code], id=1)))["error"])
        await ws.send_bytes(json.dumps(request("shout", ["bytes"], id=None)).encode())
        message = await ws.receive()
        said("bytes", message.type.name, json.loads(message.data))
        for i in range(100):
            await ws.send_json(request("note", [i]))
        said("noted", (await ask(request("noted", {}, id=1)))["result"])
        await ws.send_json(request("ask", ["reverse", "abc"], id=2))
        question = await ws.receive_json()
        await ws.send_json({"jsonrpc": "2.0", "id": question["id"], "result": question["params"][0][::-1]})
        said("asked", (await ws.receive_json())["result"])
        await ws.send_json(request("leave", [100], id=3))
        n = 0
        async for _ in ws:
            n += 1
        said("closed", n, ws.close_code)


async def client(url):
    async with aiohttp.ClientSession() as session:
        for compress in 0, 15:
            await over(session, url, compress)
        for body in (
            request("shout", ["a"], id=None),
            [request("subtract", [42, 23], id="x"), request("note", [1]), request("fail", [3], id=1.5)],
            request("note", [1]),
        ):
            async with session.post(url.replace("ws", "http"), json=body) as response:
                said("post", response.status, await response.text())


asyncio.run(serve() if sys.argv[1] == "serve" else client(sys.argv[1]))
