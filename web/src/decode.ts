// Arrays out of base64, deflate, byte planes and half floats.

import type { Chunk } from "./payload";

/** A chunk on its way to the worker: where it was found, and its text. */
export interface Packed extends Chunk {
  text: string;
}

const WIDTH = { f2: 2, f4: 4, i4: 4, u1: 1 } as const;

function fromBase64(text: string): Uint8Array {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let n = 0; n < bytes.length; n++) bytes[n] = binary.charCodeAt(n);
  return bytes;
}

async function inflate(bytes: Uint8Array): Promise<Uint8Array> {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser cannot undo deflate; save the page again with compress=False.");
  }
  const stream = new Blob([bytes as BlobPart]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function bytesOf(chunk: Packed): Promise<Uint8Array> {
  const bytes = fromBase64(chunk.text);
  if (!chunk.deflated) return bytes;
  const planes = await inflate(bytes);
  const width = WIDTH[chunk.type];
  if (width === 1) return planes;
  const joined = new Uint8Array(planes.length);
  for (let byte = 0; byte < width; byte++) {
    const start = byte * chunk.count;
    for (let n = 0; n < chunk.count; n++) joined[n * width + byte] = planes[start + n];
  }
  return joined;
}

let halfTable: Float32Array | null = null;

/** The value of each of the 65,536 half floats. */
function halves(): Float32Array {
  if (halfTable) return halfTable;
  const table = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent === 0) table[bits] = sign * fraction * 2 ** -24;
    else table[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return (halfTable = table);
}

export async function floats(chunk: Packed, scale = 1): Promise<Float32Array> {
  const bytes = await bytesOf(chunk);
  if (chunk.type === "f4") return new Float32Array(bytes.buffer, 0, chunk.count);
  const bits = new Uint16Array(bytes.buffer, 0, chunk.count);
  const table = halves();
  const out = new Float32Array(chunk.count);
  for (let n = 0; n < out.length; n++) out[n] = table[bits[n]] * scale;
  return out;
}

export async function integers(chunk: Packed): Promise<Int32Array> {
  return new Int32Array((await bytesOf(chunk)).buffer, 0, chunk.count);
}

export const rawBytes = bytesOf;
