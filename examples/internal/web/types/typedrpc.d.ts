// What tsc takes for the typedrpc.js that pages import, and which is served beside them.
export * from "../../../../js/src/index.js";
