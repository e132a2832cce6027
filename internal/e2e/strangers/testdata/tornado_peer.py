"""A JSON-RPC server, or a client, with compression as Tornado does it.

    tornado_peer.py serve           prints its port
    tornado_peer.py call URL TEXT…  prints the answers, or the code and reason of the close
"""

import asyncio
import json
import sys

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect


class RPC(WebSocketHandler):
    def get_compression_options(self):
        return {}

    def on_message(self, message):
        call = json.loads(message)
        if call.get("id") is not None:
            answer = {"jsonrpc": "2.0", "id": call["id"], "result": call["params"][0].upper()}
            self.write_message(json.dumps(answer))


async def serve():
    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([("/rpc", RPC)]))
    server.add_sockets(sockets)
    print(sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def call(url, texts):
    conn = await websocket_connect(url, compression_options={}, subprotocols=["jsonrpc"])
    for i, text in enumerate(texts):
        await conn.write_message(json.dumps({"jsonrpc": "2.0", "id": i, "method": "shout", "params": [text]}))
        answer = await conn.read_message()
        if answer is None:
            print("closed", conn.close_code, conn.close_reason)
            return
        print(json.loads(answer)["result"])


if sys.argv[1] == "serve":
    asyncio.run(serve())
else:
    asyncio.run(call(sys.argv[2], sys.argv[3:]))
