#!/bin/sh
# Tries a running process with grpcurl, by reflection alone, as a person at a terminal would.
#
#   go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest
#   checkup up --data-dir /tmp/data &
#   .ci/clients/grpcurl.sh 127.0.0.1:8080 /tmp/data path/to/checkup
#
# Exit status: 0, or 1 at the first thing that is not as the contract says.
set -eu

addr=${1:?usage: grpcurl.sh ADDR DATA_DIR [CHECKUP]}
data=${2:?usage: grpcurl.sh ADDR DATA_DIR [CHECKUP]}
checkup=${3:-checkup}

admin=$("$checkup" token --data-dir "$data" --role admin --subject lee)
customer=$("$checkup" token --data-dir "$data" --role customer --subject kim)
id="grpcurl-$(date +%s)"
# Some days from now, as GNU's date says it or as BSD's does; and a date in JSON, where numbers have no leading zeros.
in_days() { date -d "+$1 days" +%Y-%m-%d 2>/dev/null || date -v "+$1d" +%Y-%m-%d; }
json() { printf '%s\n' "$1" | sed 's/^\(.*\)-0*\(.*\)-0*\(.*\)$/{"year":\1,"month":\2,"day":\3}/'; }
date=$(in_days 30)
later=$(in_days 31)
slot="hospitals/$id/slots/$date"
other="hospitals/$id/slots/$later"
answer=""

ok() { printf 'ok  %s\n' "$1"; }
fail() { printf '%s: got\n%s\n' "$1" "$answer" >&2; exit 1; }
# call TOKEN METHOD BODY: keeps what was printed, whatever the status was.
call() { answer=$(grpcurl -plaintext ${1:+-H "authorization: Bearer $1"} -d "$3" "$addr" "$2" 2>&1) || true; }
has() { case $answer in *"$2"*) ok "$1" ;; *) fail "$1" ;; esac; }

answer=$(grpcurl -plaintext "$addr" list)
for service in hospital.v1.HospitalService capacity.v1.CapacityService screening.v1.ScreeningService \
    reservation.v1.ReservationService mypage.v1.MyPageService marketing.v1.MarketingService; do
    has "list names $service" "checkup.$service"
    described=$(grpcurl -plaintext "$addr" describe "checkup.$service")
    for method in $(printf '%s\n' "$described" | sed -n 's/^ *rpc \([A-Za-z]*\) .*/\1/p'); do
        grpcurl -plaintext "$addr" describe "checkup.$service.$method" >/dev/null || fail "describe $service.$method"
    done
    ok "describe knows every method of $service"
done
answer=$(grpcurl -plaintext "$addr" describe checkup.error.v1.Reason)
has "describe knows the reasons of errors" "SLOT_FULL"

call "" grpc.health.v1.Health/Check '{}'
has "health" SERVING
call "$admin" checkup.hospital.v1.HospitalService/CreateHospital "{\"hospitalId\":\"$id\",
  \"hospital\":{\"displayName\":\"Grpcurl Clinic\",\"timeZone\":\"Asia/Seoul\"},
  \"initialSlots\":[{\"date\":$(json "$date"),\"capacity\":1},{\"date\":$(json "$later"),\"capacity\":1}]}"
has "CreateHospital" "\"name\": \"hospitals/$id\""
call "$customer" checkup.screening.v1.ScreeningService/CreateScreening \
    "{\"screening\":{\"customer\":\"customers/kim\",\"slot\":\"$slot\"}}"
has "CreateScreening" '"state": "CONFIRMED"'
name=$(printf '%s\n' "$answer" | sed -n 's/^  "name": "\(.*\)",$/\1/p')
call "$customer" checkup.screening.v1.ScreeningService/ListScreenings "{\"filter\":\"slot=\\\"$slot\\\"\"}"
has "ListScreenings" "$name"
call "" checkup.hospital.v1.HospitalService/GetSlot "{\"name\":\"$slot\"}"
has "GetSlot without a token" '"bookedCount": 1'

# An error's details are decoded: their fields can be read, and no bytes are left.
call "$admin" checkup.screening.v1.ScreeningService/CreateScreening \
    "{\"screening\":{\"customer\":\"customers/lee\",\"slot\":\"$slot\"}}"
has "a full slot is FailedPrecondition" "Code: FailedPrecondition"
has "its ErrorInfo is decoded" '"reason": "SLOT_FULL"'
has "with its metadata" '"remaining": "0"'
has "which says that a queue is open" '"waitlistOpen": "true"'
case $answer in *'"value":'*) fail "details are base64" ;; *) ok "nothing is base64" ;; esac
call "$admin" checkup.hospital.v1.HospitalService/CreateHospital '{"hospitalId":"X","hospital":{"timeZone":"Mars"}}'
has "BadRequest names the fields" '"field": "hospital.display_name"'
has "all of them" '"field": "hospital_id"'
call "" checkup.screening.v1.ScreeningService/ListScreenings '{}'
has "no token" '"reason": "CREDENTIALS_MISSING"'

call "$admin" checkup.screening.v1.ScreeningService/CreateScreening \
    "{\"screening\":{\"customer\":\"customers/lee\",\"slot\":\"$slot\"},\"joinWaitlist\":true}"
has "join_waitlist leaves a booking WAITLISTED" '"state": "WAITLISTED"'
has "as the first" '"waitlistPosition": 1'
waits=$(printf '%s\n' "$answer" | sed -n 's/^  "name": "\(.*\)",$/\1/p')
call "$admin" checkup.screening.v1.ScreeningService/ListScreenings "{\"filter\":\"slot=\\\"$slot\\\"\"}"
case $answer in *"$waits"*) fail "a list shows who waits" ;; *) ok "a list does not show who waits" ;; esac
call "$admin" checkup.screening.v1.ScreeningService/ListScreenings \
    "{\"filter\":\"slot=\\\"$slot\\\"\",\"showWaitlisted\":true}"
has "unless it is asked to" "$waits"

call "$customer" checkup.screening.v1.ScreeningService/RescheduleScreening "{\"name\":\"$name\",\"slot\":\"$other\"}"
has "RescheduleScreening leaves it CONFIRMED" '"state": "CONFIRMED"'
has "at the other slot" "\"slot\": \"$other\""
for _ in $(seq 50); do
    call "$admin" checkup.screening.v1.ScreeningService/GetScreening "{\"name\":\"$waits\"}"
    case $answer in *WAITLISTED*) sleep 0.1 ;; *) break ;; esac
done
has "who waited has the place" '"state": "CONFIRMED"'
call "$customer" checkup.screening.v1.ScreeningService/CancelScreening "{\"name\":\"$name\"}"
has "CancelScreening" '"state": "CANCELLED"'
call "$customer" checkup.mypage.v1.MyPageService/GetMyPage '{"name":"customers/kim/myPage"}'
has "GetMyPage" "customers/kim/myPage"
