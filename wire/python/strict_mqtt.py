"""The strict peer over MQTT 5: one share name for everything, one identifier a subscription, and its units."""

import json
import posixpath
import queue
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from strict_peer import die, headers_of, parts_of, snake

SETUP_TIMEOUT_S = 20
EVENT_EXPIRY_S = 2_592_000
SHARE = "$share/sharedpurista"


class Bridge:
    def __init__(self, peer, port, prefix):
        self.peer, self.prefix = peer, prefix
        self.takers, self.granted = {}, queue.Queue()
        self.next_identifier = 2
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, peer.instance, protocol=mqtt.MQTTv5)
        self.client.on_message = self.take
        self.client.on_subscribe = lambda *_: self.granted.put(True)
        self.client.connect("127.0.0.1", port, keepalive=10, clean_start=True)
        self.client.loop_start()
        self.listen("/".join([prefix, *["+"] * 8, snake(peer.instance), "+", "+", "+"]), self.take_reply)

    def listen(self, filter_, take):
        properties = Properties(PacketTypes.SUBSCRIBE)
        properties.SubscriptionIdentifier = self.next_identifier
        self.takers[self.next_identifier] = take
        self.next_identifier += 1
        self.client.subscribe(filter_, options=mqtt.SubscribeOptions(qos=1), properties=properties)
        self.granted.get(timeout=SETUP_TIMEOUT_S)

    def take(self, _client, _data, raw):
        # It routes by the identifier; of several it takes the first.
        identifiers = getattr(raw.properties, "SubscriptionIdentifier", [])
        if identifiers:
            threading.Thread(target=self.takers[identifiers[0]], args=(raw,)).start()

    def serve(self, address):
        own = [snake(address[name]) for name in ("serviceName", "serviceVersion", "serviceTarget")]
        self.listen("/".join([SHARE, self.prefix, "command", *["+"] * 8, *own]), self.take_command)

    def take_command(self, raw):
        try:
            command = json.loads(raw.payload)
        except ValueError:
            return
        if "messageType" not in command or "receiver" not in command:
            return
        if "correlationId" not in command:
            die(KeyError("correlationId"))
        self.publish(self.peer.handle(command))

    def take_reply(self, raw):
        response = json.loads(raw.payload)
        if response["messageType"].endswith("Response"):
            self.peer.settle(response)

    def hear(self, address, event, shared, durable):
        # `durable` has no effect: the session ends with the connection.
        filter_ = "/".join([self.prefix, *["+"] * 7, snake(event), *["+"] * 4])
        filter_ = f"{SHARE}/{filter_}" if shared else filter_
        self.listen(filter_, lambda raw: self.peer.hear(address, json.loads(raw.payload)))

    def publish(self, message, expiry_s=None):
        kind = message["messageType"]
        if expiry_s is None:
            # Milliseconds that are taken for seconds, and seconds that are divided by 1000.
            of_response = 2592 if "eventName" in message else 30_000
            expiry_s = of_response if kind.endswith("Response") else EVENT_EXPIRY_S
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "application/json"
        properties.MessageExpiryInterval = expiry_s
        for name, value in headers_of(message, json.loads(message["otp"])["traceparent"]).items():
            properties.UserProperty = (name, value)
        if "correlationId" in message:
            properties.CorrelationData = message["correlationId"].encode()
        # path.join: an empty part is no part.
        topic = posixpath.normpath("/".join([self.prefix, *parts_of(message, "__none__")]))
        self.client.publish(topic, json.dumps(message), qos=1, properties=properties).wait_for_publish(SETUP_TIMEOUT_S)

    def invoke(self, command, timeout_s):
        self.publish(command, round(timeout_s))
