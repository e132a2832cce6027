// What tsc takes for the typedrpc.js that the page imports, and which is served beside it.
export * from "../../../js/src/index.js";
