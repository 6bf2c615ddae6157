"""Speak for credits: a job of the SaaS API, from its text to its file.

pip install httpx
FISHSERVE_API_KEY=fsk_... python saas_api.py [URL]
"""

import os
import sys
import time
import uuid
from pathlib import Path

import httpx

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
headers = {"Authorization": f"Bearer {os.environ['FISHSERVE_API_KEY']}"}
with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
    print("balance:", client.get("/api/credits").raise_for_status().json()["balance"])
    # The key makes it safe to send the same request again: it is spoken and charged once.
    asked = client.post("/api/tts", json={"text": "Hello for credits.", "wait_seconds": 20}, headers={"Idempotency-Key": str(uuid.uuid4())})
    if asked.is_error:
        sys.exit(asked.json()["error"]["message"])
    job = asked.json()
    while job["status"] in ("queued", "running"):
        time.sleep(1)
        job = client.get(f"/api/jobs/{job['id']}").raise_for_status().json()
    if job["status"] != "succeeded":
        sys.exit(f"{job['status']}: {job['error']}")
    Path("saas.mp3").write_bytes(httpx.get(job["url"]).raise_for_status().content)  # the address is good for 300 s
print(f"saas.mp3, {job['seconds']} s for {job['charged']} credits")
