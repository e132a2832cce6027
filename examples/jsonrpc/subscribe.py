import asyncio, json, websockets

async def main():
    async with websockets.connect("ws://127.0.0.1:8080/rpc") as ws:
        await ws.send(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "rpc.subscribe",
                                  "params": {"method": "ticks", "params": {"every": 500}}}))
        print("subscription", json.loads(await ws.recv())["result"])
        async for text in ws:
            print(json.loads(text)["params"]["result"])

asyncio.run(main())
