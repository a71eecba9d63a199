#!/usr/bin/env python3
"""A team's consumer of checkup's events, from proto/ alone: it keeps bookings and places in a SQLite file of its own.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install grpcio-tools "nats-py>=2.16"
    /tmp/venv/bin/python examples/python/consumer.py --nats nats://partner:partner@127.0.0.1:4222 --database /tmp/partner.db
    /tmp/venv/bin/python examples/python/consumer.py --conformance proto/conformance/messages.jsonl

It follows the rules of docs/events.md: it opens frames and single events, applies a fact only if it is newer than what it holds, acknowledges after
its own commit, counts facts that it does not know, and puts aside what it cannot apply after some tries. Several processes may share one consumer.
With --conformance it applies the messages of a file instead, and prints the state that results. --state prints the state of a database.
"""

import argparse
import asyncio
import base64
import importlib
import json
import pathlib
import signal
import sqlite3
import sys
import tempfile

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
SUBJECTS = ["checkup.v1.screening.*.*", "checkup.v1.slot.*.*", "checkup.v1.claim.*.*"]
TRIES, FIRST_PAUSE, LONGEST_PAUSE = 10, 0.05, 5.0  # pauses in seconds; they double
STATES = {
    "screening_pending": "PENDING", "screening_confirmed": "CONFIRMED", "screening_rejected": "REJECTED", "screening_cancelled": "CANCELLED",
    "screening_force_cancelled": "FORCE_CANCELLED", "screening_waitlisted": "WAITLISTED",
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS booking (screening TEXT PRIMARY KEY, version INTEGER, state TEXT, customer TEXT, slot TEXT);
CREATE TABLE IF NOT EXISTS place (slot TEXT PRIMARY KEY, slot_version INTEGER, capacity INTEGER, booked_count INTEGER);
CREATE TABLE IF NOT EXISTS sale (slot TEXT PRIMARY KEY, version INTEGER, on_sale INTEGER);
CREATE TABLE IF NOT EXISTS unknown (event_id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS aside (sequence INTEGER PRIMARY KEY, subject TEXT, message BLOB, error TEXT);
"""


def stubs():
    """The module of event.proto, compiled into a directory that is thrown away. A team keeps it in its own build."""
    import grpc_tools
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as into:
        well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        files = ["checkup/event/v1/event.proto", "google/type/date.proto"]
        if protoc.main(["protoc", f"-I{PROTO}", f"-I{well_known}", f"--python_out={into}", *files]) != 0:
            sys.exit("the stubs cannot be generated")
        sys.path.insert(0, into)
        # The generated package google joins the one of protobuf itself.
        import google

        google.__path__.append(str(pathlib.Path(into) / "google"))
        return importlib.import_module("checkup.event.v1.event_pb2")


EVENT = stubs()


def events(message):
    """The events of a message: of a frame, or the one that is the message itself, as earlier versions published."""
    frame = EVENT.EventFrame.FromString(message)
    return list(frame.events) or [EVENT.EventEnvelope.FromString(message)]


class Store:
    """The team's own database. It remembers the version of everything it holds, so it needs no list of events that it has seen."""

    def __init__(self, path):
        self.database = sqlite3.connect(path)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.executescript(SCHEMA)

    def apply(self, message):
        """Applies all events of a message in one transaction, or none of them."""
        with self.database:
            for event in events(message):
                self.apply_event(event)

    def apply_event(self, event):
        fact = event.WhichOneof("payload")
        if fact is None:
            self.write("INSERT OR IGNORE INTO unknown VALUES (?)", event.event_id)
            return
        payload = getattr(event, fact)
        if fact in STATES or fact == "screening_attendance_recorded":
            self.booking(event, STATES.get(fact) or ("COMPLETED" if payload.attended else "NO_SHOW"), payload.screening)
        if fact == "screening_waitlist_ended":
            self.booking(event, payload.state, payload.screening)
        if "slot_version" in payload.DESCRIPTOR.fields_by_name:
            capacity = payload.new_capacity if fact == "slot_capacity_changed" else payload.capacity
            self.place(payload, capacity)
        if fact in ("slot_opened", "slot_closed"):
            self.sale(event, payload, fact == "slot_opened")
        if fact == "slot_capacity_changed" and payload.HasField("on_sale"):
            self.sale(event, payload, payload.on_sale)

    def booking(self, event, state, snapshot):
        if not snapshot.customer:
            return  # a fence: it is shown to nobody
        if event.aggregate_version > self.held("SELECT version FROM booking WHERE screening = ?", snapshot.screening):
            row = (snapshot.screening, event.aggregate_version, state, snapshot.customer, snapshot.slot)
            self.write("INSERT OR REPLACE INTO booking VALUES (?, ?, ?, ?, ?)", *row)

    def place(self, payload, capacity):
        # Bookings change a slot through its claims, so its counts have a version of their own.
        if payload.slot_version > self.held("SELECT slot_version FROM place WHERE slot = ?", payload.slot):
            row = (payload.slot, payload.slot_version, capacity, payload.booked_count)
            self.write("INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?)", *row)

    def sale(self, event, payload, on_sale):
        if event.aggregate_version > self.held("SELECT version FROM sale WHERE slot = ?", payload.slot):
            self.write("INSERT OR REPLACE INTO sale VALUES (?, ?, ?)", payload.slot, event.aggregate_version, on_sale)

    def put_aside(self, sequence, subject, message, error):
        with self.database:
            self.write("INSERT OR REPLACE INTO aside VALUES (?, ?, ?, ?)", sequence, subject, message, error)

    def held(self, query, name):
        row = self.database.execute(query, (name,)).fetchone()
        return row[0] if row else 0

    def write(self, statement, *values):
        self.database.execute(statement, values)

    def state(self):
        bookings = self.database.execute("SELECT screening, version, state, customer, slot FROM booking")
        places = self.database.execute(
            "SELECT slot, slot_version, capacity, booked_count, on_sale FROM place LEFT JOIN sale USING (slot)"
        )
        return {
            "bookings": {row[0]: dict(zip(("version", "state", "customer", "slot"), row[1:])) for row in bookings},
            "slots": {
                slot: {"slot_version": version, "capacity": capacity, "booked_count": booked, "on_sale": bool(on_sale)}
                for slot, version, capacity, booked, on_sale in places
            },
            "unknown_facts": self.held("SELECT count(*) FROM unknown WHERE ? = ''", ""),
        }


async def consume(address, name, store):
    """Reads until a signal ends it."""
    import nats
    from nats.errors import TimeoutError as NothingNew
    from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
    from nats.js.errors import NotFoundError

    user = address.partition("://")[2].partition(":")[0]
    connection = await nats.connect(address, inbox_prefix=f"_INBOX.{user}", max_reconnect_attempts=-1)
    jetstream = connection.jetstream()
    config = ConsumerConfig(
        name=name, durable_name=name, filter_subjects=SUBJECTS, deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.EXPLICIT,
        ack_wait=30, max_ack_pending=1000,
    )
    running = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        while True:
            try:
                # Makes the consumer, or finds it as it is.
                await jetstream.add_consumer("checkup", config)
                subscription = await jetstream.pull_subscribe_bind(name, "checkup")
                print("reading", flush=True)
                while True:
                    try:
                        messages = await subscription.fetch(64, timeout=5)
                    except NothingNew:
                        # The stream may have been made anew, without this consumer; then it begins again.
                        await jetstream.consumer_info("checkup", name)
                        continue
                    for message in messages:
                        await handle(store, message)
            except (nats.errors.Error, NotFoundError) as error:
                print(f"trying again: {error!r}", flush=True)
                await asyncio.sleep(1)
    except asyncio.CancelledError:
        await connection.drain()


async def handle(store, message):
    """Applies a message and acknowledges it after the commit. One that cannot be applied does not hold up the others."""
    metadata = message.metadata
    try:
        store.apply(message.data)
    except Exception as error:
        if metadata.num_delivered < TRIES:
            await message.nak(delay=min(FIRST_PAUSE * 2 ** (metadata.num_delivered - 1), LONGEST_PAUSE))
            return
        store.put_aside(metadata.sequence.stream, message.subject, message.data, repr(error))
    await message.ack()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nats", help="nats://USER:PASSWORD@HOST:PORT")
    parser.add_argument("--consumer", default="partner", help="the name of the durable consumer [partner]")
    parser.add_argument("--database", default=":memory:", help="the SQLite file [in memory]")
    parser.add_argument("--conformance", metavar="FILE", help="apply the messages of this file and print the state")
    parser.add_argument("--state", action="store_true", help="print the state of the database and end")
    arguments = parser.parse_args()
    store = Store(arguments.database)
    if arguments.conformance:
        for line in pathlib.Path(arguments.conformance).read_text().splitlines():
            store.apply(base64.b64decode(json.loads(line)["message"]))
    if arguments.conformance or arguments.state:
        print(json.dumps(store.state(), indent=1, sort_keys=True))
        return
    if not arguments.nats:
        parser.error("--nats, --conformance or --state")
    asyncio.run(consume(arguments.nats, arguments.consumer, store))


if __name__ == "__main__":
    main()
