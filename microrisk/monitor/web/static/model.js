// Frames of one instrument as they come, and what can be learned from them about its numbers.

import { Decimals } from "./fmt.js";

const KEPT = 2400;

export class Model {
  constructor() {
    this.clear();
  }

  clear() {
    this.frames = [];
    this.decimals = null;
  }

  get last() {
    return this.frames[this.frames.length - 1] ?? null;
  }

  /** False when the frames do not go on from those before: the monitor was restarted. */
  add(frames) {
    const whole = !this.last || frames[0].n > this.last.n;
    if (!whole) this.clear();
    for (const frame of frames) this.see(frame);
    this.frames.push(...frames);
    if (this.frames.length > KEPT) this.frames.splice(0, this.frames.length - KEPT);
    return whole;
  }

  see(frame) {
    this.decimals ??= { px: new Decimals(frame.pxExp), qty: new Decimals(frame.qtyExp) };
    for (const side of [frame.bids, frame.asks]) {
      for (let i = 0; i < side.length; i += 2) {
        this.decimals.px.see(side[i]);
        this.decimals.qty.see(side[i + 1]);
      }
    }
    if (frame.tick > 1) this.decimals.px.see(frame.tick);
  }
}
