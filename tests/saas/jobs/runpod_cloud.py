"""RunPod's cloud around the worker's queue: keys, runsync, webhooks, time limits; and what goes wrong there, as a test asks for it."""

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from tests.worker.runpod_queue import FINAL, create_app

KEY = "rpa_key"


def create_cloud():
    queue = create_app()
    jobs, stops = queue.state.jobs, queue.state.stops
    endpoints = {route.path: route.endpoint for route in queue.routes}
    ways = {"webhooks": 1, "execution_seconds": 3600.0, "lose_done": 0, "full": False}

    @asynccontextmanager
    async def lifespan(_):
        async with httpx.AsyncClient(timeout=None) as http:
            watching = asyncio.create_task(watch(http))
            yield
            watching.cancel()

    cloud = FastAPI(lifespan=lifespan)

    async def watch(http):
        while True:
            await asyncio.sleep(0.05)
            for job in [job for job in jobs.values() if "told" not in job]:
                if job["status"] == "IN_PROGRESS":
                    job.setdefault("since", time.time())
                    if time.time() - job["since"] > ways["execution_seconds"]:
                        job["status"] = "TIMED_OUT"
                        stops.append(job["id"])
                if job["status"] in (*FINAL, "TIMED_OUT") and job.get("webhook"):
                    job["told"] = []
                    for _ in range(ways["webhooks"]):
                        job["told"].append(await tell(http, job))

    async def tell(http, job):
        with contextlib.suppress(httpx.TransportError):  # whoever wanted to know is gone
            return (await http.post(job["webhook"], json=seen(job))).status_code

    def seen(job):
        told = job["progress"][-1] if job["status"] == "IN_PROGRESS" and job["progress"] else job["output"]
        return {name: job[name] for name in ("id", "status", "error")} | {"output": told}

    @cloud.middleware("http")
    async def wants_a_key(request: Request, call_next):
        path = request.url.path
        clients = path.startswith(("/v2/ep/run", "/v2/ep/status/", "/v2/ep/cancel/"))
        if clients and request.headers.get("authorization") != f"Bearer {KEY}":
            return JSONResponse({}, 401)
        return await call_next(request)

    @cloud.post("/v2/ep/run")
    async def run(request: Request):
        if ways["full"]:
            return JSONResponse({}, 429)
        body = await request.json()
        answer = await endpoints["/v2/ep/run"](request)
        jobs[answer["id"]] |= {"webhook": body.get("webhook"), "policy": body.get("policy")}
        return answer

    @cloud.post("/v2/ep/runsync")
    async def runsync(request: Request, wait: int):
        answer = await run(request)
        if isinstance(answer, JSONResponse):
            return answer
        job, until = jobs[answer["id"]], time.time() + wait / 1000
        while job["status"] not in (*FINAL, "TIMED_OUT") and time.time() < until:
            await asyncio.sleep(0.02)
        job["answered"] = job["status"]
        return seen(job)

    @cloud.get("/v2/ep/status/{job}")
    async def status(job: str):
        return seen(jobs[job]) if job in jobs else JSONResponse({}, 404)

    @cloud.post("/v2/ep/cancel/{job}")
    async def cancel(job: str):
        return await endpoints["/v2/ep/cancel/{job}"](job) if job in jobs else JSONResponse({}, 404)

    @cloud.post("/v2/ep/job-done/{worker}/{job}")
    async def job_done(worker: str, job: str, request: Request):
        if ways["lose_done"] and (await request.json()).get("status") != "IN_PROGRESS":
            ways["lose_done"] -= 1
            return {}
        return await endpoints["/v2/ep/job-done/{worker}/{job}"](worker, job, request)

    @cloud.post("/ways")
    async def change(request: Request):
        """How it goes from now on."""
        ways.update(await request.json())
        return ways

    @cloud.post("/again/{job}/webhook")
    async def tell_again(job: str):
        """Say once more that it has ended."""
        jobs[job].pop("told", None)
        return {}

    @cloud.post("/forget/{job}")
    async def forget(job: str):
        """It knows nothing of the job any more."""
        return {"known": jobs.pop(job, None) is not None}

    @cloud.get("/jobs")
    async def everything():
        return list(jobs.values())

    cloud.mount("/", queue)
    return cloud


if __name__ == "__main__":
    import sys

    uvicorn.run(create_cloud(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", timeout_graceful_shutdown=1)
