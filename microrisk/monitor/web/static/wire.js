// Frames from bytes: the other end of wire.py. Times become milliseconds (a quarter of a microsecond is what remains).

const FRAME = 1;
const BATCH = 2;
const VERSION = 1;
const HEADER_BYTES = 56;
const decoder = new TextDecoder();

export class WireError extends Error {}

/** Frames of one message, oldest first. `states` and the names come from the first message of the connection. */
export function decode(buffer, states) {
  const view = new DataView(buffer);
  if (view.getUint8(1) !== VERSION) throw new WireError(`frames of version ${view.getUint8(1)}: reload the page`);
  const kind = view.getUint8(0);
  if (kind === FRAME) return [frame(buffer, 0, states)];
  if (kind !== BATCH) throw new WireError(`message of kind ${kind}`);
  const out = [];
  let at = 8;
  for (let left = view.getUint32(4, true); left > 0; left--) {
    out.push(frame(buffer, at + 8, states));
    at += 8 + view.getUint32(at, true);
  }
  return out;
}

const toMs = (ns) => Number(ns / 1000n) / 1000;

function frame(buffer, at, states) {
  const v = new DataView(buffer, at, HEADER_BYTES);
  const sizes = { bids: v.getUint16(44, true), asks: v.getUint16(46, true), trades: v.getUint16(48, true) };
  const codes = v.getUint16(50, true);
  const words = v.getUint32(52, true);
  const heads = v.getUint8(42);
  let place = at + HEADER_BYTES;
  const take = (Type, n) => {
    const part = new Type(buffer, place, n);
    place += n * Type.BYTES_PER_ELEMENT;
    return part;
  };
  const bids = Float64Array.from(take(BigInt64Array, 2 * sizes.bids), Number);
  const asks = Float64Array.from(take(BigInt64Array, 2 * sizes.asks), Number);
  const tape = take(BigInt64Array, 4 * sizes.trades);
  const levels = take(Float64Array, heads);
  const values = take(Int32Array, heads);
  const code = take(Int8Array, codes);
  const said = JSON.parse(decoder.decode(new Uint8Array(buffer, place, words)));
  return {
    state: states[v.getUint8(2)] ?? "suspect",
    alert: v.getUint8(3),
    topic: v.getUint32(4, true),
    n: Number(v.getBigUint64(8, true)),
    ms: toMs(v.getBigInt64(16, true)),
    events: Number(v.getBigUint64(24, true)),
    tick: Number(v.getBigInt64(32, true)),
    pxExp: v.getInt8(40),
    qtyExp: v.getInt8(41),
    codes: v.getUint8(43) ? code : null,
    bids, asks, levels, heads: values,
    trades: trades(tape),
    why: said.why,
    drivers: said.drivers,
  };
}

function trades(tape) {
  const out = [];
  for (let i = 0; i < tape.length; i += 4) {
    out.push({ ms: toMs(tape[i]), px: Number(tape[i + 1]), qty: Number(tape[i + 2]), side: Number(tape[i + 3]) });
  }
  return out;
}
