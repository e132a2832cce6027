/** The SHA-256 of bytes that come piece by piece, which the host's own cannot make. */
export interface Sum {
  add(bytes: Uint8Array): void;
  /** The sum of all that was added. Nothing may be added after it. */
  digest(): Uint8Array;
}

/** The first 32 bits behind the point of a root of each of the first primes. */
function roots(count: number, power: number): Uint32Array {
  const primes: number[] = [];
  for (let n = 2; primes.length < count; n++) if (primes.every((prime) => n % prime)) primes.push(n);
  return Uint32Array.from(primes, (prime) => (prime ** power % 1) * 2 ** 32);
}

/** Begins a sum (FIPS 180-4, section 6.2). */
export function sha256(): Sum {
  const state = roots(8, 1 / 2);
  const constants = roots(64, 1 / 3);
  const words = new Uint32Array(64);
  const block = new Uint8Array(64);
  const view = new DataView(block.buffer);
  let length = 0;

  const rotate = (x: number, bits: number) => (x >>> bits) | (x << (32 - bits));
  const mix = () => {
    for (let i = 0; i < 16; i++) words[i] = view.getUint32(4 * i);
    for (let i = 16; i < 64; i++) {
      const [x, y] = [words[i - 15]!, words[i - 2]!];
      const s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3);
      const s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10);
      words[i] = words[i - 16]! + s0 + words[i - 7]! + s1;
    }
    let [a, b, c, d, e, f, g, h] = state as unknown as [number, number, number, number, number, number, number, number];
    for (let i = 0; i < 64; i++) {
      const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const first = (h + s1 + ((e & f) ^ (~e & g)) + constants[i]! + words[i]!) | 0;
      const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const second = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + first) | 0;
      d = c;
      c = b;
      b = a;
      a = (first + second) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((value, i) => (state[i]! += value));
  };
  const add = (bytes: Uint8Array) => {
    for (let at = 0; at < bytes.length; ) {
      const from = length % 64;
      const part = bytes.subarray(at, at + 64 - from);
      block.set(part, from);
      at += part.length;
      length += part.length;
      if (length % 64 === 0) mix();
    }
  };

  return {
    add,
    digest() {
      const bits = length * 8;
      add(Uint8Array.of(0x80));
      while (length % 64 !== 56) add(Uint8Array.of(0));
      view.setUint32(56, bits / 2 ** 32);
      view.setUint32(60, bits);
      mix();
      const sum = new DataView(new ArrayBuffer(32));
      state.forEach((word, i) => sum.setUint32(4 * i, word));
      return new Uint8Array(sum.buffer);
    },
  };
}
