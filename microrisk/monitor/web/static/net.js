// The websocket with its back-off, and requests. What was asked last is asked again after a reconnect.

import { decode } from "./wire.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const SEEN_EVERY = 2;
const SILENT_MS = 6_000;

export class Link {
  constructor() {
    this.handlers = new Map();
    this.hello = null;
    this.wanted = { page: null, follow: null };
    this.lastN = 0;
    this.topic = -1;
    this.unseen = 0;
    this.attempt = 0;
    this.heard = 0;
    setInterval(() => this.watch(), 1000);
  }

  on(type, act) {
    if (!this.handlers.has(type)) this.handlers.set(type, []);
    this.handlers.get(type).push(act);
  }

  tell(type, value) {
    for (const act of this.handlers.get(type) ?? []) act(value);
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    this.socket = socket;
    this.heard = performance.now();
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.ask();
    };
    socket.onmessage = (event) => this.take(event.data);
    socket.onclose = (event) => socket === this.socket && this.closed(opened, event.reason);
  }

  ask() {
    if (this.wanted.page) this.say({ page: this.wanted.page });
    if (this.wanted.follow) this.say({ follow: this.wanted.follow, after: this.lastN });
  }

  say(what) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(what));
  }

  page(name) {
    this.wanted.page = name;
    this.say({ page: name });
  }

  follow(name) {
    if (this.wanted.follow === name) return;
    this.wanted.follow = name;
    this.lastN = 0;
    this.topic = -1;
    this.say({ follow: name });
  }

  take(data) {
    this.heard = performance.now();
    if (typeof data !== "string") {
      this.frames(data);
      return;
    }
    const message = JSON.parse(data);
    if (message.type === "hello") {
      this.hello = message;
      this.attempt = 0;
      this.tell("up", null);
    }
    if (message.type === "following" && message.instrument === this.wanted.follow) this.topic = message.topic;
    this.tell(message.type, message);
  }

  frames(data) {
    const frames = decode(data, this.hello.layout.states).filter((f) => f.topic === this.topic);
    if (frames.length === 0) return;
    this.lastN = frames[frames.length - 1].n;
    this.unseen += frames.length;
    if (this.unseen >= SEEN_EVERY) {
      this.unseen = 0;
      this.say({ seen: this.lastN, topic: this.topic });
    }
    this.tell("frames", frames);
  }

  /** The server speaks at least once a second; a connection that does not is half open. */
  watch() {
    if (this.socket?.readyState === WebSocket.OPEN && performance.now() - this.heard > SILENT_MS) {
      const silent = this.socket;
      this.socket = null;
      silent.close();
      this.closed(true, "nothing was heard for six seconds");
    }
  }

  async closed(opened, reason) {
    this.topic = -1;
    this.attempt += 1;
    if (!opened && (await this.signedOut())) {
      this.tell("signed-out", null);
      return;
    }
    const wait = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** (this.attempt - 1)) * (0.75 + Math.random() / 2);
    this.tell("down", { wait, attempt: this.attempt, reason });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), wait);
  }

  retry() {
    clearTimeout(this.timer);
    this.open();
  }

  async signedOut() {
    try {
      return (await fetch("/api/overview", { cache: "no-store" })).status === 401;
    } catch {
      return false;
    }
  }
}

export class RequestError extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

async function checked(response) {
  if (response.ok) return response;
  throw new RequestError(response.status, (await response.text()).trim().slice(0, 200));
}

export async function get(path) {
  return (await checked(await fetch(path, { cache: "no-store" }))).json();
}

export async function getBytes(path) {
  return (await checked(await fetch(path, { cache: "no-store" }))).arrayBuffer();
}

export async function post(path, body) {
  const headers = { "content-type": "application/json", "x-microrisk": "1" };
  return (await checked(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }))).json();
}
