export { type CallOptions, type Caller, call } from "./api/call.js";
export { Conn, connect } from "./api/conn.js";
export { type Method, type Traits, method } from "./api/declare.js";
export { keyed, newKey } from "./api/keyed.js";
export { type Fingerprints, schema } from "./api/schema.js";
export { type SignedIn, signIn } from "./api/signin.js";
export { type Member, type Topic, type TopicEvent, type TopicTraits, subscribe, topic, watch } from "./api/topic.js";
export {
  type Download,
  type DownloadOptions,
  type IncomingFile,
  type Progress,
  type Source,
  type Upload,
  type UploadOptions,
  download,
  downloadOf,
  upload,
  uploadOf,
} from "./api/transfer.js";
export { type Notification, notification, notify } from "./api/notify.js";
export {
  Context,
  type Handled,
  handle,
  handleBidiStream,
  handleClientStream,
  handleNotification,
  handleServerStream,
  serve,
} from "./api/serve.js";
export {
  type BidiStream,
  type ClientStream,
  type Duplex,
  type ReceiveOptions,
  type ServerStream,
  type ServerStreamTraits,
  type StreamTraits,
  bidiStream,
  clientStream,
  open,
  receive,
  sendAll,
  serverStream,
} from "./api/stream.js";
export type { Backoff, ConnectOptions, ConnectionLimits, WithoutLink } from "./client/options.js";
export type { Schema } from "./client/schema.js";
export type { SignIn } from "./client/signin.js";
export type { State } from "./client/state.js";
export { type FragmentsMaker, fragments } from "./engine/fragments.js";
export type { Key, Repeat } from "./engine/turn.js";
export type { Socket, SocketConstructor } from "./link/socket.js";
export { Code, type ErrorFields, type Outcome, RpcError } from "./status.js";
export type { Limits } from "./wire/body.js";
export type { Metadata } from "./wire/frame.js";
