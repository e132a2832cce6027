/** What is used of a WebSocket: the browser's, Node's, Deno's, or that of a package such as ws. */
export interface Socket {
  binaryType: string;
  readonly bufferedAmount: number;
  readonly protocol: string;
  readonly readyState: number;
  onopen: ((event: never) => unknown) | null;
  onmessage: ((event: never) => unknown) | null;
  onclose: ((event: never) => unknown) | null;
  onerror: ((event: never) => unknown) | null;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** Makes a WebSocket. */
export type SocketConstructor = new (url: string, protocols: string[]) => Socket;

/** What setTimeout returns. */
export type Timer = ReturnType<typeof setTimeout> | undefined;
