"""An SMTP server: says "ready PORT", then each mail that it receives as a line of JSON."""

import json
import sys

from aiosmtpd.controller import Controller


class Print:
    async def handle_DATA(self, server, session, envelope):
        mail = {
            "to": envelope.rcpt_tos,
            "from": envelope.mail_from,
            "content": envelope.content.decode("utf-8", "replace"),
        }
        print(json.dumps(mail), flush=True)
        # A mailbox that does not exist, as far as a test can tell.
        if any(address.startswith("nobody@") for address in envelope.rcpt_tos):
            return "550 no such mailbox"
        return "250 taken"


controller = Controller(Print(), hostname="127.0.0.1", port=int(sys.argv[1]))
controller.start()
print("ready", sys.argv[1], flush=True)
# The server runs until whoever started it closes its input.
sys.stdin.read()
