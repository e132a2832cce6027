// Reads one JSON value a line, and writes each back as JavaScript does.
import { createInterface } from "node:readline";

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(JSON.parse(line)) + "\n");
}
