"""A home-made pool: plain child processes, JSON lines over pipes, no isolation.

Commands on stdin, one a line; an answer on stdout for each, in seconds:
  cold      start a child, send it a message, until its first event
  bound     send a message to a child that is there, until its first event
  flood N   N events of one message of that child's, in all
"""

import asyncio
import json
import sys
import time

CHILD = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    for seq in range(1, request["params"]["events"] + 1):
        event = {"run_id": request["id"], "seq": seq, "type": "TEXT_DELTA", "data": {"text": "word word word word"}}
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "method": "event", "params": event}) + "\\n")
        sys.stdout.flush()
"""


async def start():
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )


async def ask(child, events):
    """Sends a message and reads its events; gives when the first and the last came."""
    request = {"jsonrpc": "2.0", "id": "run", "method": "execute", "params": {"message": "hi", "events": events}}
    child.stdin.write((json.dumps(request) + "\n").encode())
    await child.stdin.drain()
    first = None
    for seq in range(1, events + 1):
        event = json.loads(await child.stdout.readline())["params"]
        assert event["seq"] == seq
        first = first or time.perf_counter()
    return first, time.perf_counter()


async def end(child):
    child.stdin.close()
    await child.wait()


async def main():
    bound = await start()
    await ask(bound, 1)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        what, *rest = line.split()
        began = time.perf_counter()
        if what == "cold":
            child = await start()
            first, _ = await ask(child, 1)
            took = first - began
            await end(child)
        elif what == "bound":
            first, _ = await ask(bound, 1)
            took = first - began
        else:
            _, last = await ask(bound, int(rest[0]))
            took = last - began
        print(took, flush=True)
    await end(bound)


if __name__ == "__main__":
    asyncio.run(main())
