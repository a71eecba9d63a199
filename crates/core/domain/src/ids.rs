//! Typed ids and the resource names they are written as.
//!
//! `Display` writes the resource name of the contract; `parse` reads it. Behind the decoders no id is a bare string.

use std::fmt;

use jiff::civil::Date;
use uuid::Uuid;

/// A name that does not have the expected form. The text says which form was expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

impl From<Malformed> for String {
    fn from(malformed: Malformed) -> Self {
        malformed.0
    }
}

fn expected(pattern: &str) -> Malformed {
    Malformed(format!("must be {pattern}"))
}

/// Whether `text` is 1..=63 of `a-z A-Z 0-9 . _ ~ -` and does not begin with punctuation.
fn is_opaque_segment(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}

/// Reads a UUID in its hyphenated form, in either case.
fn parse_uuid(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// `hospitals/{hospital}`. The segment is `[a-z][a-z0-9-]{2,61}[a-z0-9]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HospitalId(String);

impl HospitalId {
    /// Reads the `{hospital}` segment alone.
    ///
    /// # Errors
    /// [`Malformed`] if the segment does not have this form.
    pub fn from_segment(segment: &str) -> Result<Self, Malformed> {
        let bytes = segment.as_bytes();
        let well_formed = (4..=63).contains(&bytes.len())
            && bytes[0].is_ascii_lowercase()
            && bytes[bytes.len() - 1] != b'-'
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-');
        if well_formed {
            Ok(Self(segment.to_owned()))
        } else {
            Err(expected("4 to 63 of a-z, 0-9 and '-', beginning with a letter and not ending with '-'"))
        }
    }

    /// Reads `hospitals/{hospital}`.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        name.strip_prefix("hospitals/")
            .and_then(|segment| Self::from_segment(segment).ok())
            .ok_or_else(|| expected("hospitals/{hospital}"))
    }

    /// The `{hospital}` segment alone.
    #[must_use]
    pub fn segment(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HospitalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hospitals/{}", self.0)
    }
}

/// The name of a slot: `hospitals/{hospital}/slots/{YYYY-MM-DD}`, or the same with `~{program}` at its end.
///
/// No slot of this version has a program. A later version sells several programs on one date, and its events have to be
/// readable before it runs everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId {
    /// The hospital that owns the slot.
    pub hospital: HospitalId,
    /// The civil date in the hospital's time zone.
    pub date: Date,
    /// 1 to 63 of `a-z`, `0-9` and `-`. `None`: the slot has the whole date.
    pub program: Option<String>,
}

impl SlotId {
    /// The slot that has the whole date.
    #[must_use]
    pub fn new(hospital: HospitalId, date: Date) -> Self {
        Self { hospital, date, program: None }
    }

    /// Reads a slot's name, with or without a program. For what other services and stores say.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        let parts = name
            .split_once("/slots/")
            .and_then(|(hospital, segment)| Self::from_segment(HospitalId::parse(hospital).ok()?, segment));
        parts.ok_or_else(|| expected("hospitals/{hospital}/slots/{YYYY-MM-DD}"))
    }

    /// Reads the name of a slot without a program. For requests: no other slot can be asked for.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse_requested(name: &str) -> Result<Self, Malformed> {
        match Self::parse(name)? {
            slot if slot.program.is_none() => Ok(slot),
            _ => Err(expected("hospitals/{hospital}/slots/{YYYY-MM-DD}")),
        }
    }

    /// Reads the last segment of a slot's name, `{YYYY-MM-DD}` or `{YYYY-MM-DD}~{program}`.
    #[must_use]
    pub fn from_segment(hospital: HospitalId, segment: &str) -> Option<Self> {
        let Some((date, program)) = segment.split_once('~') else {
            return Some(Self::new(hospital, parse_date(segment)?));
        };
        let well_formed = (1..=63).contains(&program.len())
            && program.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let program = well_formed.then(|| program.to_owned())?;
        Some(Self { hospital, date: parse_date(date)?, program: Some(program) })
    }

    /// The last segment of the name: `{YYYY-MM-DD}` or `{YYYY-MM-DD}~{program}`.
    #[must_use]
    pub fn segment(&self) -> String {
        match &self.program {
            None => self.date.to_string(),
            Some(program) => format!("{}~{program}", self.date),
        }
    }
}

/// Reads exactly `YYYY-MM-DD` with a year from 1 to 9999.
#[must_use]
pub fn parse_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(i, byte)| if i == 4 || i == 7 { *byte == b'-' } else { byte.is_ascii_digit() });
    if shaped { text.parse().ok().filter(|date: &Date| date.year() >= 1) } else { None }
}

impl fmt::Display for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/slots/{}", self.hospital, self.date)?;
        self.program.as_ref().map_or(Ok(()), |program| write!(f, "~{program}"))
    }
}

/// The name of a capacity request: `hospitals/{hospital}/capacityRequests/{uuid}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CapacityRequestId {
    /// The hospital whose admins decide it.
    pub hospital: HospitalId,
    /// A time-ordered UUID that Hospital made.
    pub uid: Uuid,
}

impl CapacityRequestId {
    /// Reads `hospitals/{hospital}/capacityRequests/{uuid}`.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        let parts = name.split_once("/capacityRequests/").and_then(|(hospital, uid)| {
            Some(Self { hospital: HospitalId::parse(hospital).ok()?, uid: parse_uuid(uid)? })
        });
        parts.ok_or_else(|| expected("hospitals/{hospital}/capacityRequests/{uuid}"))
    }
}

impl fmt::Display for CapacityRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/capacityRequests/{}", self.hospital, self.uid)
    }
}

/// The name of a screening: `screenings/{uuid}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScreeningId(pub Uuid);

impl ScreeningId {
    /// Reads `screenings/{uuid}`.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        name.strip_prefix("screenings/").and_then(parse_uuid).map(Self).ok_or_else(|| expected("screenings/{uuid}"))
    }

    /// Reads `reservations/{uuid}`: a reservation has the id of its screening.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse_reservation(name: &str) -> Result<Self, Malformed> {
        name.strip_prefix("reservations/").and_then(parse_uuid).map(Self).ok_or_else(|| expected("reservations/{uuid}"))
    }

    /// The name of the reservation that follows this screening.
    #[must_use]
    pub fn reservation_name(self) -> String {
        format!("reservations/{}", self.0)
    }
}

impl fmt::Display for ScreeningId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "screenings/{}", self.0)
    }
}

/// `{screening uid}.{generation}`: the idempotency key of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimId {
    /// The screening that claims the place.
    pub screening: ScreeningId,
    /// 1 for the first place that a screening asks for. Rescheduling would count up.
    pub generation: i32,
}

impl ClaimId {
    /// Reads `{uuid}.{generation}`, generation 1..=999,999,999 without leading zeros.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let parts = text.split_once('.').and_then(|(uid, generation)| {
            let digits = (1..=9).contains(&generation.len())
                && generation.bytes().all(|byte| byte.is_ascii_digit())
                && !generation.starts_with('0');
            let generation = if digits { generation.parse().ok()? } else { return None };
            Some(Self { screening: ScreeningId(parse_uuid(uid)?), generation })
        });
        parts.ok_or_else(|| expected("{screening uuid}.{generation}"))
    }
}

impl fmt::Display for ClaimId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.screening.0, self.generation)
    }
}

/// `customers/{customer}`: the subject of the customer's token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomerId(String);

impl CustomerId {
    /// Reads the `{customer}` segment alone: 1 to 63 letters, digits and `. _ ~ -`, beginning with a letter or digit.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn from_segment(segment: &str) -> Result<Self, Malformed> {
        if is_opaque_segment(segment) {
            Ok(Self(segment.to_owned()))
        } else {
            Err(expected("1 to 63 of letters, digits, '.', '_', '~' and '-', beginning with a letter or digit"))
        }
    }

    /// Reads `customers/{customer}`.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse(name: &str) -> Result<Self, Malformed> {
        name.strip_prefix("customers/")
            .and_then(|segment| Self::from_segment(segment).ok())
            .ok_or_else(|| expected("customers/{customer}"))
    }

    /// Reads `customers/{customer}/myPage`.
    ///
    /// # Errors
    /// [`Malformed`] for any other text.
    pub fn parse_my_page(name: &str) -> Result<Self, Malformed> {
        name.strip_suffix("/myPage")
            .and_then(|customer| Self::parse(customer).ok())
            .ok_or_else(|| expected("customers/{customer}/myPage"))
    }

    /// The `{customer}` segment alone.
    #[must_use]
    pub fn segment(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "customers/{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_they_are_written() {
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(
            SlotId::parse("hospitals/seoul/slots/2027-01-04").unwrap().to_string(),
            "hospitals/seoul/slots/2027-01-04"
        );
        let program = "hospitals/seoul/slots/2027-01-04~heart-2";
        let slot = SlotId::parse(program).unwrap();
        assert_eq!((slot.to_string().as_str(), slot.segment().as_str()), (program, "2027-01-04~heart-2"));
        assert_ne!(slot, SlotId::new(slot.hospital.clone(), slot.date));
        assert!(SlotId::parse_requested(program).is_err() && SlotId::parse_requested(&program[..32]).is_ok());
        assert_eq!(ClaimId::parse(&format!("{uuid}.1")).unwrap().to_string(), format!("{uuid}.1"));
        let request = format!("hospitals/seoul/capacityRequests/{uuid}");
        assert_eq!(CapacityRequestId::parse(&request).unwrap().to_string(), request);
        assert_eq!(CustomerId::parse_my_page("customers/kim/myPage").unwrap().to_string(), "customers/kim");
    }

    #[test]
    fn malformed_names_are_refused() {
        for name in
            ["", "hospitals/", "hospitals/abc", "hospitals/Seoul", "hospitals/1abc", "hospitals/abc-", "hospital/seoul"]
        {
            assert!(HospitalId::parse(name).is_err(), "{name}");
        }
        for name in [
            "hospitals/seoul/slots/2027-02-30",
            "hospitals/seoul/slots/2027-1-4",
            "hospitals/seoul/slots/",
            "hospitals/seoul/slots/2027-01-04~",
            "hospitals/seoul/slots/2027-01-04~Heart",
            "hospitals/seoul/slots/2027-01-04~heart~2",
            "hospitals/seoul/slots/~heart",
            "seoul/slots/2027-01-04",
        ] {
            assert!(SlotId::parse(name).is_err(), "{name}");
        }
        for id in [
            "01890a5d-ac96-774b-bcce-b302099a8057",
            "01890a5d-ac96-774b-bcce-b302099a8057.0",
            "x.1",
            "01890a5d-ac96-774b-bcce-b302099a8057.01",
        ] {
            assert!(ClaimId::parse(id).is_err(), "{id}");
        }
        assert!(CustomerId::parse("customers/a b").is_err());
        assert!(CustomerId::parse(&format!("customers/{}", "x".repeat(64))).is_err());
    }
}
