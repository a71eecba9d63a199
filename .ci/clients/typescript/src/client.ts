// A client of checkup as another team would write it: it books, is refused, reads and watches a page, and cancels.

import { randomUUID } from "node:crypto";
import { type Client, createClient } from "@connectrpc/connect";
import { Reason } from "../stubs/checkup/error/v1/error_pb.js";
import { Hospital_State, HospitalService } from "../stubs/checkup/hospital/v1/hospital_pb.js";
import { MyPageService } from "../stubs/checkup/mypage/v1/mypage_pb.js";
import { type Screening, Screening_State, ScreeningService } from "../stubs/checkup/screening/v1/screening_pb.js";
import { connect, explain, refused, show } from "./checkup.js";

const PAGE = "customers/kim/myPage";

async function main() {
  const address = process.env.CHECKUP_ADDR ?? "127.0.0.1:8080";
  const admin = connect(address, process.env.ADMIN ?? "");
  const kim = connect(address, process.env.KIM ?? "");
  const screenings = createClient(ScreeningService, kim);
  const pages = createClient(MyPageService, kim);

  const slot = await openSlot(createClient(HospitalService, admin));

  // One requestId per intention: the retries of the service config send it again, and nothing is booked twice.
  const booked = await screenings.createScreening({ screening: { customer: "customers/kim", slot }, requestId: randomUUID() });
  console.log("booked", booked.name, Screening_State[booked.state]);

  await bookFullSlot(createClient(ScreeningService, admin), slot);

  // The page follows by events; the token waits for the booking just made.
  const page = await pages.getMyPage({ name: PAGE, minConsistencyToken: booked.consistencyToken });
  for (const item of page.upcoming) console.log("page", item.screening, item.state);

  await cancelAndWatch(screenings, pages, booked);
}

/** Registers a hospital with one place thirty days from now, and returns the slot's name. */
async function openSlot(hospitals: Client<typeof HospitalService>): Promise<string> {
  const day = new Date(Date.now() + 30 * 86_400_000).toISOString().slice(0, 10);
  const [year, month, date] = day.split("-").map(Number);
  const hospital = await hospitals.createHospital({
    hospital: { displayName: "TypeScript 검진센터", timeZone: "Asia/Seoul" },
    initialSlots: [{ date: { year, month, day: date }, capacity: 1 }],
    requestId: randomUUID(),
  });
  console.log("hospital", hospital.name, Hospital_State[hospital.state]);
  return `${hospital.name}/slots/${day}`;
}

/** Asks for a place that is not there, and reads why not. */
async function bookFullSlot(screenings: Client<typeof ScreeningService>, slot: string) {
  try {
    await screenings.createScreening({ screening: { customer: "customers/lee", slot }, requestId: randomUUID() });
  } catch (error) {
    const why = refused(error);
    if (why?.reason !== Reason.SLOT_FULL) throw error;
    console.log("refused", show(why));
    console.log("places left:", Number(why.metadata.remaining));
    return;
  }
  throw new Error(`${slot} has more than one place`);
}

/** Cancels the booking while it watches the page, until the page shows it. */
async function cancelAndWatch(screenings: Client<typeof ScreeningService>, pages: Client<typeof MyPageService>, booked: Screening) {
  // A stream has no time of its own: it lasts until its caller has seen enough, and says so by the signal.
  const watching = new AbortController();
  try {
    for await (const { event } of pages.watchMyPage({ name: PAGE }, { timeoutMs: 30_000, signal: watching.signal })) {
      if (event.case === "snapshot") {
        console.log("watching, upcoming:", event.value.upcoming.length);
        await cancel(screenings, booked);
      } else if (event.case === "changed") {
        console.log("changed", event.value.screening, event.value.state);
        if (event.value.screening === booked.name && event.value.state === Screening_State[Screening_State.CANCELLED]) watching.abort();
      }
    }
  } catch (error) {
    if (!watching.signal.aborted) throw error;
  }
}

/** Cancels a booking, unless it has changed since it was read. */
async function cancel(screenings: Client<typeof ScreeningService>, { name, etag }: Screening) {
  const cancelled = await screenings.cancelScreening({ name, etag, reason: "cannot come", requestId: randomUUID() });
  console.log("cancelled", cancelled.name, Screening_State[cancelled.state]);
}

try {
  await main();
} catch (error) {
  console.error("error:", explain(error));
  process.exitCode = 1;
}
