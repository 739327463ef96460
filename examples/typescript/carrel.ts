// carrel's HTTP API, as far as a chat needs it. Copy this file into your product.
//
// Node 20 or newer, standard library alone. A Carrel holds no connection and no state.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const QUIET = 60_000; // ms without a byte, four of the daemon's keep-alives: the line is dead
const TRIES = 4; // of a request at most, in 0.7 s
const LISTENS = 10; // for events, in a row that bring none: a restart of the daemon fits in

export type Usage = {
  input_tokens: number;
  output_tokens: number;
  cache_read_tokens: number;
  cache_creation_tokens: number;
  cost_usd: number;
};

export type Result = {
  run_id: string;
  session_id: string;
  status: string;
  content: string;
  tokens_used: number;
  usage: Usage;
  duration: number; // seconds
  stop_reason: string;
  exit_code?: number; // of a script
};

/** What a run tells; openapi.json has the whole of it. */
export type RunEvent = { run_id: string; seq: number; time: string } & (
  | { type: "RUN_STARTED"; data: { session_id: string; agent: string } }
  | { type: "TEXT_DELTA"; data: { text: string; stream?: "stdout" | "stderr" } }
  | { type: "THINKING_DELTA"; data: { text: string } }
  | { type: "TOOL_CALL_START"; data: { id: string; name: string } }
  | { type: "TOOL_CALL_ARGS"; data: { id: string; delta: string } }
  | { type: "TOOL_OUTPUT"; data: { id: string; stream: "stdout" | "stderr"; text: string } }
  | { type: "TOOL_CALL_RESULT"; data: { id: string; name: string; result: string; is_error: boolean } }
  | { type: "APPROVAL_REQUESTED"; data: { approval_id: string; tool: string; input: unknown; reason?: string; expires_at: string } }
  | { type: "APPROVAL_RESOLVED"; data: { approval_id: string; decision: "allow" | "deny"; reason?: string } }
  | { type: "USAGE"; data: Usage }
  | { type: "RUN_FINISHED"; data: Result }
  | { type: "RUN_ERROR"; data: { code: string; message: string } }
);

export type Config = { agent?: string; model?: string; max_tokens?: number; max_turns?: number; system?: string };
export type ExecResult = { exit_code: number; signal?: string; stdout: string; stderr: string; truncated: boolean };

/** What the daemon answers where it does not do what it is asked (RFC 9457). */
export class CarrelError extends Error {
  readonly status: number; // 401
  readonly code: string; // "unauthorized"
  readonly retryAfter: number; // seconds

  constructor(status: number, problem: { code?: string; detail?: string }, retryAfter: number) {
    super(`${problem.code ?? "error"}: ${problem.detail ?? `status ${status}, not an answer of carrel's`}`);
    this.status = status;
    this.code = problem.code ?? "";
    this.retryAfter = retryAfter;
  }

  /** Whether the same request may have another answer later. */
  get mayPass(): boolean {
    return [408, 425, 429, 500, 502, 503, 504].includes(this.status) && this.code !== "budget_exceeded";
  }
}

/** A gap, a double or another run's event: to connect again would hide it. */
export class BrokenStream extends Error {}

export class Carrel {
  readonly #url: string;
  readonly #headers: Record<string, string>;

  constructor(url: string, key = "") {
    this.#url = new URL(url).href.replace(/\/+$/, "");
    this.#headers = key === "" ? {} : { Authorization: `Bearer ${key}` };
  }

  /** Starts a run and returns its id. */
  async execute(user: string, message: string, config: Config = {}): Promise<string> {
    // With the key, a request that is sent again starts no second run.
    const headers = { Prefer: "respond-async", "Idempotency-Key": randomUUID() };
    const body = { user_id: user, message, config };
    const run = await this.#again(() => this.#json<{ run_id: string }>("POST", "/v1/execute", body, headers));
    return run.run_id;
  }

  /**
   * Gives the run's events that follow event `after`, each once and in order, and ends
   * after the last. A connection that is lost is made again where it broke.
   */
  async *events(runId: string, after = 0): AsyncGenerator<RunEvent, void, void> {
    for (let tries = 0; ; ) {
      const before = after;
      let lost: unknown;
      try {
        for await (const event of this.#connect(runId, after)) {
          if (event.run_id !== runId || event.seq !== after + 1) {
            throw new BrokenStream(`${runId}: event ${event.seq} after event ${after}`);
          }
          after = event.seq;
          yield event;
          if (event.type === "RUN_FINISHED" || event.type === "RUN_ERROR") return;
        }
        const run = await this.run(runId); // no more came: were those all?
        if (run.status !== "queued" && run.status !== "running" && run.last_seq <= after) return;
        lost = new Error("the events ended before the run did");
      } catch (e) {
        lost = e;
      }
      tries = after > before ? 1 : tries + 1;
      await pause(tries, LISTENS, lost);
    }
  }

  /** Gives the events that one connection brings. */
  async *#connect(runId: string, after: number): AsyncGenerator<RunEvent, void, void> {
    const line = new AbortController();
    const watchdog = setTimeout(() => line.abort(new Error("the line is dead")), QUIET);
    try {
      const headers = { Accept: "text/event-stream", "Last-Event-ID": String(after) };
      const answer = await this.#send("GET", `/v1/runs/${part(runId)}/events`, undefined, headers, line.signal);
      const utf8 = new TextDecoder();
      let rest = "";
      let data = "";
      for await (const bytes of answer.body ?? []) {
        watchdog.refresh();
        const lines = (rest + utf8.decode(bytes, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        for (const text of lines) {
          if (text.startsWith("data: ")) {
            data = text.slice("data: ".length);
          } else if (text === "" && data !== "") {
            yield JSON.parse(data) as RunEvent; // only now is it whole
            data = "";
          }
        }
      }
    } finally {
      clearTimeout(watchdog);
      line.abort(); // whoever has enough hangs up
    }
  }

  run(runId: string): Promise<{ run_id: string; status: string; last_seq: number }> {
    return this.#again(() => this.#json("GET", `/v1/runs/${part(runId)}`));
  }

  async cancel(runId: string): Promise<void> {
    await this.#again(() => this.#json("POST", `/v1/runs/${part(runId)}/cancel`));
  }

  /** Answers an APPROVAL_REQUESTED. */
  async approve(runId: string, approvalId: string, allow: boolean, reason = ""): Promise<void> {
    await this.#json("POST", `/v1/runs/${part(runId)}/approvals/${part(approvalId)}`, { decision: allow ? "allow" : "deny", reason });
  }

  /** Runs one command, a list or a text for the shell; not again, if the line is lost. */
  exec(user: string, command: string | string[]): Promise<ExecResult> {
    return this.#json("POST", userPath(user, "exec"), { command });
  }

  /** Stores a file of the user's workspace, whole or not at all. */
  put(user: string, path: string, content: Uint8Array): Promise<{ name: string; size: number }> {
    return this.#again(() => this.#json("PUT", userPath(user, `files/${path}`), content));
  }

  get(user: string, path: string): Promise<Uint8Array> {
    return this.#again(async () => {
      const answer = await this.#send("GET", userPath(user, `files/${path}`));
      return new Uint8Array(await answer.arrayBuffer());
    });
  }

  async #json<T>(method: string, path: string, body?: object, headers?: Record<string, string>): Promise<T> {
    return (await (await this.#send(method, path, body, headers)).json()) as T;
  }

  async #send(method: string, path: string, body?: object, headers?: Record<string, string>, signal?: AbortSignal): Promise<Response> {
    const request: RequestInit = { method, redirect: "manual" }; // one could carry the message elsewhere
    if (body !== undefined) request.body = body instanceof Uint8Array ? (body as BodyInit) : JSON.stringify(body);
    if (signal !== undefined) request.signal = signal;
    const type = body instanceof Uint8Array ? "application/octet-stream" : "application/json";
    request.headers = { ...(body !== undefined && { "Content-Type": type }), ...this.#headers, ...headers };
    const answer = await fetch(this.#url + path, request);
    if (answer.ok) return answer;
    const problem = await answer.json().catch(() => ({})); // of a proxy, most likely
    throw new CarrelError(answer.status, problem as object, Number(answer.headers.get("Retry-After")) || 0);
  }

  /** Does what may be done twice until it goes well or nothing helps. */
  async #again<T>(act: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await act();
      } catch (e) {
        await pause(tries, TRIES, e);
      }
    }
  }
}

/** Waits before the next try, or throws why there is none. */
async function pause(tries: number, most: number, lost: unknown): Promise<void> {
  const isFault = lost instanceof BrokenStream || lost instanceof SyntaxError || lost instanceof URIError;
  const mayPass = lost instanceof CarrelError ? lost.mayPass : !isFault;
  const wait = lost instanceof CarrelError ? lost.retryAfter : 0;
  if (!mayPass || tries >= most || wait > 120) throw lost;
  // At random, so that all who lost one daemon do not return at once.
  await sleep(wait * 1000 + Math.random() * Math.min(100 * 2 ** (tries - 1), 5000));
}

function userPath(user: string, below: string): string {
  return `/v1/users/${part(user)}/${below.split("/").map(part).join("/")}`;
}

/** Quotes one part of a path. fetch takes ".." for a step up, quoted or not: with it, a
 *  name of a user's would lead to what is another's. */
function part(name: string): string {
  if (name === "." || name === "..") throw new URIError(`"${name}" is no name`);
  return encodeURIComponent(name);
}
