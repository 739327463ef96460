// A home-made pool: plain child processes, JSON lines over pipes, no isolation. It
// takes the commands of pool.py and answers as that does.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const child = `
import { createInterface } from "node:readline";
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  for (let seq = 1; seq <= request.params.events; seq++) {
    const event = { run_id: request.id, seq, type: "TEXT_DELTA", data: { text: "word word word word" } };
    process.stdout.write(JSON.stringify({ jsonrpc: "2.0", method: "event", params: event }) + "\\n");
  }
}
`;

function start() {
  const process_ = spawn(process.execPath, ["--input-type=module", "-e", child], { stdio: ["pipe", "pipe", "inherit"] });
  return { process: process_, lines: createInterface({ input: process_.stdout }) };
}

// ask sends a message and reads its events; it gives when the first and the last came.
function ask(to, events) {
  return new Promise((resolve) => {
    let first = 0;
    let seq = 0;
    const onLine = (line) => {
      seq++;
      if (JSON.parse(line).params.seq !== seq) throw new Error("an event is missing");
      first ||= performance.now();
      if (seq === events) {
        to.lines.off("line", onLine);
        resolve([first, performance.now()]);
      }
    };
    to.lines.on("line", onLine);
    to.process.stdin.write(JSON.stringify({ jsonrpc: "2.0", id: "run", method: "execute", params: { message: "hi", events } }) + "\n");
  });
}

function end(what) {
  return new Promise((resolve) => {
    what.process.on("exit", resolve);
    what.process.stdin.end();
  });
}

const bound = start();
await ask(bound, 1);
for await (const line of createInterface({ input: process.stdin })) {
  const [what, n] = line.split(" ");
  const began = performance.now();
  let took;
  if (what === "cold") {
    const fresh = start();
    took = (await ask(fresh, 1))[0] - began;
    await end(fresh);
  } else if (what === "bound") {
    took = (await ask(bound, 1))[0] - began;
  } else {
    took = (await ask(bound, Number(n)))[1] - began;
  }
  console.log(took / 1000);
}
await end(bound);
