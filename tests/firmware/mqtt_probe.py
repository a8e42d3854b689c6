"""A program around the MQTT client, on either interpreter, driven in frames of JSON.

    mqtt_probe.py '{"port": 1883, "client_id": "probe", ...}'

Every order is {"id": n, "do": name, ...}; its answer is {"id": n, "ok": value} or
{"id": n, "down": text}. Messages come as {"topic", "retained", "count", "payload" (hex)}, a long
one with its "sha256" instead; with "quiet" only the message `last` does. The end of a link comes as
{"link": text}. It ends with its standard input.
"""

import asyncio
import json
import sys
from binascii import hexlify, unhexlify
from hashlib import sha256

from firmware.meter.mqtt import Client, LinkDown
from firmware.meter.rig import LineClosed, RigChannel
from ledger.protocol import frame


class Probe:
    def __init__(self, settings):
        self.rig = RigChannel()
        self.outgoing = []
        self.wake = asyncio.Event()
        self.quiet = settings.pop("quiet", False)
        self.count = 0
        ca = settings.pop("ca", None)
        if ca:
            settings["ssl"] = self.context(ca)
        will = settings.pop("will", None)
        if will:
            settings["will"] = (will[0], will[1].encode(), will[2], bool(will[3]))
        port = settings.pop("port")
        self.client = Client("127.0.0.1", port, on_message=self.message, **settings)

    @staticmethod
    def context(ca):
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.verify_mode = ssl.CERT_REQUIRED
        with open(ca, "rb") as file:
            context.load_verify_locations(cadata=file.read())
        return context

    def say(self, what):
        self.outgoing.append(what)
        self.wake.set()

    def message(self, topic, payload, retained):
        self.count += 1
        if self.quiet and bytes(payload) != b"last":
            return
        shown = {"topic": topic, "retained": retained, "count": self.count}
        if len(payload) > 1000:
            shown["sha256"] = hexlify(sha256(payload).digest()).decode()
        else:
            shown["payload"] = hexlify(payload).decode()
        self.say(shown)

    async def write_out(self):
        while True:
            while self.outgoing:
                text = json.dumps(self.outgoing.pop(0)).encode()
                await self.rig.send(frame.CHANNEL_RIG, text)
            self.wake.clear()
            await self.wake.wait()

    async def run_link(self):
        try:
            await self.client.run()
            self.say({"link": "closed"})
        except LinkDown as error:
            self.say({"link": str(error)})

    async def order(self, what):
        try:
            self.say({"id": what["id"], "ok": await getattr(self, "do_" + what["do"])(what)})
        except LinkDown as error:
            self.say({"id": what["id"], "down": str(error)})

    async def do_connect(self, what):
        await self.client.connect()
        self.link = asyncio.create_task(self.run_link())
        return self.client.session_present

    async def do_subscribe(self, what):
        return await self.client.subscribe(what["topic"], what["qos"])

    async def do_publish(self, what):
        payload = unhexlify(what["payload"]) * what["times"]
        await self.client.publish(what["topic"], payload, what["retain"], what["qos"])

    async def do_idle(self, what):
        await asyncio.sleep(what["seconds"])

    async def do_oversized(self, what):
        return self.client.oversized

    async def do_close(self, what):
        await self.client.close()


async def main():
    probe = Probe(json.loads(sys.argv[1]))
    writing = asyncio.create_task(probe.write_out())
    tasks = []
    try:
        while True:
            _, payload = await probe.rig.recv()
            tasks.append(asyncio.create_task(probe.order(json.loads(payload))))
    except LineClosed:
        writing.cancel()


asyncio.run(main())
