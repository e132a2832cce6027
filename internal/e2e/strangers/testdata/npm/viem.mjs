import { createPublicClient, http, webSocket } from "viem";
import { failure, posts, queue, say, url } from "./peer.mjs";

const client = createPublicClient({ transport: webSocket(url, { retryCount: 0, timeout: 300_000, reconnect: false, keepAlive: { interval: 20 } }) });
say("chain", await client.getChainId());
say("block", Number(await client.getBlockNumber()));
const code = (e) => e.walk((x) => typeof x.code === "number").code;
const call = { to: "0x0000000000000000000000000000000000000001", data: "0x01" };
let err = await failure(client.call(call));
say("reverted", code(err), err.walk().details ?? err.details);
for (const n of [3, -32602, -32000]) {
  err = await failure(client.request({ method: "fail", params: [n] }));
  say("refused", code(err), err.walk().data);
}
const heads = queue();
const { unsubscribe } = await client.transport.subscribe({ params: ["newHeads"], onData: (d) => heads.push(d.result.number), onError: (e) => say("error", e.message) });
say("heads", await heads.next(), await heads.next(), await heads.next());
await unsubscribe();
await client.request({ method: "settled" });
const numbers = queue();
const unwatch = client.watchBlockNumber({ onBlockNumber: (n) => numbers.push(Number(n)) });
say("watched", await numbers.next(), await numbers.next(), await numbers.next());
unwatch();
await client.request({ method: "pinged" }); // its pings are calls with the id null
const rpc = await client.transport.getRpcClient();
rpc.close();

const batch = createPublicClient({ transport: http(posts, { batch: true, retryCount: 0, timeout: 300_000 }) });
say("batch", await Promise.all([batch.getChainId(), batch.request({ method: "subtract", params: [5, 3] }), failure(batch.request({ method: "fail", params: [3] })).then(code)]));
