"""Starts APIs that die, by SIGKILL, right before or after one thing they do. The product knows nothing of it: its methods are wrapped here.

Reads a line of JSON for each, `{"port", "environment", "dies"}`, and forks, so that none takes a second to import what it needs.
"""

import json
import os
import signal
import sys

import uvicorn

from saas.app import create_app
from saas.jobs.fishserve import FishSpeech
from saas.jobs.runpod import RunPod
from saas.postgres import PostgresDatabase
from saas.settings import read
from saas.storage.bucket import Bucket


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def mortal(home, method, dies, name):
    """Wraps a coroutine function of a class. `name` says what a call of it is called."""
    whole = getattr(home, method)

    async def wrapped(*arguments, **named):
        if dies == f"before {name(*arguments, **named)}":
            die()
        answer = await whole(*arguments, **named)
        if dies == f"after {name(*arguments, **named)}" and answer != []:  # no jobs are no occasion
            die()
        return answer

    setattr(home, method, wrapped)


def call_name(_, function, **given):
    """A lease that is renewed before anything was made is no occasion: on a busy machine that may be the first."""
    return "renew_lease of nothing" if function == "renew_lease" and not given["seconds"] else function


def serve(port, environment, dies):
    os.environ.update(environment)
    mortal(PostgresDatabase, "call", dies, call_name)
    for home, name in ((Bucket, "put"), (FishSpeech, "finish"), (RunPod, "send"), (RunPod, "status")):
        mortal(home, name, dies, lambda *_, name=name, **__: name)
    app = create_app(read(port=port, public_url=f"http://127.0.0.1:{port}"))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", access_log=False)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    print("ready", flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            serve(**json.loads(line))
            os._exit(0)
        print(child, flush=True)
