//! What a new user reads first: the address of the process, and lines to paste into a shell.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::{Timestamp, ToSpan};
use runtime::entropy;
use runtime::identity::{Claims, Hospitals, Role, Signer};

use crate::service::Service;

/// How long the printed tokens are valid.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// What to print about a process that serves.
#[derive(Debug)]
pub struct Welcome {
    /// The address that it serves on.
    pub addr: SocketAddr,
    /// The address of its admin pages. `None` for a mesh, where every replica has its own.
    pub admin: Option<SocketAddr>,
    /// The directory of its data.
    pub data: Option<PathBuf>,
    /// The services that it runs.
    pub services: BTreeSet<Service>,
    /// When it began to start.
    pub started: Instant,
    /// Makes the tokens of the lines to paste. Without it there are no such lines.
    pub signer: Option<Signer>,
}

impl Welcome {
    /// The whole text. Scripts rely on its first line.
    #[must_use]
    pub fn text(&self, now: Timestamp) -> String {
        let Self { addr, admin, data, services, started, .. } = self;
        let names: Vec<&str> = services.iter().map(|service| service.name()).collect();
        let mut text = format!(
            "checkup is serving on {addr}\n\
             {}{}started in {} ms, services: {}\n",
            admin.map(|admin| format!("admin on http://{admin} (/live /ready /metrics)\n")).unwrap_or_default(),
            data.as_ref().map(|data| format!("data in {}, ", data.display())).unwrap_or_default(),
            started.elapsed().as_millis(),
            names.join(", "),
        );
        if let Some(lines) = self.lines(now) {
            text += &lines;
        }
        text
    }

    /// The lines to paste. `None` if tokens cannot be made.
    fn lines(&self, now: Timestamp) -> Option<String> {
        let signer = self.signer.as_ref()?;
        // fresh names, so that the lines work again after a restart on the same data
        let run: String = entropy::bytes::<2>().iter().map(|byte| format!("{byte:02x}")).collect();
        let (kim, clinic) = (format!("kim-{run}"), format!("clinic-{run}"));
        let token =
            |role, subject: &str, hospitals| signer.sign(&Claims::new(role, subject, hospitals, TOKEN_TTL)).ok();
        let admin = token(Role::Admin, "admin", Some(Hospitals::One("*".to_owned())))?;
        let (customer, auditor) = (token(Role::Customer, &kim, None)?, token(Role::Auditor, "auditor", None)?);
        let date = now.to_zoned(jiff::tz::TimeZone::UTC).date().checked_add(14.days()).ok()?;
        let addr = self.addr;
        let mut text = String::new();
        // writing to a string does not fail
        let _ = write!(
            text,
            "\nPaste into a shell; the tokens are good for a day, and `checkup token` makes others:\n\n\
             ADMIN={admin}\nCUSTOMER={customer}\nAUDITOR={auditor}\n\n\
             grpcurl -plaintext {addr} list\n"
        );
        let mut call = |what: &str, token: &str, method: &str, body: &str| {
            let token = format!("-H \"authorization: Bearer ${token}\"");
            let _ = write!(text, "# {what}\ngrpcurl -plaintext {token} -d '{body}' {addr} checkup.{method}\n");
        };
        if self.services.contains(&Service::Hospital) {
            let (year, month, day) = (date.year(), date.month(), date.day());
            let slot = format!(r#"{{"date":{{"year":{year},"month":{month},"day":{day}}},"capacity":10}}"#);
            let hospital = r#"{"displayName":"Seoul Clinic","timeZone":"Asia/Seoul"}"#;
            let body = format!(r#"{{"hospitalId":"{clinic}","hospital":{hospital},"initialSlots":[{slot}]}}"#);
            call("a hospital with ten places on a date", "ADMIN", "hospital.v1.HospitalService/CreateHospital", &body);
        }
        if self.services.contains(&Service::Screening) {
            let slot = format!("hospitals/{clinic}/slots/{date}");
            let body = format!(r#"{{"screening":{{"customer":"customers/{kim}","slot":"{slot}"}}}}"#);
            call("a booking", "CUSTOMER", "screening.v1.ScreeningService/CreateScreening", &body);
            call("every booking", "AUDITOR", "screening.v1.ScreeningService/ListScreenings", "{}");
        }
        if self.services.contains(&Service::MyPage) {
            let body = format!(r#"{{"name":"customers/{kim}/myPage"}}"#);
            call("what the customer sees", "CUSTOMER", "mypage.v1.MyPageService/GetMyPage", &body);
        }
        Some(text)
    }
}
