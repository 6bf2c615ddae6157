"""A queue as RunPod's cloud has one, for its real worker SDK and for clients: jobs are taken, done, streamed, stopped, and lost with their worker."""

import asyncio
import json
import time
import uuid
from collections import Counter, deque

import uvicorn
from fastapi import FastAPI, Request, Response

FINAL = ("COMPLETED", "FAILED", "CANCELLED")


def create_app():
    app, waiting, jobs, stops, gone, deaf, asking = FastAPI(), deque(), {}, deque(), set(), set(), Counter()

    async def take(worker, most):
        asking[worker] += 1
        try:
            return await waited_for(worker, most)
        finally:
            asking[worker] -= 1

    async def waited_for(worker, most):
        for _ in range(20):
            taken = []
            while waiting and len(taken) < most and worker not in gone:  # a dead worker's question may still stand
                job = jobs[waiting.popleft()]
                if job["status"] == "IN_QUEUE":
                    job |= {"status": "IN_PROGRESS", "worker": worker, "taken": job["taken"] + 1}
                    taken.append({"id": job["id"], "input": job["input"]})
            if taken:
                return taken
            await asyncio.sleep(0.05)
        return []

    @app.post("/v2/ep/run")
    async def run(request: Request):
        body = await request.json()
        job = {"id": str(uuid.uuid4()), "status": "IN_QUEUE", "input": body["input"], "output": None, "error": None}
        jobs[job["id"]] = job | {"chunks": [], "progress": [], "taken": 0, "answers": 0, "at": time.time()}
        waiting.append(job["id"])
        return {"id": job["id"], "status": "IN_QUEUE"}

    @app.get("/v2/ep/status/{job}")
    async def status(job: str):
        return jobs[job]

    @app.post("/v2/ep/cancel/{job}")
    async def cancel(job: str):
        stops.append(job)
        jobs[job]["status"] = "CANCELLED"
        return {}

    @app.post("/lost/{worker}")
    async def lost(worker: str):
        """The cloud finds out that a worker is gone, and gives its jobs to others."""
        gone.add(worker)
        for job in jobs.values():
            if job["status"] == "IN_PROGRESS" and job["worker"] == worker:
                job["status"] = "IN_QUEUE"
                waiting.append(job["id"])
        return {}

    @app.post("/deaf/{worker}")
    async def turn_deaf(worker: str):
        """What a worker says from now on never arrives."""
        deaf.add(worker)
        return {}

    @app.get("/asking/{worker}")
    async def asking_for(worker: str):
        """How many questions for jobs of a worker are unanswered."""
        return asking[worker]

    @app.get("/v2/ep/job-take/{worker}")
    async def job_take(worker: str):
        found = await take(worker, 1)
        return found[0] if found else Response(status_code=204)

    @app.get("/v2/ep/job-take-batch/{worker}")
    async def job_take_batch(worker: str, batch_size: int = 1):
        return await take(worker, batch_size) or Response(status_code=204)

    @app.post("/v2/ep/job-done/{worker}/{job}")
    async def job_done(worker: str, job: str, request: Request):
        body, kept = json.loads(await request.body()), jobs[job]
        while worker in deaf:
            await asyncio.sleep(0.1)
        if body.get("status") == "IN_PROGRESS":
            kept["progress"].append(body["output"])
            return {}
        kept["answers"] += 1
        if kept["status"] not in FINAL:
            kept |= {"output": body.get("output"), "error": body.get("error"), "status": "FAILED" if body.get("error") else "COMPLETED"}
        return {}

    @app.post("/v2/ep/job-stream/{worker}/{job}")
    async def job_stream(worker: str, job: str, request: Request):  # noqa: ARG001
        jobs[job]["chunks"].append(json.loads(await request.body()))
        return {}

    @app.get("/v2/ep/job-stop/{worker}")
    async def job_stop(worker: str):  # noqa: ARG001
        for _ in range(20):
            if stops:
                found = list(stops)
                stops.clear()
                return {"jobsToStop": found}
            await asyncio.sleep(0.05)
        return Response(status_code=204)

    @app.get("/v2/ep/ping/{worker}")
    async def ping(worker: str):  # noqa: ARG001
        return {}

    app.state.jobs, app.state.stops = jobs, stops
    return app


if __name__ == "__main__":
    import sys

    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
