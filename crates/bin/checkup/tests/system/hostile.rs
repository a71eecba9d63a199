//! Hostile or broken clients: the process keeps answering everybody else.
//!
//! In each test an honest customer books, cancels and reads on a separate connection while other clients misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use contract::hospital::v1 as hospital;
use fault::Reason;
use hospital::{GetHospitalRequest, ListHospitalsRequest};
use testkit::{Answer, Checkup, Desk, Held, RawMethod, Wire};
use testkit::{call_raw, eventually, frame_of, gather, refused, seed, wait_limit, within};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::launch;

/// The first bytes of every HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frame types of RFC 9113.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// A method that anybody may call.
const METHOD: &str = "/checkup.hospital.v1.HospitalService/ListHospitals";
/// How long an honest call may take meanwhile.
const ANSWERED: Duration = Duration::from_secs(8);

/// An honest customer who works until `stop` is set.
struct Honest {
    stop: Arc<AtomicBool>,
    work: JoinHandle<usize>,
}

impl Honest {
    async fn at_work(checkup: &Checkup) -> Self {
        let slot = Desk::of(&checkup.admin().await).open("besieged", &[7], 50).await.remove(0);
        let desk = Desk::of(&checkup.customer("kim").await);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let work = tokio::spawn(async move {
            let mut rounds = 0;
            while rounds == 0 || !stopped.load(Ordering::Relaxed) {
                let booked = within(ANSWERED, "a booking", desk.book("kim", &slot, "")).await.expect("a place");
                within(ANSWERED, "a cancel", desk.cancel(&booked.name, "")).await.expect("cancelled");
                within(ANSWERED, "a read", desk.slot(&slot)).await.expect("the slot");
                rounds += 1;
            }
            rounds
        });
        Self { stop, work }
    }

    /// Ends the attack and checks that the customer was served meanwhile and that a new client is served too.
    async fn was_served(self, checkup: &mut Checkup) {
        self.stop.store(true, Ordering::Relaxed);
        let rounds = gather(vec![self.work]).await.remove(0);
        assert!(rounds > 0, "the honest customer worked meanwhile");
        assert!(checkup.is_alive());
        let request = GetHospitalRequest { name: "hospitals/besieged".to_owned() };
        let stranger = checkup.stranger().await;
        within(ANSWERED, "a newcomer's call", stranger.hospital().get_hospital(request)).await.expect("answered");
        let panicked = checkup.stderr().find(|line| line.contains("panick").then(|| line.clone()));
        assert_eq!(panicked, None);
    }
}

async fn tcp(addr: SocketAddr) -> TcpStream {
    TcpStream::connect(addr).await.expect("a connection")
}

/// Whether the server has closed the connection.
async fn is_closed(stream: &TcpStream) -> Result<(), String> {
    let mut buffer = [0; 4096];
    stream.readable().await.map_err(|error| error.to_string())?;
    loop {
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Err("still open".to_owned()),
            Err(_) => return Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oversized_messages_and_headers_are_refused() {
    let mut checkup = launch().start().await;
    let honest = Honest::at_work(&checkup).await;
    for megabytes in [1, 5, 40] {
        let request = GetHospitalRequest { name: "x".repeat(megabytes * 1024 * 1024) };
        let stranger = checkup.stranger().await;
        let status = stranger.hospital().get_hospital(request).await.expect_err("too much");
        let transport =
            [Code::OutOfRange, Code::ResourceExhausted, Code::InvalidArgument, Code::Unknown, Code::Internal];
        assert!(transport.contains(&status.code()), "{status:?}");
        let mut client = stranger.hospital();
        let list = client.list_hospitals(ListHospitalsRequest::default());
        within(ANSWERED, "the next call", list).await.expect("the connection goes on, or a new one is made");
    }
    // A message length that no message follows.
    let announced = [0, 0x7f, 0xff, 0xff, 0xff];
    let wire = Wire::connect(checkup.addr()).await.expect("a connection");
    let answer = wire.call_with_frame(METHOD, &[], &announced).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status.code() != Code::Ok));
    // One header of a megabyte, and ten thousand small ones.
    for (count, length) in [(1, 1024 * 1024), (10_000, 20)] {
        let value = "v".repeat(length);
        let names: Vec<String> = (0..count).map(|i| format!("x-flood-{i}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
        let wire = Wire::connect(checkup.addr()).await.expect("a connection");
        let answer = within(wait_limit(), "an answer", wire.call(METHOD, &headers, &[])).await;
        let refused = answer.map_or(true, |answer| answer.status.code() != Code::Ok);
        assert!(refused, "{count} headers of {length} bytes");
    }
    honest.was_served(&mut checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_never_end_are_cut_off() {
    let mut checkup = launch().start().await;
    let honest = Honest::at_work(&checkup).await;
    for _ in 0..8 {
        let mut stream = tcp(checkup.addr()).await;
        let mut flood = PREFACE.to_vec();
        flood.extend(frame_of(SETTINGS, 0, 0, &[]));
        // A literal header field with a name and a value of one byte each, repeated: HEADERS without END_HEADERS, then
        // CONTINUATION frames without end.
        let fields: Vec<u8> = [0x00, 0x01, b'a', 0x01, b'b'].repeat(3_000);
        flood.extend(frame_of(HEADERS, 0, 1, &fields));
        let more = frame_of(CONTINUATION, 0, 1, &fields);
        let _ = stream.write_all(&flood).await;
        for _ in 0..2_000 {
            if stream.write_all(&more).await.is_err() {
                break;
            }
        }
        eventually("the flood to be cut off", async || is_closed(&stream).await).await;
    }
    honest.was_served(&mut checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_silent_clients_by_the_hundred_hold_nobody_up() {
    let mut checkup = launch().start().await;
    let honest = Honest::at_work(&checkup).await;
    let mut held = Vec::new();
    for i in 0..600_usize {
        let mut stream = tcp(checkup.addr()).await;
        // Some send nothing, some a part of the preface, some all of it and nothing more, some half a frame.
        let said = match i % 4 {
            0 => Vec::new(),
            1 => PREFACE[..i % PREFACE.len()].to_vec(),
            2 => PREFACE.to_vec(),
            _ => [PREFACE, &frame_of(SETTINGS, 0, 0, &[])[..5]].concat(),
        };
        let _ = stream.write_all(&said).await;
        held.push(stream);
    }
    // Slow lorises: one byte of the preface at a time.
    for byte in PREFACE {
        for stream in held.iter_mut().take(200) {
            let _ = stream.write_all(&[*byte]).await;
        }
    }
    honest.was_served(&mut checkup).await;
}

/// Begins calls on a new connection and keeps them open, as many as the server accepts, at most `most`.
async fn hold_calls(addr: SocketAddr, most: usize) -> (Wire, Vec<Held>) {
    let wire = Wire::connect(addr).await.expect("a connection");
    let mut held = Vec::new();
    while held.len() < most {
        let open = wire.open_and_hold(METHOD, &[]);
        match tokio::time::timeout(Duration::from_millis(100), open).await {
            Ok(Ok(call)) => held.push(call),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    (wire, held)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_number_on_one_connection_are_bounded() {
    let mut checkup = launch().start().await;
    let honest = Honest::at_work(&checkup).await;
    let (wire, held) = hold_calls(checkup.addr(), 20_000).await;
    println!("{} calls were begun on one connection", held.len());
    honest.was_served(&mut checkup).await;
    drop((held, wire));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_number_on_many_connections_are_answered_or_turned_away_at_once() {
    let mut checkup = launch().start().await;
    // Strangers cannot take the places of those who say who they are.
    let honest = Honest::at_work(&checkup).await;
    let mut crowd = Vec::new();
    for _ in 0..12 {
        crowd.push(hold_calls(checkup.addr(), 1_000).await);
    }
    // A full server refuses at once. Health does not depend on it.
    let stranger = checkup.stranger().await;
    for _ in 0..20 {
        let mut client = stranger.hospital();
        let list = client.list_hospitals(ListHospitalsRequest::default());
        match within(ANSWERED, "an answer", list).await {
            Ok(_) => {}
            refusal => drop(refused(refusal, Reason::RateLimited)),
        }
    }
    let health = RawMethod::new("grpc.health.v1.Health", "Check");
    let answer = call_raw(&stranger, &health, Bytes::new(), ANSWERED).await;
    assert!(matches!(answer, Answer::Messages(_)), "a busy process is not a dead one: {answer:?}");
    drop(crowd);
    eventually("the crowd to be forgotten", async || {
        let list = ListHospitalsRequest::default();
        stranger.hospital().list_hospitals(list).await.map_err(|status| status.to_string())
    })
    .await;
    honest.was_served(&mut checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rapid_resets_are_survived() {
    let mut checkup = launch().start().await;
    let honest = Honest::at_work(&checkup).await;
    let addr = checkup.addr();
    let attackers = (0..6)
        .map(|_| {
            tokio::spawn(async move {
                let mut resets = 0;
                while resets < 3_000 {
                    let Ok(wire) = Wire::connect(addr).await else { continue };
                    for _ in 0..500 {
                        resets += 1;
                        // The server is expected to close the connection.
                        if wire.open_and_reset(METHOD, &[]).await.is_err() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    gather(attackers).await;
    honest.was_served(&mut checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_and_other_protocols_are_hung_up_on() {
    let mut checkup = launch().start().await;
    let honest = Honest::at_work(&checkup).await;
    let mut random = seed("noise");
    for i in 0..300_usize {
        let mut stream = tcp(checkup.addr()).await;
        let noise: Vec<u8> = (0..40).flat_map(|_| random.bytes()).collect();
        let said = match i % 5 {
            0 => noise,
            1 => b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            2 => [0x16, 0x03, 0x01, 0x02, 0x00, 0x01].to_vec(),
            // After a valid beginning: a frame on a stream that does not exist, or a flood of pings.
            3 => [PREFACE, &frame_of(SETTINGS, 0, 0, &[]), &frame_of(DATA, 0, 7, &noise)].concat(),
            _ => {
                let pings = frame_of(PING, 0, 0, &[0; 8]).repeat(500);
                let updates = frame_of(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
                [PREFACE, &frame_of(SETTINGS, 0, 0, &[]), &pings, &updates, &noise].concat()
            }
        };
        let _ = stream.write_all(&said).await;
    }
    honest.was_served(&mut checkup).await;
}
