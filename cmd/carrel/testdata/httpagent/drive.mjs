// AG-UI's own client drives a conversation with carrel; TestHttpAgent starts this and
// has the model's script. The client verifies every stream by itself: an event out of
// order, or one that is not as the protocol has it, fails the run. What it only warns
// of is an error here.
//
//   node drive.mjs DIRECTORY-OF-NODE_MODULES URL
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";

const [modules, url] = process.argv.slice(2);
const { HttpAgent } = await import(pathToFileURL(`${modules}/@ag-ui/client/dist/index.mjs`));

const warnings = [];
console.warn = (...words) => warnings.push(words.join(" "));
console.error = () => {}; // the client reports a failed run here, besides throwing it

const threadId = "3f0c9a52-7d0e-4c9b-8a55-0d6f6f6f0001"; // as the client makes them itself

function connect(messages = []) {
  const agent = new HttpAgent({
    url,
    threadId,
    initialMessages: messages,
    headers: { "X-Carrel-User": "ana%20%E2%98%83" },
  });
  agent.events = [];
  agent.subscribe({ onEvent: ({ event }) => void agent.events.push(event) });
  return agent;
}

let said = 0;
async function say(agent, content) {
  agent.addMessage({ id: `user-${++said}`, role: "user", content });
  return await run(agent);
}

async function run(agent, parameters) {
  agent.events.length = 0;
  return await agent.runAgent(parameters);
}

const types = (agent) => agent.events.map((e) => e.type);
const only = (agent, type) => agent.events.filter((e) => e.type === type);
const last = (agent) => agent.messages.at(-1);
const answer = (interrupts, payloads) =>
  interrupts.map(({ id }, i) => ({ interruptId: id, status: "resolved", payload: payloads[i] }));

const agent = connect();

// A turn with thoughts, streamed text, a tool that prints, and an answer.
{
  const { result, newMessages } = await say(agent, "make");
  assert.deepEqual(
    newMessages.map((m) => [m.role, m.content]),
    [["reasoning", "Let me see."], ["assistant", "I make it."], ["tool", "made"], ["assistant", "There."]],
  );
  const [call] = newMessages[1].toolCalls;
  assert.equal(call.function.name, "bash");
  assert.deepEqual(JSON.parse(call.function.arguments), { command: "echo kept > keep; cp keep keep2; echo made" });
  assert.equal(newMessages[2].toolCallId, call.id);
  assert.equal(only(agent, "TEXT_MESSAGE_CONTENT").length, 3, "text comes as it is streamed");
  assert.deepEqual(only(agent, "CUSTOM").map((e) => [e.name, e.value.text]), [["carrel.tool_output", "made\n"]]);
  const [started] = only(agent, "RUN_STARTED");
  assert.equal(started.protocolVersion, "1.0");
  assert.equal(started.metadata.carrel.run_id, result.run_id);
  assert.equal(result.content, "There.");
  const [{ usage, outcome }] = only(agent, "RUN_FINISHED");
  assert.equal(outcome.type, "success");
  assert.ok(usage[0].totalTokens > 0 && usage[0].totalTokens === usage[0].inputTokens + usage[0].outputTokens);
}

// An approval that is allowed, after a page that has lost it has asked again.
{
  await say(agent, "remove");
  assert.equal(agent.pendingInterrupts.length, 1);
  const lost = connect(agent.messages.slice(0, -1)); // up to the user's message
  await run(lost);
  const stale = connect(agent.messages); // with what it has seen of the answer
  await run(stale);
  for (const again of [lost, stale]) {
    assert.deepEqual(again.pendingInterrupts, agent.pendingInterrupts);
    assert.deepEqual(again.messages, agent.messages);
  }

  const [interrupt] = agent.pendingInterrupts;
  assert.equal(interrupt.reason, "tool_call");
  assert.equal(interrupt.toolCallId, last(agent).toolCalls[0].id);
  assert.match(interrupt.message, /rm -v keep/);
  assert.deepEqual(interrupt.metadata.carrel.input, { command: "rm -v keep" });
  assert.ok(new Date(interrupt.expiresAt) > new Date());
  const resume = answer([interrupt], [{ approved: true }]);
  const { newMessages } = await run(agent, { resume });
  assert.deepEqual(newMessages.map((m) => [m.role, m.content]), [["tool", "removed 'keep'"], ["assistant", "Gone."]]);
  assert.deepEqual(agent.pendingInterrupts, []);
  assert.equal(types(agent).filter((t) => t === "TOOL_CALL_START").length, 0, "nothing is shown twice");
  await run(lost, { resume }); // the same answer again changes nothing, and shows the same
  assert.deepEqual(lost.messages, agent.messages);
}

// One that is denied, with a reason.
{
  await say(agent, "remove more");
  await run(agent, { resume: answer(agent.pendingInterrupts, [{ decision: "deny", reason: "not today" }]) });
  const [tool, text] = agent.messages.slice(-2);
  assert.match(tool.content, /denied by a person: not today/);
  assert.equal(tool.metadata.carrel.is_error, true);
  assert.equal(text.content, "A pity.");
  assert.deepEqual(only(agent, "CUSTOM").map((e) => [e.name, e.value.decision]), [["carrel.approval_resolved", "deny"]]);
}

// Two at once, of which one is put aside.
{
  await say(agent, "remove both");
  const [one, other] = agent.pendingInterrupts;
  assert.equal(agent.pendingInterrupts.length, 2);
  const late = connect([...agent.messages, { id: "late", role: "user", content: "and now?" }]);
  await assert.rejects(run(late), (e) => e.status === 409 && e.message.includes(one.id));
  await run(agent, {
    resume: [...answer([one], [{ approved: true }]), { interruptId: other.id, status: "cancelled" }],
  });
  const results = agent.messages.filter((m) => m.role === "tool").slice(-2);
  assert.equal(results.length, 2);
  const removed = results.find((m) => m.toolCallId === one.toolCallId);
  const kept = results.find((m) => m.toolCallId === other.toolCallId);
  assert.match(removed.content, /No such file|removed/);
  assert.match(kept.content, /put aside/);
  assert.equal(last(agent).content, "Both.");
}

// What is wrong is told, and changes nothing.
{
  const resume = (id) => ({ resume: [{ interruptId: id, status: "resolved", payload: { approved: true } }] });
  await assert.rejects(run(agent, resume("run_0.apr_0")), (e) => e.status === 404 && /no such interrupt/.test(e.message));
  await assert.rejects(run(agent, { forwardedProps: { carrel: { config: { modle: "x" } } } }), (e) => e.status === 400 && /did you mean/.test(e.message));
  const nobody = new HttpAgent({ url, initialMessages: [{ id: "1", role: "user", content: "x" }] });
  await assert.rejects(nobody.runAgent(), (e) => e.status === 400 && /X-Carrel-User/.test(e.message));
}

// A model that fails is a failed run; the same message sent again is run again.
{
  const before = agent.messages.length;
  await say(agent, "fail");
  assert.deepEqual(types(agent), ["RUN_STARTED", "RUN_ERROR"]);
  assert.match(only(agent, "RUN_ERROR")[0].message, /broken/);
  await run(agent);
  assert.deepEqual(agent.messages.slice(before).map((m) => m.content), ["fail", "Well now."]);
}

assert.deepEqual(warnings, []);
console.log(JSON.stringify({ messages: agent.messages.length }));
