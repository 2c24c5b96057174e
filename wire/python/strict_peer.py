"""A peer that behaves as PURISTA 2.0.5 does on the wire, and breaks where PURISTA breaks.

    strict_peer.py nats|amqp|mqtt PORT PREFIX INSTANCE

Says "ready", then takes lines of JSON:

    {"serve": {SERVICE ADDRESS}, "as": "signUp" | "slow" | "fail"}
    {"hear": {SERVICE ADDRESS}, "event": NAME, "shared": BOOL, "durable": BOOL}
    {"invoke": {SERVICE ADDRESS}, "payload": .., "timeout_ms": N, "more": {..}}
    {"emit": NAME, "payload": ..}

Each is answered with a line that begins with "done". What it does meanwhile it tells with lines {"served": ..} and
{"heard": ..}. Whatever PURISTA's process dies of, this one dies of: a field that it reads and that is not there ends it.
"""

import json
import os
import re
import secrets
import sys
import threading
import time

WORDS = re.compile(r"[A-Z]{2,}(?=[A-Z][a-z]+[0-9]*|\b)|[A-Z]?[a-z]+[0-9]*|[A-Z]|[0-9]+", re.ASCII)


def snake(text):
    """PURISTA's convertToSnakeCase: what holds no word stays as it is."""
    words = WORDS.findall(text)
    return "_".join(words).lower() if words else text


TELLING = threading.Lock()


def tell(what):
    with TELLING:
        print(json.dumps(what), flush=True)


def now_ms():
    return int(time.time() * 1000)


def traceparent():
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def parts_of(message, absent):
    """The thirteen parts of a subject or topic behind the prefix, as PURISTA converts them."""
    sender, receiver = message["sender"], message.get("receiver", {})
    parts = [
        message["messageType"],
        message.get("principalId"),
        message.get("tenantId"),
        sender["instanceId"],
        sender["serviceName"],
        sender["serviceVersion"],
        sender["serviceTarget"],
        message.get("eventName"),
        receiver.get("instanceId"),
        receiver.get("serviceName"),
        receiver.get("serviceVersion"),
        receiver.get("serviceTarget"),
    ]
    return [snake(absent if part is None else part) for part in parts]


def headers_of(message, parent, instance_of_receiver="receiverInstanceId"):
    """The flat headers, under PURISTA's names."""
    sender, receiver = message["sender"], message.get("receiver", {})
    headers = {
        "messageType": message["messageType"],
        "senderServiceName": sender["serviceName"],
        "senderServiceVersion": sender["serviceVersion"],
        "senderServiceTarget": sender["serviceTarget"],
        "senderInstanceId": sender["instanceId"],
        "receiverServiceName": receiver.get("serviceName"),
        "receiverServiceVersion": receiver.get("serviceVersion"),
        "receiverServiceTarget": receiver.get("serviceTarget"),
        instance_of_receiver: receiver.get("instanceId"),
        "traceparent": parent,
        "eventName": message.get("eventName"),
        "principalId": message.get("principalId"),
        "tenantId": message.get("tenantId"),
    }
    return {name: value for name, value in headers.items() if value is not None}


PARTY = ("serviceName", "serviceVersion", "serviceTarget", "instanceId")


class Peer:
    """What PURISTA does above its bridges."""

    def __init__(self, instance):
        self.instance = instance
        self.handlers = {}
        self.waiting = {}
        self.bridge = None

    def message(self, kind, sender, **more):
        parent = traceparent()
        message = {
            "messageType": kind,
            "id": secrets.token_hex(16),
            "timestamp": now_ms(),
            "contentType": "application/json",
            "contentEncoding": "utf-8",
            "sender": {**sender, "instanceId": self.instance},
            "otp": json.dumps({"traceparent": parent}),
        }
        message.update(more)
        return message

    def response(self, command, kind, **more):
        """A response bears the id of its command. A sender that is not whole ends this process, as it ends PURISTA's."""
        caller = command["sender"]
        response = {
            "id": command.get("id"),
            "correlationId": command.get("correlationId"),
            "traceId": command.get("traceId") or secrets.token_hex(16),
            "contentType": "application/json",
            "contentEncoding": "utf-8",
            "timestamp": now_ms(),
            "messageType": kind,
            "sender": {**command["receiver"], "instanceId": self.instance},
            "receiver": {name: caller[name] for name in PARTY},
            "otp": json.dumps({"traceparent": traceparent()}),
        }
        for name in ("principalId", "tenantId"):
            if name in command:
                response[name] = command[name]
        response.update(more)
        return response

    def handle(self, command):
        """Runs a command, which PURISTA finds by its target alone."""
        target = command["receiver"]["serviceTarget"]
        behaviour = self.handlers.get(target)
        trace = command.get("traceId")
        if behaviour is None:
            return self.refusal(command, 501, "Not Implemented", False)
        if "payload" not in command:
            return self.refusal(command, 500, "Internal Server Error", False)
        payload = command["payload"].get("payload") or {}
        tell({"served": {"target": target, "payload": payload, "traceId": trace, "sender": command["sender"]}})
        if behaviour == "slow":
            time.sleep(payload["ms"] / 1000)
            return self.response(command, "commandSuccessResponse", payload={"slept": payload["ms"]})
        if behaviour == "fail":
            return self.refusal(command, 404, "user not found", True)
        if behaviour == "mail":
            return self.response(command, "commandSuccessResponse", payload={"sent": True})
        faults = [
            {"message": "Required", "path": [name]}
            for name in ("email", "name")
            if not isinstance(payload.get(name), str)
        ]
        if faults:
            return self.refusal(command, 400, "input validation for payload failed:", True, data=faults)
        return self.response(
            command,
            "commandSuccessResponse",
            eventName="newUserRegistered",
            payload={"userId": f"id-of-{payload['name']}"},
        )

    def refusal(self, command, status, message, is_handled, **more):
        payload = {"status": status, "message": message, "traceId": command.get("traceId"), **more}
        return self.response(command, "commandErrorResponse", isHandledError=is_handled, payload=payload)

    def hear(self, address, message):
        tell({"heard": {"target": address["serviceTarget"], "message": message}})

    def settle(self, response):
        """Hands a response to its call; one that comes too late is dropped."""
        call = self.waiting.pop(response["correlationId"], None)
        if call is None:
            tell({"dropped": response["correlationId"]})
        else:
            call(response)

    def invoke(self, order):
        command = self.message(
            "command",
            order.get("sender", {"serviceName": "Caller", "serviceVersion": "1", "serviceTarget": "main"}),
            receiver=order["invoke"],
            correlationId=secrets.token_hex(16),
            payload={"payload": order.get("payload"), "parameter": {}},
            **order.get("more", {}),
        )
        if order.get("payload") is None:
            del command["payload"]["payload"]
        return command


def main():
    carrier, port, prefix, instance = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
    bridges = __import__(f"strict_{carrier}")
    peer = Peer(instance)
    peer.bridge = bridges.Bridge(peer, port, prefix)
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "serve" in order:
            peer.handlers[order["serve"]["serviceTarget"]] = order["as"]
            peer.bridge.serve(order["serve"])
            tell({"done": "serve"})
        elif "hear" in order:
            peer.bridge.hear(order["hear"], order["event"], order.get("shared", True), order.get("durable", False))
            tell({"done": "hear"})
        elif "invoke" in order:
            command, timeout_s = peer.invoke(order), order.get("timeout_ms", 30_000) / 1000
            ended = threading.Event()
            answer = []
            peer.waiting[command["correlationId"]] = lambda response: (answer.append(response), ended.set())
            peer.bridge.invoke(command, timeout_s)
            if not ended.wait(timeout_s):
                peer.waiting.pop(command["correlationId"], None)
                answer.append({"timeout": order.get("timeout_ms", 30_000)})
            tell({"done": "invoke", "answer": answer[0]})
        elif "emit" in order:
            sender = {"serviceName": "Caller", "serviceVersion": "1", "serviceTarget": "main"}
            more = {"eventName": order["emit"], "payload": order["payload"], "traceId": "the-peers-flow"}
            peer.bridge.publish(peer.message("customMessage", sender, **more))
            tell({"done": "emit"})


def die(error):
    """An error that nobody handles ends a process of Node's, and so this one."""
    print(f"unhandled: {error!r}", file=sys.stderr, flush=True)
    os._exit(1)


threading.excepthook = lambda given: die(given.exc_value)

if __name__ == "__main__":
    main()
