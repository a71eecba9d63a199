// A client of checkup as another team would write it: it books, is refused, reads and watches a page, and cancels.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	errorv1 "checkup.example/stubs/checkup/error/v1"
	hospitalv1 "checkup.example/stubs/checkup/hospital/v1"
	mypagev1 "checkup.example/stubs/checkup/mypage/v1"
	screeningv1 "checkup.example/stubs/checkup/screening/v1"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/type/date"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "error:", explain(err))
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	address := cmp.Or(os.Getenv("CHECKUP_ADDR"), "127.0.0.1:8080")
	admin, err := connect(address, os.Getenv("ADMIN"))
	if err != nil {
		return err
	}
	defer admin.Close()
	kim, err := connect(address, os.Getenv("KIM"))
	if err != nil {
		return err
	}
	defer kim.Close()
	screenings, pages := screeningv1.NewScreeningServiceClient(kim), mypagev1.NewMyPageServiceClient(kim)

	slot, err := openSlot(ctx, hospitalv1.NewHospitalServiceClient(admin))
	if err != nil {
		return err
	}

	// One request_id per intention: the retries of the service config send it again, and nothing is booked twice.
	booked, err := screenings.CreateScreening(ctx, &screeningv1.CreateScreeningRequest{
		Screening: &screeningv1.Screening{Customer: "customers/kim", Slot: slot},
		RequestId: uuid.NewString(),
	})
	if err != nil {
		return err
	}
	fmt.Println("booked", booked.GetName(), booked.GetState())

	if err := bookFullSlot(ctx, screeningv1.NewScreeningServiceClient(admin), slot); err != nil {
		return err
	}

	// The page follows by events; the token waits for the booking just made.
	page, err := pages.GetMyPage(ctx, &mypagev1.GetMyPageRequest{
		Name:                "customers/kim/myPage",
		MinConsistencyToken: booked.GetConsistencyToken(),
	})
	if err != nil {
		return err
	}
	for _, item := range page.GetUpcoming() {
		fmt.Println("page", item.GetScreening(), item.GetState())
	}
	return cancelAndWatch(ctx, screenings, pages, booked)
}

// openSlot registers a hospital with one place thirty days from now, and returns the slot's name.
func openSlot(ctx context.Context, hospitals hospitalv1.HospitalServiceClient) (string, error) {
	day := time.Now().AddDate(0, 0, 30)
	hospital, err := hospitals.CreateHospital(ctx, &hospitalv1.CreateHospitalRequest{
		Hospital: &hospitalv1.Hospital{DisplayName: "Go 검진센터", TimeZone: "Asia/Seoul"},
		InitialSlots: []*hospitalv1.Slot{{
			Date:     &date.Date{Year: int32(day.Year()), Month: int32(day.Month()), Day: int32(day.Day())},
			Capacity: 1,
		}},
		RequestId: uuid.NewString(),
	})
	if err != nil {
		return "", err
	}
	fmt.Println("hospital", hospital.GetName(), hospital.GetState())
	return hospital.GetName() + "/slots/" + day.Format(time.DateOnly), nil
}

// bookFullSlot asks for a place that is not there, and reads why not.
func bookFullSlot(ctx context.Context, screenings screeningv1.ScreeningServiceClient, slot string) error {
	_, err := screenings.CreateScreening(ctx, &screeningv1.CreateScreeningRequest{
		Screening: &screeningv1.Screening{Customer: "customers/lee", Slot: slot},
		RequestId: uuid.NewString(),
	})
	why, ok := refused(err)
	if !ok || why.Reason != errorv1.Reason_SLOT_FULL {
		return cmp.Or(err, fmt.Errorf("%s has more than one place", slot))
	}
	remaining, err := strconv.Atoi(why.Metadata["remaining"])
	if err != nil {
		return err
	}
	fmt.Println("refused", why)
	fmt.Println("places left:", remaining)
	return nil
}

// cancelAndWatch cancels the booking while it watches the page, until the page shows it.
func cancelAndWatch(ctx context.Context, screenings screeningv1.ScreeningServiceClient, pages mypagev1.MyPageServiceClient, booked *screeningv1.Screening) error {
	// A stream has no time of its own: it lasts until its caller has seen enough.
	watching, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	stream, err := pages.WatchMyPage(watching, &mypagev1.WatchMyPageRequest{Name: "customers/kim/myPage"})
	if err != nil {
		return err
	}
	for {
		message, err := stream.Recv()
		if err != nil {
			return err
		}
		switch event := message.GetEvent().(type) {
		case *mypagev1.WatchMyPageResponse_Snapshot:
			fmt.Println("watching, upcoming:", len(event.Snapshot.GetUpcoming()))
			cancelled, err := screenings.CancelScreening(ctx, &screeningv1.CancelScreeningRequest{
				Name:      booked.GetName(),
				Reason:    "cannot come",
				Etag:      booked.GetEtag(),
				RequestId: uuid.NewString(),
			})
			if err != nil {
				return err
			}
			fmt.Println("cancelled", cancelled.GetName(), cancelled.GetState())
		case *mypagev1.WatchMyPageResponse_Changed:
			item := event.Changed
			fmt.Println("changed", item.GetScreening(), item.GetState())
			if item.GetScreening() == booked.GetName() && item.GetState() == screeningv1.Screening_CANCELLED.String() {
				return nil
			}
		}
	}
}
