"""A client that knows nothing of PURISTA or purista but what goes over the wire: it calls commands by hand.

    plain_client.py nats|amqp|mqtt PORT PREFIX

Says "ready", then takes calls from its input, one a line of JSON, and prints the list of what came back, one a line:

    {"target": "userSignUp", "body": TEXT or {"hex": ..}, "answers": COUNT,
     "without": [what the carrier's part lacks], "with": {what it has more}, "then": another call}

It waits for as many answers as `answers` says. Where that is 0 it sends `then` behind it, and prints what came before the
answer to that one. What a carrier needs beside the body it adds itself: as little as will do.
"""

import asyncio
import json
import queue
import re
import sys

PATIENCE_S = 10
WORDS = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z]+[0-9]*|\b)|[A-Z]?[a-z]+[0-9]*|[A-Z]|[0-9]+", re.ASCII)


def snake(text):
    words = WORDS.findall(text)
    return "_".join(words).lower() if words else text


def body_of(call):
    body = call["body"]
    return bytes.fromhex(body["hex"]) if isinstance(body, dict) else body.encode()


class OverNats:
    """A request: the last three parts of the subject must be right, the nine before them may be anything."""

    def __init__(self, port, prefix):
        self.port, self.prefix = port, prefix

    async def start(self):
        import nats

        self.answers = asyncio.Queue()

        async def quiet(_error):
            """The server ends with the test, and that is no news."""

        self.client = await nats.connect(f"nats://127.0.0.1:{self.port}", allow_reconnect=False, error_cb=quiet)
        self.inbox = self.client.new_inbox()

        async def take(message):
            # The server itself answers where nobody serves the subject.
            status = (message.headers or {}).get("Status")
            await self.answers.put({"transport": status} if status else json.loads(message.data))

        await self.client.subscribe(self.inbox, cb=take)
        await self.client.flush()

    async def send(self, call):
        more = call.get("with", {})
        subject = more.get("subject") or f"{self.prefix}.command.a.b.c.d.e.f.g.h.user.1.{snake(call['target'])}"
        reply = more.get("reply", "" if "reply" in call.get("without", []) else self.inbox)
        if len(body_of(call)) > self.client.max_payload:
            return await self.send_too_much(subject, reply, body_of(call))
        await self.client.publish(subject, body_of(call), reply=reply, headers=more.get("headers"))
        await self.client.flush()

    async def send_too_much(self, subject, reply, body):
        """By hand, since the client does not send what the server does not take; the server ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b'CONNECT {"verbose":false}\r\n')
        writer.write(f"PUB {subject} {reply} {len(body)}\r\n".encode() + body + b"\r\n")
        try:
            await writer.drain()
            while await asyncio.wait_for(reader.read(4096), PATIENCE_S):
                pass
        except ConnectionError:
            pass
        writer.close()

    async def next(self):
        return await asyncio.wait_for(self.answers.get(), PATIENCE_S)


class OverAmqp:
    """A message to the exchange of headers; the answer comes to a queue that is bound by its own name."""

    def __init__(self, port, prefix):
        self.port, self.prefix = port, prefix

    async def start(self):
        import pika

        self.pika = pika
        parameters = pika.ConnectionParameters("127.0.0.1", self.port, heartbeat=0)
        self.channel = pika.BlockingConnection(parameters).channel()
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue
        binding = {"x-match": "all", "replyTo": self.queue}
        self.channel.queue_bind(self.queue, self.prefix, "", binding)
        self.answers = queue.Queue()

        def take(_channel, _method, _properties, body):
            self.answers.put(json.loads(body))

        self.channel.basic_consume(self.queue, take, auto_ack=True)

    async def send(self, call):
        more, without = call.get("with", {}), call.get("without", [])
        headers = {
            "messageType": "command",
            "receiverServiceName": "User",
            "receiverServiceVersion": "1",
            "receiverServiceTarget": call["target"],
        }
        headers.update(more.get("headers", {}))
        properties = {
            "headers": {name: value for name, value in headers.items() if name not in without},
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "reply_to": self.queue,
        }
        properties.update(more.get("properties", {}))
        properties = {name: value for name, value in properties.items() if name not in without}
        self.channel.basic_publish(self.prefix, "", body_of(call), self.pika.BasicProperties(**properties))

    async def next(self):
        waited = 0.0
        while self.answers.empty() and waited < PATIENCE_S:
            self.channel.connection.process_data_events(time_limit=0.1)
            waited += 0.1
        return self.answers.get_nowait()


class OverMqtt:
    """A message to the topic of the command; the answer comes to the instance that the sender names."""

    INSTANCE = "plainClient1"

    def __init__(self, port, prefix):
        self.port, self.prefix = port, prefix

    async def start(self):
        import paho.mqtt.client as mqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        self.properties = lambda: Properties(PacketTypes.PUBLISH)
        self.answers, ready = queue.Queue(), queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "plain-client", protocol=mqtt.MQTTv5)
        self.client.on_message = lambda _client, _data, message: self.answers.put(json.loads(message.payload))
        self.client.on_subscribe = lambda *_: ready.put(True)
        self.client.connect("127.0.0.1", self.port)
        self.client.loop_start()
        own = f"{self.prefix}/+/+/+/+/+/+/+/+/{snake(self.INSTANCE)}/+/+/+"
        self.client.subscribe(own, qos=1)
        ready.get(timeout=PATIENCE_S)

    async def send(self, call):
        more = call.get("with", {})
        topic = more.get("topic") or f"{self.prefix}/command/a/b/c/d/e/f/g/h/user/1/{snake(call['target'])}"
        properties = self.properties()
        for name, value in more.get("properties", {}).items():
            if name == "UserProperty":
                for pair in value:
                    properties.UserProperty = tuple(pair)
            else:
                setattr(properties, name, value.encode() if name == "CorrelationData" else value)
        sent = self.client.publish(topic, body_of(call), qos=more.get("qos", 1), properties=properties)
        sent.wait_for_publish(PATIENCE_S)

    async def next(self):
        return await asyncio.to_thread(self.answers.get, timeout=PATIENCE_S)


async def main():
    carrier, port, prefix = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    client = {"nats": OverNats, "amqp": OverAmqp, "mqtt": OverMqtt}[carrier](port, prefix)
    await client.start()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        call, came = json.loads(line), []
        try:
            await client.send(call)
            while len(came) < call["answers"]:
                came.append(await client.next())
            if call["answers"] == 0:
                await client.send(call["then"])
                while not came or came[-1].get("correlationId") != call["then"]["correlationId"]:
                    came.append(await client.next())
                came.pop()
        except (queue.Empty, TimeoutError):
            came.append({"silence": PATIENCE_S})
        print(json.dumps(came), flush=True)


asyncio.run(main())
