"""The application of uvicorn for ci/race, alone and as a worker of gunicorn."""

import time


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    # Keeps the event loop busy, as an application does.
    time.sleep(0.002)
    body = b"x" * 1000
    headers = [
        (b"content-length", str(len(body)).encode()),
        (b"x-peer", scope["client"][0].encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
