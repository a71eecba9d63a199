//! A TCP proxy between two services that fails as a test tells it to.
//!
//! A blackhole keeps the bytes it holds back and delivers them when the network heals, as TCP's retransmission would: a
//! request can arrive long after its caller has given up. The proxy knows bytes and connections and no HTTP.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// The direction of bytes through the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client: requests.
    ToServer,
    /// To the client: answers.
    ToClient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Weather {
    /// Nothing is delivered in this direction until the proxy is healed.
    blackhole_to_server: bool,
    blackhole_to_client: bool,
    /// New connections are reset at once.
    refuse: bool,
    latency: Duration,
    /// Connections of an older epoch are reset.
    epoch: u64,
}

impl Weather {
    const FAIR: Self = Self {
        blackhole_to_server: false,
        blackhole_to_client: false,
        refuse: false,
        latency: Duration::ZERO,
        epoch: 0,
    };

    fn swallows(&self, direction: Direction) -> bool {
        match direction {
            Direction::ToServer => self.blackhole_to_server,
            Direction::ToClient => self.blackhole_to_client,
        }
    }
}

/// A proxy on a loopback port. It and its connections end when this handle is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

impl FaultProxy {
    /// Listens on a free loopback port without a target: the process that connects through the proxy may start before
    /// the target's port is known. Connections wait until there is a target.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let (target, targets) = watch::channel(None);
        let (weather, forecast) = watch::channel(Weather::FAIR);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if forecast.borrow().refuse {
                    reset_now(&client);
                    continue;
                }
                tokio::spawn(carry(client, targets.clone(), forecast.clone()));
            }
        });
        Self { addr, target, weather, accepting }
    }

    /// The address to connect to instead of the target.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address as a URI, `http://HOST:PORT`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Sets the target of new connections.
    pub fn forward_to(&self, target: SocketAddr) {
        self.target.send_replace(Some(target));
    }

    /// Delivers nothing in this direction, on old and new connections, until [`FaultProxy::heal`].
    pub fn blackhole(&self, direction: Direction) {
        self.weather.send_modify(|weather| match direction {
            Direction::ToServer => weather.blackhole_to_server = true,
            Direction::ToClient => weather.blackhole_to_client = true,
        });
    }

    /// Resets every open connection. New ones go through.
    pub fn reset(&self) {
        self.weather.send_modify(|weather| weather.epoch += 1);
    }

    /// Resets every open connection, and each new one at once.
    pub fn refuse(&self) {
        self.weather.send_modify(|weather| {
            weather.refuse = true;
            weather.epoch += 1;
        });
    }

    /// Delays everything in each direction by this much.
    pub fn latency(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.latency = delay);
    }

    /// Removes all faults: delivers what was held back, and lets new connections through.
    pub fn heal(&self) {
        self.weather.send_modify(|weather| *weather = Weather { epoch: weather.epoch, ..Weather::FAIR });
    }
}

/// Makes the stream close with RST instead of FIN, as a crashed host or a strict firewall would.
fn reset_now(stream: &TcpStream) {
    // A connection that is already gone needs no reset.
    let _ = stream.set_zero_linger();
}

async fn carry(
    client: TcpStream,
    mut targets: watch::Receiver<Option<SocketAddr>>,
    forecast: watch::Receiver<Weather>,
) {
    let epoch = forecast.borrow().epoch;
    let Ok(target) = targets.wait_for(Option::is_some).await.map(|target| *target) else { return };
    let Some(target) = target else { return };
    let Ok(server) = TcpStream::connect(target).await else {
        reset_now(&client);
        return;
    };
    // Small frames must not wait for acknowledgements. If this fails, the proxy is only slower.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let _ = (client.set_zero_linger(), server.set_zero_linger());
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let both = async {
        tokio::join!(
            pump(client_read, server_write, Direction::ToServer, forecast.clone()),
            pump(server_read, client_write, Direction::ToClient, forecast.clone()),
        );
    };
    let mut storm = forecast.clone();
    tokio::select! {
        () = both => {}
        // This branch also ends when the proxy is dropped. Dropping sockets with a zero linger sends RST both ways.
        _ = storm.wait_for(|weather| weather.epoch != epoch) => {}
    }
}

/// Carries one direction. It reads and writes separately, so that every byte has the same delay.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    direction: Direction,
    mut forecast: watch::Receiver<Weather>,
) {
    let (sender, mut on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let latency = forecast.clone();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await.unwrap_or(0);
            let due = Instant::now() + latency.borrow().latency;
            // An empty read is the end of the stream, which is delayed like all bytes.
            if sender.send((due, buffer[..read].to_vec())).await.is_err() || read == 0 {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = on_the_way.recv().await {
            sleep_until(due).await;
            if forecast.wait_for(|weather| !weather.swallows(direction)).await.is_err() {
                return;
            }
            let delivered = if bytes.is_empty() { to.shutdown().await } else { to.write_all(&bytes).await };
            if delivered.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo server behind a proxy, and a client connected through it.
    async fn behind() -> (FaultProxy, TcpStream) {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultProxy::start().await;
        proxy.forward_to(echo.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let client = TcpStream::connect(proxy.addr).await.unwrap();
        (proxy, client)
    }

    async fn echoed(client: &mut TcpStream) -> Option<u8> {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(200), client.read_exact(&mut byte)).await;
        matches!(read, Ok(Ok(_))).then_some(byte[0])
    }

    #[tokio::test]
    async fn a_blackhole_delivers_after_it_is_healed() {
        let (proxy, mut client) = behind().await;
        client.write_all(b"a").await.unwrap();
        assert_eq!(echoed(&mut client).await, Some(b'a'));
        proxy.blackhole(Direction::ToClient);
        client.write_all(b"b").await.unwrap();
        assert_eq!(echoed(&mut client).await, None);
        proxy.heal();
        assert_eq!(echoed(&mut client).await, Some(b'b'));
    }

    #[tokio::test]
    async fn a_delay_is_not_added_up() {
        let (proxy, mut client) = behind().await;
        proxy.latency(Duration::from_millis(30));
        let begun = Instant::now();
        for byte in 0..20 {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut echoed = [0; 20];
        client.read_exact(&mut echoed).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(60), "both ways");
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn a_reset_ends_old_connections_and_a_refusal_new_ones() {
        let (proxy, mut client) = behind().await;
        client.write_all(b"a").await.unwrap();
        assert_eq!(echoed(&mut client).await, Some(b'a'));
        proxy.reset();
        assert!(matches!(client.read(&mut [0]).await, Ok(0) | Err(_)));
        let mut second = TcpStream::connect(proxy.addr).await.unwrap();
        second.write_all(b"b").await.unwrap();
        assert_eq!(echoed(&mut second).await, Some(b'b'));
        proxy.refuse();
        let mut third = TcpStream::connect(proxy.addr).await.unwrap();
        assert!(matches!(third.read(&mut [0]).await, Ok(0) | Err(_)));
    }
}
