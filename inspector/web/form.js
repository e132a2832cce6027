// @ts-check
// Forms that are made from JSON Schema.
import { button, make } from "./dom.js";

/**
 * What is used here of a JSON Schema.
 *
 * @typedef {{
 *   $ref?: string, title?: string, description?: string, type?: string | string[], format?: string, enum?: unknown[], const?: unknown,
 *   properties?: Record<string, Schema>, required?: string[], "x-order"?: string[], items?: Schema, minItems?: number, maxItems?: number,
 *   anyOf?: Schema[], oneOf?: Schema[], additionalProperties?: unknown, contentEncoding?: string,
 *   minimum?: number, maximum?: number, "x-constants"?: { name: string, description?: string, value: unknown }[],
 * }} Schema
 */

/** What a field that was left empty has: nothing is sent of it. */
export const left = Symbol("left out");

/**
 * A part of a form.
 *
 * @typedef {{ node: HTMLElement, value: () => unknown }} Field
 */

/** A field that does not hold what it should; its element has the focus then. */
export class Wrong extends Error {
  /**
   * @param {HTMLElement} at
   * @param {string} text
   */
  constructor(at, text) {
    super(text);
    this.at = at;
  }
}

let ids = 0;

/**
 * Makes fields for a schema.
 *
 * @param {Schema} schema
 * @param {Record<string, Schema>} all those that are referred to
 */
export function forms(schema, all) {
  /**
   * @param {Schema} s
   * @returns {{ schema: Schema, nullable: boolean }}
   */
  const resolve = (s, depth = 0) => {
    const name = s.$ref?.replace("#/components/schemas/", "").replaceAll("~1", "/").replaceAll("~0", "~");
    const found = name === undefined ? undefined : all[decodeURIComponent(name)];
    if (found && depth < 20) {
      const { $ref, ...beside } = s;
      return resolve({ ...found, ...beside }, depth + 1);
    }
    const some = s.anyOf ?? s.oneOf;
    if (some) {
      const rest = some.filter(({ type }) => type !== "null");
      const { anyOf, oneOf, ...beside } = s;
      if (rest.length === 1 && rest[0]) {
        const one = resolve({ ...rest[0], ...beside }, depth + 1);
        return { schema: one.schema, nullable: one.nullable || rest.length < some.length };
      }
      return { schema: beside, nullable: rest.length < some.length };
    }
    if (Array.isArray(s.type)) {
      const types = s.type.filter((t) => t !== "null");
      const { type, ...beside } = s;
      return { schema: types.length === 1 && types[0] ? { ...beside, type: types[0] } : beside, nullable: types.length < s.type.length };
    }
    return { schema: s, nullable: false };
  };

  /**
   * @param {string} name
   * @param {Schema} given
   * @param {boolean} required
   * @param {unknown} initial undefined: there is none
   * @param {number} [depth]
   * @returns {Field}
   */
  const field = (name, given, required, initial, depth = 0) => {
    const { schema: s, nullable } = resolve(given);
    const description = given.description ?? s.description;
    const empty = () => (required && !nullable ? undefined : required ? null : left);
    if (s.properties && s.type !== "array") {
      const make1 = () => object(name, s, initial, depth, description);
      return (required && !nullable) || initial ? make1() : optional(name, description, () => object(name, s, undefined, depth, description), () => /** @type {typeof left | null} */ (empty()));
    }
    if (s.type === "array" && s.items) return list(name, s, required, nullable, initial, depth, description);
    if (s.enum || s["x-constants"]?.length) return choice(name, s, description, empty, initial, !s.enum);
    if (s.type === "boolean") return yes(name, description, required && !nullable, empty, initial);
    if (s.type === "string" && !(s.contentEncoding && s.contentEncoding !== "base64")) return line(name, description, s.format === "date-time" ? "2026-12-01T12:00:00Z" : s.contentEncoding ? "base64" : "", required && !nullable, (text) => text, () => (required && !nullable ? "" : empty()), initial);
    if (s.type === "integer" || s.type === "number") {
      const whole = s.type === "integer";
      return line(name, description, required && !nullable ? "0" : "", required && !nullable, (text, at) => {
        const n = Number(text);
        if (!Number.isFinite(n) || (whole && !Number.isInteger(n))) throw new Wrong(at, `${name || "It"} has to be ${whole ? "a whole number" : "a number"}`);
        if (whole && !Number.isSafeInteger(n)) throw new Wrong(at, `${name || "It"} is larger than JavaScript can count: write it as JSON`);
        return n;
      }, () => (required && !nullable ? 0 : empty()), initial, whole ? "numeric" : "decimal");
    }
    return json(name, description, required, empty, initial);
  };

  /**
   * @param {string} name
   * @param {string | undefined} description
   * @param {HTMLElement} input
   * @param {string} [kind]
   */
  const labelled = (name, description, input, kind = "") => {
    input.id = `field-${++ids}`;
    const label = make("label", "", name || "Value", ...(kind ? [" ", make("small", "", kind)] : []));
    label.htmlFor = input.id;
    const node = make("div", "field", label, input);
    if (description) {
      const hint = make("p", "hint", description);
      hint.id = `${input.id}-hint`;
      input.setAttribute("aria-describedby", hint.id);
      node.append(hint);
    }
    return node;
  };

  /**
   * @param {string} name
   * @param {string | undefined} description
   * @param {string} placeholder
   * @param {boolean} required
   * @param {(text: string, at: HTMLElement) => unknown} read
   * @param {() => unknown} empty
   * @param {unknown} initial
   * @param {string} [mode]
   * @returns {Field}
   */
  const line = (name, description, placeholder, required, read, empty, initial, mode) => {
    const input = make("input", "");
    input.type = "text";
    input.autocomplete = "off";
    input.spellcheck = false;
    input.placeholder = placeholder;
    if (mode) input.inputMode = mode;
    if (initial !== undefined && initial !== null) input.value = String(initial);
    return { node: labelled(name, description, input, required ? "" : "optional"), value: () => (input.value === "" ? empty() : read(input.value, input)) };
  };

  /**
   * @param {string} name
   * @param {Schema} s
   * @param {string | undefined} description
   * @param {() => unknown} empty
   * @param {unknown} initial
   * @param {boolean} open whether other values are allowed, which JSON has to say
   * @returns {Field}
   */
  const choice = (name, s, description, empty, initial, open) => {
    const input = make("select", "");
    /** @type {unknown[]} */
    const values = s.enum ?? s["x-constants"]?.map(({ value }) => value) ?? [];
    if (empty() !== undefined || open) input.append(new Option("–", ""));
    values.forEach((value, i) => {
      const known = s["x-constants"]?.find((c) => c.value === value);
      input.append(new Option(typeof value === "string" ? value : JSON.stringify(value), String(i)));
      const made = input.lastElementChild;
      if (known?.description && made instanceof HTMLOptionElement) made.title = known.description;
      if (value === initial) input.value = String(i);
    });
    return { node: labelled(name, description, input), value: () => (input.value === "" ? empty() ?? "" : values[Number(input.value)]) };
  };

  /**
   * @param {string} name
   * @param {string | undefined} description
   * @param {boolean} required
   * @param {() => unknown} empty
   * @param {unknown} initial
   * @returns {Field}
   */
  const yes = (name, description, required, empty, initial) => {
    const input = make("select", "");
    if (!required) input.append(new Option("–", ""));
    input.append(new Option("false"), new Option("true"));
    if (typeof initial === "boolean") input.value = String(initial);
    return { node: labelled(name, description, input), value: () => (input.value === "" ? empty() : input.value === "true") };
  };

  /**
   * @param {string} name
   * @param {string | undefined} description
   * @param {boolean} required
   * @param {() => unknown} empty
   * @param {unknown} initial
   * @returns {Field}
   */
  const json = (name, description, required, empty, initial) => {
    const input = make("textarea", "code");
    input.rows = 3;
    input.spellcheck = false;
    if (initial !== undefined) input.value = JSON.stringify(initial, null, 2);
    return {
      node: labelled(name, description, input, "JSON"),
      value() {
        if (input.value.trim() === "") return required ? null : empty();
        try {
          return JSON.parse(input.value);
        } catch {
          throw new Wrong(input, `${name || "It"} is no JSON`);
        }
      },
    };
  };

  /**
   * @param {string} name
   * @param {Schema} s
   * @param {unknown} initial
   * @param {number} depth
   * @param {string | undefined} description
   * @returns {Field}
   */
  const object = (name, s, initial, depth, description) => {
    const properties = s.properties ?? {};
    const order = [...new Set([...(s["x-order"] ?? []), ...Object.keys(properties)])].filter((key) => properties[key]);
    const has = /** @type {Record<string, unknown>} */ (initial && typeof initial === "object" ? initial : {});
    const fields = order.map((key) => /** @type {const} */ ([key, field(key, /** @type {Schema} */ (properties[key]), s.required?.includes(key) ?? false, has[key], depth + 1)]));
    const rest = Object.entries(has).filter(([key]) => !properties[key]);
    const node = make("fieldset", depth ? "nested" : "plain", ...(name ? [make("legend", "", name)] : []), ...(description && depth ? [make("p", "hint", description)] : []), ...fields.map(([, { node }]) => node));
    if (order.length === 0) node.append(make("p", "hint", "It has no members."));
    return {
      node,
      value() {
        const out = Object.fromEntries(rest);
        for (const [key, { value }] of fields) {
          const v = value();
          if (v !== left) out[key] = v;
        }
        return out;
      },
    };
  };

  /**
   * @param {string} name
   * @param {string | undefined} description
   * @param {() => Field} made
   * @param {() => null | typeof left} empty
   * @returns {Field}
   */
  const optional = (name, description, made, empty) => {
    /** @type {Field | undefined} */
    let inner;
    const node = make("div", "field");
    const closed = () => {
      inner = undefined;
      node.replaceChildren(button(`Add ${name || "it"}`, "other small", opened), ...(description ? [make("p", "hint", description)] : []));
    };
    const opened = () => {
      inner = made();
      node.replaceChildren(inner.node, button(`Leave ${name || "it"} out`, "link", closed));
      inner.node.querySelector("input, select, textarea")?.dispatchEvent(new Event("added"));
    };
    closed();
    return { node, value: () => (inner ? inner.value() : empty()) };
  };

  /**
   * @param {string} name
   * @param {Schema} s
   * @param {boolean} required
   * @param {boolean} nullable
   * @param {unknown} initial
   * @param {number} depth
   * @param {string | undefined} description
   * @returns {Field}
   */
  const list = (name, s, required, nullable, initial, depth, description) => {
    /** @type {Field[]} */
    const entries = [];
    const body = make("div", "entries");
    const node = make("fieldset", "nested", make("legend", "", name || "List"), ...(description ? [make("p", "hint", description)] : []), body);
    const fixed = s.minItems !== undefined && s.minItems === s.maxItems;
    /** @param {unknown} [value] */
    const add = (value) => {
      const entry = field(`${entries.length + 1}`, /** @type {Schema} */ (s.items), true, value, depth + 1);
      entries.push(entry);
      const row = make("div", "entry", entry.node);
      if (!fixed) {
        const away = button("Remove", "link", () => {
          entries.splice(entries.indexOf(entry), 1);
          row.remove();
        });
        row.append(away);
      }
      body.append(row);
    };
    const given = Array.isArray(initial) ? initial : undefined;
    for (const value of given ?? Array.from({ length: s.minItems ?? 0 })) add(value);
    if (!fixed) node.append(button("Add one", "other small", () => add()));
    return { node, value: () => (entries.length === 0 && !given ? (required ? (nullable ? null : []) : left) : entries.map(({ value }) => value())) };
  };

  return {
    /**
     * A form, with values where there are some.
     *
     * @param {unknown} [initial]
     * @param {string} [name]
     */
    make: (initial, name = "") => field(name, schema, true, initial),
  };
}

/**
 * Whether a form can be made that is better than JSON.
 *
 * @param {Schema | undefined} s
 */
export const formable = (s) => Boolean(s && (s.$ref || s.type || s.properties || s.enum || s.anyOf || s.oneOf));
