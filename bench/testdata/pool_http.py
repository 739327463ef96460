"""The home-made pool of pool.py behind HTTP, as a team would write it: FastAPI on
uvicorn. POST /v1/execute {"user_id", "message"} streams the events as SSE; "user_id"
has a child of its own from its first message until DELETE /v1/users/{user_id}; the
message is how many events there are to be. Prints the port it listens on.
"""

import asyncio
import json
import socket
import sys

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import pool

app = FastAPI()
children = {}


class Execute(BaseModel):
    user_id: str
    message: str


@app.post("/v1/execute")
async def execute(request: Execute):
    child = children.get(request.user_id)
    if child is None:
        child = children[request.user_id] = await pool.start()

    async def events():
        count = int(request.message)
        message = {"jsonrpc": "2.0", "id": "run", "method": "execute", "params": {"message": "hi", "events": count}}
        child.stdin.write((json.dumps(message) + "\n").encode())
        await child.stdin.drain()
        for seq in range(1, count + 1):
            event = json.loads(await child.stdout.readline())["params"]
            yield f"id: {seq}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
        yield 'event: RUN_FINISHED\ndata: {"type": "RUN_FINISHED"}\n\n'

    return StreamingResponse(events(), media_type="text/event-stream")


@app.delete("/v1/users/{user_id}")
async def retire(user_id: str):
    await pool.end(children.pop(user_id))


async def main():
    # Named TCP, else asyncio leaves its connections without TCP_NODELAY, and each
    # answer waits 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1024)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    print(listener.getsockname()[1], flush=True)
    over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # as long as its starter lives
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await over
    server.should_exit = True
    await serving
    for child in children.values():
        await pool.end(child)


if __name__ == "__main__":
    asyncio.run(main())
