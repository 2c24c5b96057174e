"""The strict peer over NATS."""

import asyncio
import json
import threading

import nats
from strict_peer import die, headers_of, parts_of, snake

SETUP_TIMEOUT_S = 20


async def quiet(_error):
    """The server ends with the test, and that is no news."""


class Bridge:
    def __init__(self, peer, port, prefix):
        self.peer, self.prefix = peer, prefix
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        connecting = nats.connect(f"nats://127.0.0.1:{port}", name=peer.instance, allow_reconnect=False, error_cb=quiet)
        self.client = self.run(connecting)

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(SETUP_TIMEOUT_S)

    def subject(self, message):
        return ".".join([self.prefix, *parts_of(message, "__empty__")])

    def group(self, address):
        """The name of a queue group: capitals, and no other conversion."""
        own = [address[name] for name in ("serviceName", "serviceVersion", "serviceTarget")]
        return "_".join([self.prefix, "queue", *own]).upper()

    def listen(self, subject, group, take):
        async def taken(message):
            # Each message in a thread of its own: handlers run beside one another, and an error ends the process.
            threading.Thread(target=take, args=(message,)).start()

        async def subscribe():
            await self.client.subscribe(subject, queue=group, cb=taken)
            await self.client.flush()

        self.run(subscribe())

    def serve(self, address):
        own = [snake(address[name]) for name in ("serviceName", "serviceVersion", "serviceTarget")]
        self.listen(".".join([self.prefix, "command", *["*"] * 8, *own]), self.group(address), self.take_command)

    def take_command(self, raw):
        try:
            command = json.loads(raw.data)
        except ValueError:
            return  # logged, and no more
        if "messageType" not in command or "receiver" not in command:
            return
        response = self.peer.handle(command)
        parent = json.loads(response["otp"])["traceparent"]
        headers, body = headers_of(response, parent), json.dumps(response).encode()
        if raw.reply:
            self.run(self.client.publish(raw.reply, body, headers=headers))
        if "eventName" in response:
            # The same once more, for those who hear the event.
            self.run(self.client.publish(self.subject(response), body, headers=headers))

    def hear(self, address, event, shared, durable):
        # `durable` has no effect in 2.0.5.
        subject = ".".join([self.prefix, *["*"] * 7, snake(event), *["*"] * 4])
        group = self.group(address) if shared else ""
        self.listen(subject, group, lambda raw: self.peer.hear(address, json.loads(raw.data)))

    def publish(self, message):
        parent = json.loads(message["otp"])["traceparent"]
        headers, body = headers_of(message, parent), json.dumps(message).encode()
        self.run(self.client.publish(self.subject(message), body, headers=headers))
        self.run(self.client.flush())

    def invoke(self, command, timeout_s):
        async def request():
            try:
                # A request has no headers at all.
                raw = await self.client.request(self.subject(command), json.dumps(command).encode(), timeout=timeout_s)
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
                call = self.peer.waiting.pop(command["correlationId"], None)
                if call is not None:
                    call({"payload": {"status": 500, "message": type(error).__name__}})
                return
            response = json.loads(raw.data)
            call = self.peer.waiting.pop(command["correlationId"], None)
            if call is not None:
                call(response)

        asyncio.run_coroutine_threadsafe(request(), self.loop).add_done_callback(
            lambda ended: ended.exception() and die(ended.exception())
        )
