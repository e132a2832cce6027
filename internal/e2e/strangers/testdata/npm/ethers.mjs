import { ethers } from "ethers";
import { failure, posts, queue, say, url } from "./peer.mjs";

const provider = new ethers.WebSocketProvider(url);
say("chain", String((await provider.getNetwork()).chainId));
say("block", await provider.getBlockNumber());
say("by position", await provider.send("subtract", [42, 23]));
const call = { to: "0x0000000000000000000000000000000000000001", data: "0x01" };
let err = await failure(provider.call(call));
say("reverted", err.code, err.reason);
err = await failure(provider.send("fail", [-32000]));
say("refused", err.error.code, err.error.message, err.error.data);
err = await failure(provider.send("subtract", ["x"]));
say("bad params", err.error.code);
err = await failure(provider.send("nothing", []));
say("no method", err.code, err.error?.code);

const blocks = queue();
await provider.on("block", blocks.push);
say("heads", await blocks.next(), await blocks.next(), await blocks.next());
await provider.off("block");
await provider.send("settled", []);
await provider.destroy();

const http = new ethers.JsonRpcProvider(posts, 1, { staticNetwork: true });
say("batch", await Promise.all([http.send("subtract", [5, 3]), http.getBlockNumber(), failure(http.call(call)).then((e) => e.reason)]));
http.destroy();
