#!/usr/bin/env python3
"""A client as another team would write one: stubs generated from proto/ alone, in a directory that is thrown away.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install grpcio-tools
    checkup up --data-dir /tmp/data &
    /tmp/venv/bin/python .ci/clients/python_client.py --addr 127.0.0.1:8080 \
        --admin "$(checkup token --data-dir /tmp/data --role admin --subject lee)" \
        --customer "$(checkup token --data-dir /tmp/data --role customer --subject kim)"

It registers a hospital, books, reads, cancels and provokes refusals, and takes every error apart down to its ErrorInfo.
Exit status: 0, or 1 at the first thing that is not as the contract says.
"""

import argparse
import datetime
import importlib
import pathlib
import sys
import tempfile
import uuid

import grpc
import grpc_tools
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory
from grpc_tools import protoc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def generate(into):
    """Compiles every .proto below proto/ into Python modules."""
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path) for path in PROTO.rglob("*.proto"))
    options = [f"-I{PROTO}", f"-I{well_known}", f"--python_out={into}", f"--grpc_python_out={into}"]
    if protoc.main(["protoc", *options, *files]) != 0:
        sys.exit("the stubs cannot be generated")
    sys.path.insert(0, str(into))
    # The generated package google joins the one of protobuf itself.
    import google

    google.__path__.append(str(pathlib.Path(into) / "google"))


def status_class():
    """google.rpc.Status, which travels in grpc-status-details-bin and is not part of the contract."""
    file = descriptor_pb2.FileDescriptorProto(name="client/status.proto", package="google.rpc", syntax="proto3")
    file.dependency.append("google/protobuf/any.proto")
    message = file.message_type.add(name="Status")
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="code", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    message.field.add(name="message", number=2, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(
        name="details", number=3, type=field.TYPE_MESSAGE, type_name=".google.protobuf.Any", label=field.LABEL_REPEATED
    )
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.Status"))


def details_of(error, status):
    """Every detail of an error, by the name of its type."""
    details = {}
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for packed in status.FromString(value).details:
                name = packed.type_url.rsplit("/", 1)[1]
                kind = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
                details[name] = kind.FromString(packed.value)
    return details


def expect(what, condition, seen):
    if not condition:
        sys.exit(f"{what}: got {seen}")
    print(f"ok  {what}")


def refused(what, status, code, reason, call):
    """The call must be refused with this code and reason; returns the error's details."""
    try:
        answer = call()
    except grpc.RpcError as error:
        details = details_of(error, status)
        info = details.get("google.rpc.ErrorInfo")
        found = (error.code(), info.domain if info else "", info.reason if info else "")
        expect(f"{what} -> {reason}", found == (code, "checkup", reason), (found, error.details()))
        return details
    sys.exit(f"{what}: expected {reason}, was answered {answer}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--addr", default="127.0.0.1:8080")
    arguments.add_argument("--admin", required=True, help="an admin's token")
    arguments.add_argument("--customer", required=True, help="the token of customers/kim")
    given = arguments.parse_args()

    with tempfile.TemporaryDirectory() as stubs:
        generate(stubs)
        play(given)


def play(given):
    module = importlib.import_module
    hospital = module("checkup.hospital.v1.hospital_pb2")
    hospital_grpc = module("checkup.hospital.v1.hospital_pb2_grpc")
    screening = module("checkup.screening.v1.screening_pb2")
    screening_grpc = module("checkup.screening.v1.screening_pb2_grpc")
    mypage = module("checkup.mypage.v1.mypage_pb2")
    mypage_grpc = module("checkup.mypage.v1.mypage_pb2_grpc")
    reasons = module("checkup.error.v1.error_pb2").Reason
    date_pb2 = module("google.type.date_pb2")
    module("google.rpc.error_details_pb2")
    status = status_class()

    admin = {"metadata": [("authorization", f"Bearer {given.admin}")], "timeout": 10}
    customer = {"metadata": [("authorization", f"Bearer {given.customer}")], "timeout": 10}
    day = datetime.date.today() + datetime.timedelta(days=30)
    date = date_pb2.Date(year=day.year, month=day.month, day=day.day)

    with grpc.insecure_channel(given.addr) as channel:
        hospitals = hospital_grpc.HospitalServiceStub(channel)
        screenings = screening_grpc.ScreeningServiceStub(channel)
        pages = mypage_grpc.MyPageServiceStub(channel)

        made = hospitals.CreateHospital(
            hospital.CreateHospitalRequest(
                hospital=hospital.Hospital(display_name="파이썬 병원", time_zone="Asia/Seoul"),
                hospital_id=f"python-{uuid.uuid4().hex[:12]}",
                initial_slots=[hospital.Slot(date=date, capacity=1)],
            ),
            **admin,
        )
        expect("a hospital is ACTIVE", made.state == hospital.Hospital.ACTIVE, made)
        slot = f"{made.name}/slots/{day.isoformat()}"
        wish = screening.CreateScreeningRequest(
            screening=screening.Screening(customer="customers/kim", slot=slot), request_id=str(uuid.uuid4())
        )
        booked = screenings.CreateScreening(wish, **customer)
        expect("a booking is CONFIRMED", booked.state == screening.Screening.CONFIRMED, booked)
        again = screenings.CreateScreening(wish, **customer)
        expect("a repeat is the same booking", again.name == booked.name, again)
        listed = screenings.ListScreenings(screening.ListScreeningsRequest(filter=f'slot="{slot}"'), **customer)
        expect("it is listed", [one.name for one in listed.screenings] == [booked.name], listed)
        page = pages.GetMyPage(
            mypage.GetMyPageRequest(name="customers/kim/myPage", min_consistency_token=booked.consistency_token),
            **customer,
        )
        expect("it is on the page", booked.name in [item.screening for item in page.upcoming], page)

        other = screening.CreateScreeningRequest(screening=screening.Screening(customer="customers/lee", slot=slot))
        details = refused(
            "a full slot", status, grpc.StatusCode.FAILED_PRECONDITION, "SLOT_FULL",
            lambda: screenings.CreateScreening(other, **admin),
        )
        info = details["google.rpc.ErrorInfo"]
        expect("the reason is one of the contract", info.reason in reasons.keys(), info)
        expect("it says what is full", (info.metadata["slot"], info.metadata["remaining"]) == (slot, "0"), info)
        bad = hospital.CreateHospitalRequest(hospital=hospital.Hospital(time_zone="Mars/Olympus"), hospital_id="X")
        details = refused(
            "a bad request", status, grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID",
            lambda: hospitals.CreateHospital(bad, **admin),
        )
        fields = [violation.field for violation in details["google.rpc.BadRequest"].field_violations]
        expect("every bad field is named", fields == ["hospital.display_name", "hospital.time_zone", "hospital_id"], fields)
        refused(
            "a call without a token", status, grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_MISSING",
            lambda: screenings.ListScreenings(screening.ListScreeningsRequest(), timeout=10),
        )

        cancelled = screenings.CancelScreening(
            screening.CancelScreeningRequest(name=booked.name, reason="그냥"), **customer
        )
        expect("a cancel is CANCELLED", cancelled.state == screening.Screening.CANCELLED, cancelled)
        details = refused(
            "a second cancel", status, grpc.StatusCode.FAILED_PRECONDITION, "SCREENING_STATE_INVALID",
            lambda: screenings.CancelScreening(screening.CancelScreeningRequest(name=booked.name), **customer),
        )
        expect("it says the state", details["google.rpc.ErrorInfo"].metadata["state"] == "CANCELLED", details)


if __name__ == "__main__":
    main()
