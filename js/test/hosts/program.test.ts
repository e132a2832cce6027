// One program in each of the hosts that are installed here, which knows nothing of Node, nor of ws.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { text } from "node:stream/consumers";
import { describe, test } from "node:test";
import { Proxy, startServer } from "../server.js";

const program = path.resolve("test/hosts/program.mjs");
const installed = path.resolve("test/hosts/node_modules");

/** What runs a program, and whether it has the workers of the web. */
const hosts: Record<string, { file: string; args?: string[]; workers?: boolean }> = {
  "Node 22": { file: "node-22/bin/node" },
  "Node 24": { file: "node-24/bin/node" },
  Deno: {
    file: "@deno/linux-x64-glibc/deno",
    args: ["run", "--quiet", "--no-config", "--no-lock", "--no-remote", "--no-prompt", "--allow-net=127.0.0.1", `--allow-read=${process.cwd()}`],
    workers: true,
  },
  Bun: { file: "@oven/bun-linux-x64-baseline/bin/bun", args: ["--no-install"], workers: true },
};

/** What a program does not wait for when it has closed its connection: none of its timers is as short, but for those that are over. */
const patience = 20_000;

/** Does what a program asks for that it cannot do itself. */
async function startControl(server: Awaited<ReturnType<typeof startServer>>, proxy: Proxy) {
  const commands: Record<string, () => void> = {
    cut: () => proxy.cut(),
    down() {
      proxy.down = true;
      proxy.cut();
    },
    up: () => (proxy.down = false),
    silent: () => (proxy.silent = true),
    heard: () => (proxy.silent = false),
  };
  const control = createServer(async (request, response) => {
    const [, command = "", ...more] = request.url!.split("/");
    response.setHeader("connection", "close");
    if (command === "server") return response.end(await server.tell(more.join("/")));
    response.statusCode = command in commands ? 200 : 404;
    commands[command]?.();
    return response.end();
  });
  control.listen(0, "127.0.0.1");
  await once(control, "listening");
  return control;
}

describe("a program that has the built file alone", { concurrency: true }, () => {
  for (const [name, { file, args = [], workers }] of Object.entries(hosts)) {
    test(name, { timeout: 300_000 }, async (t) => {
      const server = await startServer();
      const proxy = await new Proxy(server.address).start();
      const control = await startControl(server, proxy);
      const host = path.join(installed, file);
      const env = { ...process.env, DENO_DIR: path.resolve(".build/deno"), DENO_NO_UPDATE_CHECK: "1", DO_NOT_TRACK: "1" };
      const version = spawnSync(host, ["--version"], { encoding: "utf8", env }).stdout.split("\n")[0];
      const controlled = `http://127.0.0.1:${(control.address() as AddressInfo).port}`;
      const child = spawn(host, [...args, program, proxy.url().slice(0, -1), controlled], { stdio: ["ignore", "pipe", "pipe"], env });
      t.after(() => {
        child.kill("SIGKILL");
        control.close();
        proxy.stop();
        server.stop();
      });
      let said = "";
      let closed = 0;
      child.stdout.on("data", (bytes: Buffer) => {
        said += bytes.toString();
        if (said.endsWith("close\n")) closed = Date.now();
      });
      const problems = text(child.stderr);
      const [status] = (await once(child, "exit")) as [number | null];
      const took = Date.now() - closed;
      const steps = said.trim().split("\n");
      t.diagnostic(`${version}: ${steps.join(", ")}; ended ${took} ms later`);
      assert.equal(status, 0, `after ${steps.at(-1)}: ${await problems}`);
      assert.equal(steps.at(-1), "close");
      assert.equal(steps.includes("a worker"), workers ?? false);
      assert.equal(await problems, "");
      assert.ok(took < patience, `it lived for another ${took} ms`);
    });
  }
});
