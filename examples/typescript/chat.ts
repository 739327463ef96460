// One turn of a chat: a file goes up, an agent works, its answer is shown as it comes.
//
// usage: chat [-u USER] [-a AGENT] [-m MODEL] MESSAGE
//
// CARREL_URL and CARREL_API_KEY say where the daemon is and who asks.
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { Carrel, type Config, type RunEvent } from "./carrel.js";

const PLAN = "roof,2026-05-01\ndoor,2026-03-01\nattic,2026-04-01\n";

const keyboard = createInterface({ input: process.stdin });
const typed = keyboard[Symbol.asyncIterator]();

async function main(): Promise<void> {
  const { values: options, positionals } = parseArgs({
    options: {
      user: { type: "string", short: "u", default: "ana" },
      agent: { type: "string", short: "a" }, // claude or shell; else the daemon's own
      model: { type: "string", short: "m" },
    },
    allowPositionals: true,
  });
  const [message] = positionals; // a script, where the agent is shell
  if (message === undefined) throw new Error("usage: chat [-u USER] [-a AGENT] [-m MODEL] MESSAGE");
  const { user } = options;
  const config: Config = {};
  if (options.agent !== undefined) config.agent = options.agent;
  if (options.model !== undefined) config.model = options.model;

  const carrel = new Carrel(process.env["CARREL_URL"] ?? "http://127.0.0.1:8642", process.env["CARREL_API_KEY"]);
  const stored = await carrel.put(user, "plan.csv", new TextEncoder().encode(PLAN));
  console.log(`put plan.csv: ${stored.size} bytes`);

  const run = await carrel.execute(user, message, config);
  for await (const event of carrel.events(run)) {
    await show(carrel, event);
  }

  const counted = await carrel.exec(user, ["wc", "-l", "plan.csv"]);
  console.log(`exec wc -l plan.csv: ${counted.stdout.trim()}`);
  console.log("get plan.csv:");
  process.stdout.write(await carrel.get(user, "plan.csv"));
}

/** Shows one event to a person, and asks what the run asks. */
async function show(carrel: Carrel, { run_id, type, data }: RunEvent): Promise<void> {
  switch (type) {
    case "TEXT_DELTA":
      process.stdout.write(data.text);
      break;
    case "TOOL_CALL_START":
      console.log(`\n[${data.name}]`);
      break;
    case "TOOL_CALL_RESULT":
      console.log(`[${data.name} ${data.is_error ? "failed" : "ok"}] ${data.result.trim()}`);
      break;
    case "APPROVAL_REQUESTED": {
      process.stdout.write(`${data.tool} wants ${JSON.stringify(data.input)}: allow? [y/N] `);
      const { value: answer } = await typed.next();
      await carrel.approve(run_id, data.approval_id, answer?.trim() === "y");
      break;
    }
    case "APPROVAL_RESOLVED":
      console.log(`[${data.decision}]`);
      break;
    case "RUN_FINISHED":
      console.log(`\nfinished: ${data.tokens_used} tokens, $${data.usage.cost_usd.toFixed(4)}, ${data.duration.toFixed(1)} s`);
      break;
    case "RUN_ERROR":
      throw new Error(`${data.code}: ${data.message}`);
  }
}

try {
  await main();
} catch (e) {
  const { message, cause } = e as Error;
  console.error(`chat: ${message}${cause instanceof Error ? `: ${cause.message}` : ""}`);
  process.exitCode = 1;
} finally {
  keyboard.close();
}
