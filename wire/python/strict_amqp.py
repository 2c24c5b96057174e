"""The strict peer over AMQP: a channel each command and subscription, all publishing on the main one, nothing confirmed."""

import json
import queue
import threading

import pika
from strict_peer import die, headers_of

POLL_S = 0.02
SETUP_TIMEOUT_S = 20


class Bridge:
    def __init__(self, peer, port, prefix):
        self.peer, self.exchange = peer, prefix
        self.work = queue.Queue()
        started = queue.Queue()
        threading.Thread(target=self.live, args=(port, started), daemon=True).start()
        started.get(timeout=SETUP_TIMEOUT_S)

    def live(self, port, started):
        """The one thread that touches the connection; whatever the broker refuses ends the process."""
        try:
            self.connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", port, heartbeat=0))
            self.main = self.connection.channel()
            self.main.exchange_declare(self.exchange, "headers", durable=True)
            self.replies = self.main.queue_declare("", exclusive=True, auto_delete=True).method.queue
            self.main.queue_bind(self.replies, self.exchange, "", {"x-match": "all", "replyTo": self.replies})
            self.main.basic_consume(self.replies, self.take_reply, auto_ack=True)
            started.put(True)
            while True:
                while not self.work.empty():
                    self.work.get()()
                self.connection.process_data_events(time_limit=POLL_S)
        except Exception as error:  # noqa: BLE001
            die(error)

    def wait_for(self, work):
        done = queue.Queue()
        self.work.put(lambda: (work(), done.put(True)))
        done.get(timeout=SETUP_TIMEOUT_S)

    def queue_name(self, kind, address):
        own = [address[name] for name in ("serviceName", "serviceVersion", "serviceTarget")]
        return ".".join([self.exchange, kind, *own])

    def serve(self, address):
        def serve():
            channel, name = self.connection.channel(), self.queue_name("cmd", address)
            channel.queue_declare(name, durable=False, auto_delete=True)
            binding = {
                "x-match": "all",
                "messageType": "command",
                "receiverServiceName": address["serviceName"],
                "receiverServiceVersion": address["serviceVersion"],
                "receiverServiceTarget": address["serviceTarget"],
            }
            channel.queue_bind(name, self.exchange, "", binding)
            channel.basic_consume(name, self.take_command, auto_ack=True)

        self.wait_for(serve)

    def take_command(self, _channel, _method, properties, body):
        # Without these PURISTA's receiver is silent: it looks for a decoder by them, and for the way back.
        if not (properties.content_type and properties.content_encoding and properties.reply_to):
            return
        try:
            command = json.loads(body)
        except ValueError:
            return
        if "receiver" not in command:
            return
        # On AMQP a sender that is not whole harms nobody: the way back is the queue.
        nobody = {name: "" for name in ("serviceName", "serviceVersion", "serviceTarget", "instanceId")}
        command["sender"] = {**nobody, **command.get("sender", {})}
        if properties.correlation_id:
            command["correlationId"] = properties.correlation_id

        def run():
            response = self.peer.handle(command)
            response["sennder"] = response["sender"]
            self.work.put(lambda: self.send(response, properties.reply_to))

        threading.Thread(target=run).start()

    def send(self, message, reply_to):
        kind = message["messageType"]
        is_response = kind.endswith("Response")
        parent = json.loads(message["otp"])["traceparent"]
        instance = "receiverServiceInstanceId" if is_response else "receiverInstanceId"
        headers = headers_of(message, parent, instance)
        if is_response:
            headers["replyTo"] = reply_to
        properties = pika.BasicProperties(
            type=kind,
            message_id=message["id"],
            timestamp=message["timestamp"],
            correlation_id=message.get("correlationId"),
            reply_to=None if is_response else reply_to,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            headers=headers,
        )
        self.main.basic_publish(self.exchange, "", json.dumps(message).encode(), properties)

    def take_reply(self, _channel, _method, properties, body):
        response = json.loads(body)
        # PURISTA pairs by the property, not by the body.
        response["correlationId"] = properties.correlation_id
        self.peer.settle(response)

    def hear(self, address, event, shared, durable):
        def hear():
            channel = self.connection.channel()
            if shared:
                name = self.queue_name("sub", address)
                channel.queue_declare(name, durable=durable, auto_delete=False)
            else:
                name = channel.queue_declare("", exclusive=True, auto_delete=True).method.queue
            channel.queue_bind(name, self.exchange, "", {"x-match": "all", "eventName": event})

            def take(channel, method, _properties, body):
                self.peer.hear(address, json.loads(body))
                channel.basic_ack(method.delivery_tag)

            channel.basic_consume(name, take)

        self.wait_for(hear)

    def publish(self, message):
        self.wait_for(lambda: self.send(message, None))

    def invoke(self, command, _timeout_s):
        self.wait_for(lambda: self.send(command, self.replies))
