#!/usr/bin/env python3
"""A client as another team would write one for REST: generated from proto/openapi.yaml alone, in a directory that is thrown away.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install openapi-python-client
    /tmp/venv/bin/python .ci/clients/openapi_client.py --url https://checkup.example.com \
        --admin "$(checkup token --data-dir DIR --role admin --subject lee)" \
        --customer "$(checkup token --data-dir DIR --role customer --subject kim)"

It needs the mesh's gateway, which translates REST; --authority names the certificate authority of a gateway of one's own. It registers a
hospital, books, reads, cancels and provokes refusals. Exit status: 0, or 1 at the first thing that is not as the document says.
"""

import argparse
import datetime
import importlib
import pathlib
import ssl
import subprocess
import sys
import tempfile
import uuid

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "proto/openapi.yaml"
PACKAGE = "generated_checkup"


def generate(into):
    """Makes a Python package of the document."""
    tool = pathlib.Path(sys.executable).parent / "openapi-python-client"
    command = [tool, "generate", "--path", DOCUMENT, "--output-path", into / PACKAGE, "--meta", "none"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    # its formatter may be missing; an operation that it could not generate may not
    if made.returncode != 0 or "WARNING parsing" in made.stdout or "ERROR" in made.stdout:
        sys.exit(f"the client cannot be generated: {made.stdout}{made.stderr}")
    sys.path.insert(0, str(into))


def operation(service, name):
    return importlib.import_module(f"{PACKAGE}.api.{service}_service.{service}_service_{name}").sync_detailed


def model(package, name):
    words = f"checkup_{package}_v1_{name}"
    module = importlib.import_module(f"{PACKAGE}.models.{words}")
    return getattr(module, "".join(word.capitalize() for word in words.split("_")))


def expect(what, condition, seen):
    if not condition:
        sys.exit(f"{what}: got {seen}")
    print(f"ok  {what}")


def refused(what, answer, status, reason):
    details = [detail.to_dict() for detail in answer.parsed.details] if answer.status_code != 200 else []
    found = (answer.status_code, [detail.get("reason") for detail in details if detail.get("domain") == "checkup"])
    expect(f"{what} -> {reason}", found == (status, [reason]), (found, answer.content))


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--url", required=True)
    arguments.add_argument("--authority", help="a file with the certificate that signed the gateway's")
    arguments.add_argument("--admin", required=True, help="an admin's token")
    arguments.add_argument("--customer", required=True, help="the token of customers/kim")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        generate(pathlib.Path(directory))
        play(given)


def play(given):
    clients = importlib.import_module(f"{PACKAGE}.client")
    trust = ssl.create_default_context(cafile=given.authority)
    stranger = clients.Client(base_url=given.url, verify_ssl=trust)
    admin = clients.AuthenticatedClient(base_url=given.url, verify_ssl=trust, token=given.admin)
    kim = clients.AuthenticatedClient(base_url=given.url, verify_ssl=trust, token=given.customer)

    day = datetime.date.today() + datetime.timedelta(days=40)
    hospital = f"openapi-{uuid.uuid4().hex[:12]}"
    later = day + datetime.timedelta(days=1)
    dates = [{"year": one.year, "month": one.month, "day": one.day} for one in (day, later)]
    wish = {
        "hospitalId": hospital,
        "hospital": {"displayName": "오픈API 병원", "timeZone": "Asia/Seoul"},
        "initialSlots": [{"date": date, "capacity": 1} for date in dates],
    }
    create = operation("hospital", "create_hospital")
    request = model("hospital", "create_hospital_request").from_dict(wish)
    made = create(client=admin, body=request)
    expect("a hospital is ACTIVE", made.status_code == 200 and made.parsed.state == "ACTIVE", made)
    refused("the same hospital again", create(client=admin, body=request), 409, "HOSPITAL_ALREADY_EXISTS")
    refused("a hospital by a stranger", create(client=stranger, body=request), 401, "CREDENTIALS_MISSING")

    slot = f"hospitals/{hospital}/slots/{day.isoformat()}"
    book, request = operation("screening", "create_screening"), model("screening", "create_screening_request")
    again = {"screening": {"customer": "customers/kim", "slot": slot}, "requestId": str(uuid.uuid4())}
    judged = book(client=kim, body=request.from_dict({**again, "validateOnly": True}))
    expect("a booking is only judged", judged.status_code == 200 and judged.parsed.state == "CONFIRMED", judged)
    booked = book(client=kim, body=request.from_dict(again))
    expect("a booking is CONFIRMED", booked.status_code == 200 and booked.parsed.state == "CONFIRMED", booked)
    repeated = book(client=kim, body=request.from_dict(again))
    expect("a repeat is the same booking", repeated.parsed.name == booked.parsed.name, repeated)
    refused("another one that day", book(client=kim, body=request.from_dict({"screening": again["screening"]})), 409, "CUSTOMER_DATE_CONFLICT")

    read = operation("hospital", "get_slot")(hospital=hospital, slot=day.isoformat(), client=stranger)
    expect("the slot is full", read.status_code == 200 and read.parsed.booked_count == 1, read)
    listed = operation("screening", "list_screenings")(client=kim, filter_=f'slot="{slot}"')
    expect("the booking is listed", [one.name for one in listed.parsed.screenings] == [booked.parsed.name], listed)
    waits = book(client=admin, body=request.from_dict({"screening": {"customer": "customers/walk-in", "slot": slot}, "joinWaitlist": True}))
    expect("another booking waits", waits.status_code == 200 and (waits.parsed.state, waits.parsed.waitlist_position) == ("WAITLISTED", 1), waits)
    for shown in (False, True):
        listed = operation("screening", "list_screenings")(client=admin, filter_=f'slot="{slot}"', show_waitlisted=shown)
        found = waits.parsed.name in [one.name for one in listed.parsed.screenings]
        expect(f"who waits is {'' if shown else 'not '}listed", found == shown, listed)
    elsewhere = f"hospitals/{hospital}/slots/{later.isoformat()}"
    body = model("screening", "reschedule_screening_request").from_dict({"slot": elsewhere, "requestId": str(uuid.uuid4())})
    moved = operation("screening", "reschedule_screening")(screening=booked.parsed.name.split("/")[1], client=kim, body=body)
    expect("the booking is moved", moved.status_code == 200 and (moved.parsed.state, moved.parsed.slot) == ("CONFIRMED", elsewhere), moved)
    cancel = operation("screening", "cancel_screening")
    body = model("screening", "cancel_screening_request").from_dict({"reason": "감기에 걸려서"})
    gone = cancel(screening=booked.parsed.name.split("/")[1], client=kim, body=body)
    expect("the booking is CANCELLED", gone.status_code == 200 and gone.parsed.state == "CANCELLED", gone)


if __name__ == "__main__":
    main()
