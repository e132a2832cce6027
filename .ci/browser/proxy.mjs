// Forwards connections to a server until they are cut.
import { createConnection, createServer } from "node:net";

export async function proxy(target) {
  const { hostname, port } = new URL(target);
  const sockets = new Set();
  const listener = createServer((near) => {
    if (forwarding.down) return near.destroy();
    const far = createConnection(Number(port), hostname);
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from);
      from.setNoDelay(true);
      from.on("error", () => from.destroy());
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  await new Promise((resolve) => listener.listen(0, "127.0.0.1", resolve));
  const forwarding = {
    url: `http://127.0.0.1:${listener.address().port}/`,
    // Connections are refused.
    down: false,
    cut() {
      for (const socket of sockets) socket.destroy();
    },
    stop() {
      listener.close();
      this.cut();
    },
  };
  return forwarding;
}
