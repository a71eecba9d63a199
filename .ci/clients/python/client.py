"""A client of checkup as another team would write it: it books, is refused, reads and watches a page, and cancels."""

import datetime
import os
import sys
import uuid

import grpc
from checkup.error.v1 import error_pb2
from checkup.hospital.v1 import hospital_pb2, hospital_pb2_grpc
from checkup.mypage.v1 import mypage_pb2, mypage_pb2_grpc
from checkup.screening.v1 import screening_pb2, screening_pb2_grpc
from google.type import date_pb2

from frontdesk import connect, refused

PAGE = "customers/kim/myPage"


def main():
    address = os.environ.get("CHECKUP_ADDR", "127.0.0.1:8080")
    with connect(address, os.environ["ADMIN"]) as admin, connect(address, os.environ["KIM"]) as kim:
        screenings = screening_pb2_grpc.ScreeningServiceStub(kim)
        pages = mypage_pb2_grpc.MyPageServiceStub(kim)

        slot = open_slot(hospital_pb2_grpc.HospitalServiceStub(admin))

        # One request_id per intention: the retries of the service config send it again, and nothing is booked twice.
        wish = screening_pb2.Screening(customer="customers/kim", slot=slot)
        booked = screenings.CreateScreening(screening_pb2.CreateScreeningRequest(screening=wish, request_id=str(uuid.uuid4())))
        print("booked", booked.name, state_of(booked))

        book_full_slot(screening_pb2_grpc.ScreeningServiceStub(admin), slot)

        # The page follows by events; the token waits for the booking just made.
        page = pages.GetMyPage(mypage_pb2.GetMyPageRequest(name=PAGE, min_consistency_token=booked.consistency_token))
        for item in page.upcoming:
            print("page", item.screening, item.state)
        cancel_and_watch(screenings, pages, booked)


def open_slot(hospitals):
    """Registers a hospital with one place thirty days from now, and returns the slot's name."""
    day = datetime.date.today() + datetime.timedelta(days=30)
    date = date_pb2.Date(year=day.year, month=day.month, day=day.day)
    hospital = hospitals.CreateHospital(
        hospital_pb2.CreateHospitalRequest(
            hospital=hospital_pb2.Hospital(display_name="Python 검진센터", time_zone="Asia/Seoul"),
            initial_slots=[hospital_pb2.Slot(date=date, capacity=1)],
            request_id=str(uuid.uuid4()),
        )
    )
    print("hospital", hospital.name, hospital_pb2.Hospital.State.Name(hospital.state))
    return f"{hospital.name}/slots/{day.isoformat()}"


def book_full_slot(screenings, slot):
    """Asks for a place that is not there, and reads why not."""
    wish = screening_pb2.Screening(customer="customers/lee", slot=slot)
    try:
        screenings.CreateScreening(screening_pb2.CreateScreeningRequest(screening=wish, request_id=str(uuid.uuid4())))
    except grpc.RpcError as error:
        why = refused(error)
        if why is None or why.reason != error_pb2.SLOT_FULL:
            raise
        print("refused", why)
        print("places left:", int(why.metadata["remaining"]))
    else:
        sys.exit(f"error: {slot} has more than one place")


def cancel_and_watch(screenings, pages, booked):
    """Cancels the booking while it watches the page, until the page shows it."""
    # A stream has no time of its own: it lasts until its caller has seen enough.
    for message in pages.WatchMyPage(mypage_pb2.WatchMyPageRequest(name=PAGE), timeout=30):
        match message.WhichOneof("event"):
            case "snapshot":
                print("watching, upcoming:", len(message.snapshot.upcoming))
                cancelled = screenings.CancelScreening(
                    screening_pb2.CancelScreeningRequest(
                        name=booked.name, reason="cannot come", etag=booked.etag, request_id=str(uuid.uuid4())
                    )
                )
                print("cancelled", cancelled.name, state_of(cancelled))
            case "changed":
                item = message.changed
                print("changed", item.screening, item.state)
                if item.screening == booked.name and item.state == "CANCELLED":
                    return


def state_of(screening):
    """The state's name; a number where the stubs are older than the state."""
    names = screening_pb2.Screening.State
    return names.Name(screening.state) if screening.state in names.values() else screening.state


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"error: {refused(error) or error.code().name}: {error.details()}")
