"""One turn of a chat: a file goes up, an agent works, its answer is shown as it comes.

usage: chat.py [-u USER] [-a AGENT] [-m MODEL] MESSAGE

CARREL_URL and CARREL_API_KEY say where the daemon is and who asks.
"""

import argparse
import http.client
import json
import os
import sys

from carrel import Carrel, Error

PLAN = b"roof,2026-05-01\ndoor,2026-03-01\nattic,2026-04-01\n"


def main():
    options = argparse.ArgumentParser()
    options.add_argument("-u", dest="user", default="ana")
    options.add_argument("-a", dest="agent", help="claude or shell; else the daemon's own")
    options.add_argument("-m", dest="model")
    options.add_argument("message", help="a script, where the agent is shell")
    o = options.parse_args()
    carrel = Carrel(os.environ.get("CARREL_URL", "http://127.0.0.1:8642"), os.environ.get("CARREL_API_KEY", ""))

    stored = carrel.put(o.user, "plan.csv", PLAN)
    print(f"put plan.csv: {stored['size']} bytes")

    config = {name: value for name, value in (("agent", o.agent), ("model", o.model)) if value}
    run = carrel.execute(o.user, o.message, **config)
    for event in carrel.events(run):
        show(carrel, event)

    counted = carrel.exec(o.user, ["wc", "-l", "plan.csv"])
    print("exec wc -l plan.csv:", counted["stdout"].strip())
    print("get plan.csv:")
    print(carrel.get(o.user, "plan.csv").decode(), end="")


def show(carrel, event):
    """Shows one event to a person, and asks what the run asks."""
    kind, data = event["type"], event["data"]
    if kind == "TEXT_DELTA":
        print(data["text"], end="", flush=True)
    elif kind == "TOOL_CALL_START":
        print(f"\n[{data['name']}]")
    elif kind == "TOOL_CALL_RESULT":
        print(f"[{data['name']} {'failed' if data['is_error'] else 'ok'}] {data['result'].strip()}")
    elif kind == "APPROVAL_REQUESTED":
        print(f"{data['tool']} wants {json.dumps(data['input'])}: allow? [y/N] ", end="", flush=True)
        allow = sys.stdin.readline().strip() == "y"
        carrel.approve(event["run_id"], data["approval_id"], allow)
    elif kind == "APPROVAL_RESOLVED":
        print(f"[{data['decision']}]")
    elif kind == "RUN_FINISHED":
        print(f"\nfinished: {data['tokens_used']} tokens, ${data['usage']['cost_usd']:.4f}, {data['duration']:.1f} s")
    elif kind == "RUN_ERROR":
        sys.exit(f"chat: {data['code']}: {data['message']}")


if __name__ == "__main__":
    try:
        main()
    except (Error, OSError, ValueError, http.client.HTTPException) as e:
        sys.exit(f"chat: {e}")
