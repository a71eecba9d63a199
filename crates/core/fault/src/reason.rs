//! The closed lists of codes and reasons, and which code each reason travels under.

/// The gRPC codes this system answers with. The others (UNKNOWN, DATA_LOSS, CANCELLED, UNIMPLEMENTED) are left out on
/// purpose: a mesh counts them against the health of the pod that sent them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The caller must change the request.
    InvalidArgument,
    /// The named thing does not exist.
    NotFound,
    /// The thing to be made is already there.
    AlreadyExists,
    /// The state of the system forbids it; a retry helps only after that state has changed.
    FailedPrecondition,
    /// A concurrent change got in between; read the resource again, then decide.
    Aborted,
    /// The caller or the service has more calls than it may; back off.
    ResourceExhausted,
    /// Nothing is wrong with the request; try the same one again.
    Unavailable,
    /// The caller did not prove who it is.
    Unauthenticated,
    /// The caller may not do this.
    PermissionDenied,
    /// The caller's deadline passed before there was an answer.
    DeadlineExceeded,
    /// The position to resume from is no longer kept.
    OutOfRange,
    /// A defect in one of our services.
    Internal,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal => $code:ident;)+) => {
        /// Why a call was refused: `google.rpc.ErrorInfo.reason` under the domain `checkup`, the same names as
        /// `checkup.error.v1.Reason`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name a client sees, UPPER_SNAKE_CASE.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The gRPC code that a fault with this reason answers.
            #[must_use]
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$variant => Code::$code,)+
                }
            }

            /// The reason with this name, or `None` if the contract has no such reason.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// A field is missing, malformed or out of its range.
    FieldInvalid = "FIELD_INVALID" => InvalidArgument;
    /// A date does not exist or is incomplete.
    DateInvalid = "DATE_INVALID" => InvalidArgument;
    /// A time zone is not in the IANA database.
    TimeZoneUnknown = "TIME_ZONE_UNKNOWN" => InvalidArgument;
    /// A filter is not of the documented grammar or names an unknown field.
    FilterInvalid = "FILTER_INVALID" => InvalidArgument;
    /// A page or resume token was not made by this list with these arguments.
    PageTokenInvalid = "PAGE_TOKEN_INVALID" => InvalidArgument;
    /// A `request_id` is not a UUID.
    RequestIdMalformed = "REQUEST_ID_MALFORMED" => InvalidArgument;
    /// A `request_id` was used before with other content.
    RequestIdReused = "REQUEST_ID_REUSED" => InvalidArgument;
    /// An absolute change needs the etag of what it replaces.
    EtagRequired = "ETAG_REQUIRED" => InvalidArgument;
    /// The named hospital does not exist.
    HospitalNotFound = "HOSPITAL_NOT_FOUND" => NotFound;
    /// The named slot does not exist.
    SlotNotFound = "SLOT_NOT_FOUND" => NotFound;
    /// The named screening does not exist.
    ScreeningNotFound = "SCREENING_NOT_FOUND" => NotFound;
    /// The named reservation does not exist.
    ReservationNotFound = "RESERVATION_NOT_FOUND" => NotFound;
    /// The named capacity request does not exist.
    CapacityRequestNotFound = "CAPACITY_REQUEST_NOT_FOUND" => NotFound;
    /// The named claim does not exist.
    ClaimNotFound = "CLAIM_NOT_FOUND" => NotFound;
    /// The hospital's id is taken, possibly by a deleted hospital.
    HospitalAlreadyExists = "HOSPITAL_ALREADY_EXISTS" => AlreadyExists;
    /// The hospital has a slot on that date.
    SlotAlreadyExists = "SLOT_ALREADY_EXISTS" => AlreadyExists;
    /// The customer has an active booking on that date.
    CustomerDateConflict = "CUSTOMER_DATE_CONFLICT" => AlreadyExists;
    /// Every place of the slot is taken.
    SlotFull = "SLOT_FULL" => FailedPrecondition;
    /// The slot is not on sale.
    SlotClosed = "SLOT_CLOSED" => FailedPrecondition;
    /// The hospital is being or has been deleted.
    HospitalDeleted = "HOSPITAL_DELETED" => FailedPrecondition;
    /// The hospital has bookings of dates that are not over, and force was not set.
    HospitalHasBookings = "HOSPITAL_HAS_BOOKINGS" => FailedPrecondition;
    /// The date is before today in the hospital's time zone.
    DateInPast = "DATE_IN_PAST" => FailedPrecondition;
    /// The date is not yet or no longer on sale.
    OutsideBookingWindow = "OUTSIDE_BOOKING_WINDOW" => FailedPrecondition;
    /// The cut-off for cancelling has passed.
    CancellationClosed = "CANCELLATION_CLOSED" => FailedPrecondition;
    /// The screening's state does not allow this.
    ScreeningStateInvalid = "SCREENING_STATE_INVALID" => FailedPrecondition;
    /// The new capacity is below what is already booked.
    CapacityBelowBooked = "CAPACITY_BELOW_BOOKED" => FailedPrecondition;
    /// The capacity request was already approved or rejected, or it has expired.
    CapacityRequestDecided = "CAPACITY_REQUEST_DECIDED" => FailedPrecondition;
    /// Attendance can be recorded only once the date has come.
    DateNotReached = "DATE_NOT_REACHED" => FailedPrecondition;
    /// The claim was released or revoked and never comes back.
    ClaimTerminated = "CLAIM_TERMINATED" => FailedPrecondition;
    /// The slot's queue is as long as it may be, or its hospital has no queues.
    WaitlistFull = "WAITLIST_FULL" => FailedPrecondition;
    /// It is too late to get a place from the queue.
    WaitlistClosed = "WAITLIST_CLOSED" => FailedPrecondition;
    /// The cut-off for moving a booking has passed.
    RescheduleClosed = "RESCHEDULE_CLOSED" => FailedPrecondition;
    /// The customer has moved a booking as often as the hospital allows.
    RescheduleLimitReached = "RESCHEDULE_LIMIT_REACHED" => FailedPrecondition;
    /// The customer has as many bookings as the hospital allows.
    CustomerLimitReached = "CUSTOMER_LIMIT_REACHED" => FailedPrecondition;
    /// The resource has changed since the etag was read.
    EtagMismatch = "ETAG_MISMATCH" => Aborted;
    /// A call with the same `request_id` is being worked on.
    RequestInProgress = "REQUEST_IN_PROGRESS" => Aborted;
    /// The bookings of a slot are still being cancelled.
    RevocationInProgress = "REVOCATION_IN_PROGRESS" => Aborted;
    /// The caller sends more than its share.
    RateLimited = "RATE_LIMITED" => ResourceExhausted;
    /// The service's queue is full.
    Overloaded = "OVERLOADED" => ResourceExhausted;
    /// Hospital did not answer; the outcome is settled by a retry of the same request_id.
    HospitalUnavailable = "HOSPITAL_UNAVAILABLE" => Unavailable;
    /// The view has not yet seen the write the caller asked for.
    ViewLagging = "VIEW_LAGGING" => Unavailable;
    /// The service is starting or draining.
    NotReady = "NOT_READY" => Unavailable;
    /// The service's storage is full, fails or is out of reach.
    StorageUnavailable = "STORAGE_UNAVAILABLE" => Unavailable;
    /// The call carries no token.
    CredentialsMissing = "CREDENTIALS_MISSING" => Unauthenticated;
    /// The token is expired, is for another audience, or is not signed by our issuer.
    CredentialsInvalid = "CREDENTIALS_INVALID" => Unauthenticated;
    /// The resource belongs to somebody else.
    NotOwner = "NOT_OWNER" => PermissionDenied;
    /// The caller's role may not call this.
    RoleRequired = "ROLE_REQUIRED" => PermissionDenied;
    /// The caller's deadline passed.
    DeadlineExceeded = "DEADLINE_EXCEEDED" => DeadlineExceeded;
    /// The resume position is no longer kept.
    CursorExpired = "CURSOR_EXPIRED" => OutOfRange;
    /// A defect in one of our services; never a refusal.
    Internal = "INTERNAL" => Internal;
}

impl Reason {
    /// Whether the reason says that the answering process itself cannot serve. Only such answers may count against the
    /// pod in the mesh; the other retryable reasons are about another service, the caller's rate or the caller's
    /// deadline.
    #[must_use]
    pub const fn speaks_of_its_sender(self) -> bool {
        matches!(self, Self::NotReady | Self::StorageUnavailable | Self::Internal)
    }

    /// Whether the same request may succeed when it is sent again unchanged.
    #[must_use]
    pub const fn retryable(self) -> bool {
        match self.code() {
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded => true,
            Code::Aborted => matches!(self, Self::RequestInProgress | Self::RevocationInProgress),
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::OutOfRange
            | Code::Internal => false,
        }
    }
}
