//! Every public type is `Send`, `Sync`, `Unpin`, `'static` and `Debug`; every future is `Send`.

use std::fmt::Debug;
use std::time::Duration;

use bytes::Bytes;
use reliable_udp::congestion::{
    Acked, CongestionController, ControllerParams, IdleRestart, Lost, NewReno, RateSample,
    RecoveryEntered, RecoveryExited, RttSnapshot, Sent, TimedOut, Undo,
};
use reliable_udp::{
    Config, ConfigBuilder, ConfigError, CongestionControl, ConnectionError, ConnectionStats,
    DatagramTransport, DropPolicy, Ecn, Endpoint, EndpointError, EndpointStats, OwnedReadHalf,
    OwnedWriteHalf, ReadHalf, RecvBuffer, RecvMeta, ReliableUdpListener, ReliableUdpSocket,
    ReuniteError, State, TimeoutCause, Timestamp, Transmit, Unreachable, WriteHalf,
};
use tokio::io::{AsyncRead, AsyncWrite};

fn shared<T: Send + Sync + Unpin + 'static + Debug>() {}
fn borrowing<T: Send + Sync + Unpin + Debug>() {}
fn stream<T: AsyncRead + AsyncWrite + Send + Sync + Unpin>() {}
fn reader<T: AsyncRead + Send + Sync + Unpin>() {}
fn writer<T: AsyncWrite + Send + Sync + Unpin>() {}
fn controller<T: Send + Debug + ?Sized>() {}
fn incoming<T: futures::Stream + Send + Unpin>() {}
fn future<T: Send>(_: T) {}

#[test]
fn public_types_can_be_shared_and_shown() {
    shared::<ReliableUdpSocket>();
    shared::<ReliableUdpListener>();
    shared::<Endpoint>();
    shared::<OwnedReadHalf>();
    shared::<OwnedWriteHalf>();
    shared::<ReuniteError>();
    shared::<Config>();
    shared::<ConfigBuilder>();
    shared::<DropPolicy>();
    shared::<CongestionControl>();
    shared::<NewReno>();
    shared::<ConfigError>();
    shared::<ConnectionError>();
    shared::<EndpointError>();
    shared::<TimeoutCause>();
    shared::<ConnectionStats>();
    shared::<EndpointStats>();
    shared::<reliable_udp::TransportStats>();
    shared::<State>();
    shared::<Timestamp>();
    shared::<Ecn>();
    shared::<RecvBuffer>();
    shared::<RecvMeta>();
    shared::<Unreachable>();
    borrowing::<Transmit<'_>>();
    borrowing::<ReadHalf<'_>>();
    borrowing::<WriteHalf<'_>>();
    shared::<std::sync::Arc<dyn DatagramTransport>>();
}

#[test]
fn congestion_types_can_be_shared_and_shown() {
    shared::<ControllerParams>();
    shared::<Acked>();
    shared::<IdleRestart>();
    shared::<Lost>();
    shared::<RateSample>();
    shared::<RecoveryEntered>();
    shared::<RecoveryExited>();
    shared::<RttSnapshot>();
    shared::<Sent>();
    shared::<TimedOut>();
    shared::<Undo>();
    controller::<dyn CongestionController>();
}

#[test]
fn sockets_are_streams() {
    stream::<ReliableUdpSocket>();
    reader::<ReadHalf<'_>>();
    reader::<OwnedReadHalf>();
    writer::<WriteHalf<'_>>();
    writer::<OwnedWriteHalf>();
    incoming::<ReliableUdpListener>();
}

/// Compiles, and is never run.
#[allow(dead_code, reason = "checks types only")]
fn futures_are_send(
    endpoint: &Endpoint,
    listener: &ReliableUdpListener,
    mut socket: ReliableUdpSocket,
    mut halves: (OwnedReadHalf, OwnedWriteHalf),
) {
    let addr = "127.0.0.1:1";
    let config = Config::default;
    future(ReliableUdpSocket::connect(addr));
    future(ReliableUdpSocket::connect_with(addr, config()));
    future(ReliableUdpListener::bind(addr));
    future(ReliableUdpListener::bind_with(addr, config()));
    future(Endpoint::bind(addr, config()));
    future(endpoint.connect(addr));
    future(endpoint.connect_with(addr, 1, config()));
    future(endpoint.rendezvous(addr, 1));
    future(endpoint.wait_idle());
    future(endpoint.close(Duration::ZERO));
    future(listener.accept());
    future(socket.peek(&mut []));
    future(socket.closed());
    future(socket.read_chunk(1));
    future(socket.write_chunk(Bytes::new()));
    let (mut read, mut write) = socket.split();
    future(read.peek(&mut []));
    future(read.read_chunk(1));
    future(write.write_chunk(Bytes::new()));
    future(halves.0.peek(&mut []));
    future(halves.0.read_chunk(1));
    future(halves.1.write_chunk(Bytes::new()));
}

#[test]
fn taps_can_be_shown() {
    use reliable_udp::tap::{Direction, Tap, TapFactory, TappedSegment};

    shared::<Direction>();
    shared::<std::sync::Arc<dyn TapFactory>>();
    borrowing::<TappedSegment<'_>>();
    controller::<dyn Tap>();
}

#[cfg(feature = "capture")]
#[test]
fn the_captures_types_can_be_shared_and_shown() {
    use std::fs::File;

    use reliable_udp::capture::{
        Capture, CaptureBuilder, CaptureStats, PcapngWriter, SegmentError, SegmentRecord, TextLog,
    };

    shared::<Capture>();
    shared::<CaptureStats>();
    shared::<SegmentError>();
    shared::<PcapngWriter<File>>();
    shared::<TextLog<File>>();
    borrowing::<SegmentRecord<'_>>();
    // It holds writers that need not be shared.
    controller::<CaptureBuilder>();
}

#[cfg(feature = "sim")]
#[test]
fn the_simulators_types_can_be_shared_and_shown() {
    use reliable_udp::sim::{
        Deliveries, Delivery, Impaired, Link, LinkConfig, LinkConfigBuilder, LinkQueue, LinkStats,
        RateTrace, RateTraceError, Rng, SimNetwork, SimTransport,
    };

    shared::<Deliveries>();
    shared::<Delivery>();
    shared::<Impaired<SimTransport>>();
    shared::<Link>();
    shared::<LinkConfig>();
    shared::<LinkConfigBuilder>();
    shared::<LinkQueue>();
    shared::<LinkStats>();
    shared::<RateTrace>();
    shared::<RateTraceError>();
    shared::<Rng>();
    shared::<SimNetwork>();
    shared::<SimTransport>();
}

#[cfg(feature = "tls")]
#[test]
fn the_types_of_tls_can_be_shared_and_shown() {
    use reliable_udp::tls::{
        Acceptor, CertificateProblem, Connector, Fingerprint, TlsError, TlsStream,
    };

    shared::<Acceptor>();
    shared::<CertificateProblem>();
    shared::<Connector>();
    shared::<Fingerprint>();
    shared::<TlsError>();
    shared::<TlsStream<ReliableUdpSocket>>();
    stream::<TlsStream<ReliableUdpSocket>>();
}

/// Compiles, and is never run.
#[cfg(feature = "tls")]
#[allow(dead_code, reason = "checks types only")]
fn futures_of_tls_are_send(
    acceptor: &reliable_udp::tls::Acceptor,
    connector: &reliable_udp::tls::Connector,
    sockets: (ReliableUdpSocket, ReliableUdpSocket),
) {
    future(acceptor.accept(sockets.0));
    future(connector.connect("server", sockets.1));
}

#[cfg(feature = "copy")]
#[test]
fn secrets_can_be_shared_and_shown() {
    use reliable_udp::copy::{Denial, Secret, SecretError};

    shared::<Denial>();
    shared::<Secret>();
    shared::<SecretError>();
}
