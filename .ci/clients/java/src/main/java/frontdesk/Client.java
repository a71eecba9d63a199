package frontdesk;

import com.google.type.Date;
import example.checkup.error.v1.Reason;
import example.checkup.hospital.v1.CreateHospitalRequest;
import example.checkup.hospital.v1.Hospital;
import example.checkup.hospital.v1.HospitalServiceGrpc;
import example.checkup.hospital.v1.HospitalServiceGrpc.HospitalServiceBlockingStub;
import example.checkup.hospital.v1.Slot;
import example.checkup.mypage.v1.GetMyPageRequest;
import example.checkup.mypage.v1.MyPage;
import example.checkup.mypage.v1.MyPageItem;
import example.checkup.mypage.v1.MyPageServiceGrpc;
import example.checkup.mypage.v1.MyPageServiceGrpc.MyPageServiceBlockingStub;
import example.checkup.mypage.v1.WatchMyPageRequest;
import example.checkup.mypage.v1.WatchMyPageResponse;
import example.checkup.screening.v1.CancelScreeningRequest;
import example.checkup.screening.v1.CreateScreeningRequest;
import example.checkup.screening.v1.Screening;
import example.checkup.screening.v1.ScreeningServiceGrpc;
import example.checkup.screening.v1.ScreeningServiceGrpc.ScreeningServiceBlockingStub;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.time.LocalDate;
import java.util.Iterator;
import java.util.UUID;
import java.util.concurrent.TimeUnit;

/** A client of checkup as another team would write it: it books, is refused, reads and watches a page, and cancels. */
public final class Client {
  private static final String PAGE = "customers/kim/myPage";

  private final HospitalServiceBlockingStub hospitals;
  private final ScreeningServiceBlockingStub screenings;
  private final ScreeningServiceBlockingStub adminScreenings;
  private final MyPageServiceBlockingStub pages;

  private Client(ManagedChannel channel, String admin, String kim) {
    hospitals = HospitalServiceGrpc.newBlockingStub(channel).withInterceptors(Checkup.bearer(admin));
    adminScreenings = ScreeningServiceGrpc.newBlockingStub(channel).withInterceptors(Checkup.bearer(admin));
    screenings = ScreeningServiceGrpc.newBlockingStub(channel).withInterceptors(Checkup.bearer(kim));
    pages = MyPageServiceGrpc.newBlockingStub(channel).withInterceptors(Checkup.bearer(kim));
  }

  public static void main(String[] arguments) throws IOException {
    String address = System.getenv().getOrDefault("CHECKUP_ADDR", "127.0.0.1:8080");
    ManagedChannel channel = Checkup.connect(address);
    try {
      new Client(channel, System.getenv("ADMIN"), System.getenv("KIM")).run();
    } catch (StatusRuntimeException error) {
      System.err.println("error: " + Checkup.explain(error));
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }

  private void run() {
    String slot = openSlot();

    // One request_id per intention: the retries of the service config send it again, and nothing is booked twice.
    Screening booked =
        screenings.createScreening(
            CreateScreeningRequest.newBuilder()
                .setScreening(Screening.newBuilder().setCustomer("customers/kim").setSlot(slot))
                .setRequestId(UUID.randomUUID().toString())
                .build());
    System.out.println("booked " + booked.getName() + " " + booked.getState());

    bookFullSlot(slot);

    // The page follows by events; the token waits for the booking just made.
    MyPage page =
        pages.getMyPage(
            GetMyPageRequest.newBuilder().setName(PAGE).setMinConsistencyToken(booked.getConsistencyToken()).build());
    for (MyPageItem item : page.getUpcomingList()) {
      System.out.println("page " + item.getScreening() + " " + item.getState());
    }
    cancelAndWatch(booked);
  }

  /** Registers a hospital with one place thirty days from now, and returns the slot's name. */
  private String openSlot() {
    LocalDate day = LocalDate.now().plusDays(30);
    Date date =
        Date.newBuilder().setYear(day.getYear()).setMonth(day.getMonthValue()).setDay(day.getDayOfMonth()).build();
    Hospital hospital =
        hospitals.createHospital(
            CreateHospitalRequest.newBuilder()
                .setHospital(Hospital.newBuilder().setDisplayName("Java 검진센터").setTimeZone("Asia/Seoul"))
                .addInitialSlots(Slot.newBuilder().setDate(date).setCapacity(1))
                .setRequestId(UUID.randomUUID().toString())
                .build());
    System.out.println("hospital " + hospital.getName() + " " + hospital.getState());
    return hospital.getName() + "/slots/" + day;
  }

  /** Asks for a place that is not there, and reads why not. */
  private void bookFullSlot(String slot) {
    CreateScreeningRequest wish =
        CreateScreeningRequest.newBuilder()
            .setScreening(Screening.newBuilder().setCustomer("customers/lee").setSlot(slot))
            .setRequestId(UUID.randomUUID().toString())
            .build();
    try {
      adminScreenings.createScreening(wish);
    } catch (StatusRuntimeException error) {
      Checkup.Refusal why =
          Checkup.Refusal.of(error).filter(refusal -> refusal.reason() == Reason.SLOT_FULL).orElseThrow(() -> error);
      System.out.println("refused " + why);
      System.out.println("places left: " + Integer.parseInt(why.metadata().get("remaining")));
      return;
    }
    throw new IllegalStateException(slot + " has more than one place");
  }

  /** Cancels the booking while it watches the page, until the page shows it. */
  private void cancelAndWatch(Screening booked) {
    // A stream has no time of its own: it lasts until its caller has seen enough. Leaving the context ends it.
    Context.CancellableContext watching = Context.current().withCancellation();
    watching.run(
        () -> {
          Iterator<WatchMyPageResponse> stream =
              pages
                  .withDeadlineAfter(30, TimeUnit.SECONDS)
                  .watchMyPage(WatchMyPageRequest.newBuilder().setName(PAGE).build());
          while (stream.hasNext() && !shown(stream.next(), booked)) {}
        });
    watching.cancel(null);
  }

  /** Whether a message of the stream shows the booking cancelled; the first one, the snapshot, has it cancelled. */
  private boolean shown(WatchMyPageResponse message, Screening booked) {
    switch (message.getEventCase()) {
      case SNAPSHOT -> {
        System.out.println("watching, upcoming: " + message.getSnapshot().getUpcomingCount());
        Screening cancelled =
            screenings.cancelScreening(
                CancelScreeningRequest.newBuilder()
                    .setName(booked.getName())
                    .setReason("cannot come")
                    .setEtag(booked.getEtag())
                    .setRequestId(UUID.randomUUID().toString())
                    .build());
        System.out.println("cancelled " + cancelled.getName() + " " + cancelled.getState());
      }
      case CHANGED -> {
        MyPageItem item = message.getChanged();
        System.out.println("changed " + item.getScreening() + " " + item.getState());
        return item.getScreening().equals(booked.getName()) && item.getState().equals(Screening.State.CANCELLED.name());
      }
      default -> {}
    }
    return false;
  }
}
